"""What programs for the original SDK may name and this version does not have yet.

A name can be imported and stand in annotations; its use is refused. An option is refused where
it is given. Nothing is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, NamedTuple, NoReturn

from polos_client.errors import DefinitionError


class Option(NamedTuple):
    """A parameter that is not built yet.

    Attributes:
        unused: the values that ask for nothing, beside None.
        advice: what to do instead; empty: leave it out.

    """

    unused: tuple[Any, ...] = ()
    advice: str = ""


_NO_QUEUE = "POLOS_MAX_RUNS bounds how many runs a service works on at once"
"""What to do instead of a queue."""

_IN_TOOLS = "put checks into the tools"
"""What to do instead of a hook or guardrail."""

OPTIONS: Mapping[str, Option] = {
    "channels": Option(([], ())),
    "compaction": Option(),
    "concurrency_key": Option(advice=_NO_QUEUE),
    "guardrail_max_retries": Option((2,)),
    "guardrails": Option(([], ())),
    "last_timestamp": Option(advice="pass last_sequence_id"),
    "on_agent_step_end": Option(([], ())),
    "on_agent_step_start": Option(([], ())),
    "on_end": Option(([], ())),
    "on_start": Option(([], ())),
    "on_tool_end": Option(([], ()), _IN_TOOLS),
    "on_tool_start": Option(([], ()), _IN_TOOLS),
    "queue": Option(advice=_NO_QUEUE),
    "queue_concurrency_limit": Option(advice=_NO_QUEUE),
    "queue_name": Option(advice=_NO_QUEUE),
    "schedule": Option((False,), "start it from a cron job of yours"),
    "trigger_on_event": Option(),
    "batch_size": Option((1,)),
    "batch_timeout_seconds": Option(),
}
"""The parameters of `Agent`, `@tool`, `@workflow`, starts and `Polos` that are not built yet."""

NAMES: Mapping[str, str] = {
    "AgentConfig": "",
    "AgentContext": "tools get a WorkflowContext",
    "AgentStreamHandle": "agent.stream returns an AgentStream",
    "BatchEventPayload": "",
    "Channel": "",
    "ChannelContext": "",
    "ChannelOutputMode": "",
    "CompactionConfig": "",
    "DockerEnvironment": "",
    "DockerEnvironmentConfig": "",
    "E2BEnvironmentConfig": "",
    "EnvironmentInfo": "",
    "EventData": "",
    "EventPayload": "",
    "ExecOptions": "",
    "ExecResult": "",
    "ExecToolConfig": "",
    "ExecutionEnvironment": "",
    "GlobOptions": "",
    "GrepMatch": "",
    "GrepOptions": "",
    "GuardrailContext": "",
    "GuardrailResult": "",
    "HookAction": "",
    "HookContext": "",
    "HookResult": "",
    "LocalEnvironment": "",
    "LocalEnvironmentConfig": "",
    "ManagedSandbox": "",
    "Queue": _NO_QUEUE,
    "SandboxManager": "",
    "SandboxToolsConfig": "",
    "SchedulePayload": "",
    "SlackChannel": "",
    "SlackChannelConfig": "",
    "StreamResult": "agent.stream returns an AgentStream",
    "SuspendNotification": "",
    "WebSearchFunction": "",
    "WebSearchOptions": "",
    "WebSearchResult": "",
    "WebSearchResultItem": "",
    "WebSearchToolConfig": "",
    "Worker": "`polos serve app.py` serves what a file defines, and Polos() what a program does",
    "batch_publish": "",
    "create_web_search_tool": "",
    "guardrail": _IN_TOOLS,
    "hook": _IN_TOOLS,
    "publish": "",
    "queue": _NO_QUEUE,
    "sandbox_tools": "",
    "schedules": "",
    "stream_topic": "events.stream_workflow reads the events of a run",
}
"""The names of the original SDK that are not built yet, and what to do instead, if anything."""

CONTEXT = frozenset(
    {
        "agent_id",
        "cancel_event",
        "channel_context",
        "channels",
        "deployment_id",
        "max_tokens",
        "model",
        "otel_span_id",
        "otel_traceparent",
        "provider",
        "system_prompt",
        "temperature",
        "tools",
    }
)
"""What a context of the original SDK has, and that of this version does not have yet."""

MEMBERS: Mapping[str, Mapping[str, str]] = {
    "Tool": {"run": "call the function in a step of a workflow"},
    "Workflow": {
        "batch_size": "",
        "batch_timeout_seconds": "",
        "is_schedulable": "",
        "on_end": "",
        "on_start": "",
        "queue_concurrency_limit": _NO_QUEUE,
        "queue_name": _NO_QUEUE,
        "schedule": "",
        "stream": "call workflow.invoke and events.stream_workflow",
        "trigger_on_event": "",
    },
}
"""The members of the original SDK's objects that are not built yet, and what to do instead."""


def refuse(what: str, options: Mapping[str, Any]) -> None:
    """Refuse every option that asks for something.

    Args:
        what: what takes the options, as it is written: "Agent" or "@tool".
        options: the options by name; None where none was given.

    Raises:
        DefinitionError: one was given, or is not known at all.

    """
    for name, value in options.items():
        if name not in OPTIONS:
            raise DefinitionError(f"{what} takes no {name}")
        if value is not None and value not in OPTIONS[name].unused:
            advice = OPTIONS[name].advice or f"leave {name} out"
            raise DefinitionError(
                f"{what}({name}={value!r:.80}) is not built yet in this version; {advice}"
            )


def not_built_yet(module: str, names: Collection[str]) -> Callable[[str], type]:
    """Return the `__getattr__` of a module in which these names are placeholders."""

    def find(name: str) -> type:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return placeholder(name)

    return find


@cache
def placeholder(name: str) -> type:
    """Return what stands for one of `NAMES`: a class that only annotations can use."""
    return _Placeholder(name, (), {"__module__": "polos", "__doc__": _not_built(name, NAMES[name])})


class _Placeholder(type):
    """Refuses to be called, decorated with, derived from, or asked for an attribute."""

    def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> _Placeholder:
        for base in bases:
            if isinstance(base, _Placeholder):
                raise DefinitionError(_not_built(base.__name__, NAMES[base.__name__]))
        return super().__new__(cls, name, bases, space)

    def __call__(cls, *_: Any, **__: Any) -> NoReturn:
        raise DefinitionError(_not_built(cls.__name__, NAMES[cls.__name__]))

    def __getattr__(cls, name: str) -> NoReturn:
        if name.startswith("__"):  # the interpreter and libraries look for these
            raise AttributeError(name)
        raise NotBuiltAttributeError(_not_built(cls.__name__, NAMES[cls.__name__]))


class NotBuiltAttributeError(DefinitionError, AttributeError):
    """An attribute that is not built: `hasattr` says False, and programs read why."""


def missing(owner: object, name: str) -> AttributeError:
    """Return the error of an attribute that an Agent, a Tool or a Workflow does not have."""
    kind = type(owner).__name__
    advice = MEMBERS.get(kind, {}).get(name)
    if advice is None:
        return AttributeError(f"{kind!r} object has no attribute {name!r}")
    called = f"{kind.lower()}.{name}"
    return NotBuiltAttributeError(_not_built(called, advice))


def _not_built(name: str, advice: str) -> str:
    return f"{name} is not built yet in this version" + (f"; {advice}" if advice else "")
