"""What is not built yet: it can be named, and its use is refused by that name."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

from polos_client.define.agent import Agent
from polos_client.define.context import WorkflowContext
from polos_client.define.tool import tool
from polos_client.define.workflow import workflow
from polos_client.errors import DefinitionError
from polos_client.unbuilt import NAMES, OPTIONS, placeholder, refuse

BUILT = {
    "id",
    "provider",
    "model",
    "description",
    "system_prompt",
    "tools",
    "output_schema",
    "temperature",
    "max_output_tokens",
    "provider_base_url",
    "provider_llm_api",
    "provider_kwargs",
    "stop_conditions",
    "stream_to_workflow",
    "deadlines",
}


class Mixin:
    """A class of a program."""


DOCUMENTED = """
    id provider model description system_prompt tools temperature max_output_tokens
    provider_base_url provider_llm_api queue stop_conditions output_schema on_start on_end
    on_agent_step_start on_agent_step_end on_tool_start on_tool_end guardrails
    guardrail_max_retries compaction stream_to_workflow
"""


def test_the_parameters_of_agent_stand_in_the_documented_order() -> None:
    documented = DOCUMENTED.split()
    found = inspect.signature(Agent).parameters
    assert list(found)[: len(documented)] == documented
    assert all(one.kind is one.POSITIONAL_OR_KEYWORD for one in found.values())


@pytest.mark.parametrize("name", inspect.signature(Agent).parameters)
def test_each_parameter_of_agent_is_built_or_refused(name: str) -> None:
    assert (name in BUILT) != (name in OPTIONS)
    if name in OPTIONS:
        with pytest.raises(DefinitionError, match=rf"^Agent\({name}=.*not built yet in this"):
            Agent("a", "openai", "m", **{name: "x"})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_value_that_asks_for_nothing_is_taken(name: str) -> None:
    for value in (None, *OPTIONS[name].unused):
        refuse("Agent", {name: value})


def test_a_refusal_of_a_long_value_is_short() -> None:
    with pytest.raises(DefinitionError) as raised:
        refuse("Agent", {"queue": "q" * 10_000})
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    "use",
    [
        lambda one: one(),
        lambda one: one(print),
        lambda one: one(count=3),
        lambda one: one.create("daily"),
        lambda one: type("Mine", (one,), {}),
        lambda one: type(one)("Mine", (Mixin, one), {}),
    ],
    ids=["call", "decorate", "instantiate", "attribute", "derive", "derive with others"],
)
@pytest.mark.parametrize("name", ["guardrail", "AgentContext", "schedules", "publish"])
def test_each_use_is_refused_by_name(name: str, use: Callable[[Any], Any]) -> None:
    with pytest.raises(DefinitionError, match=f"^{name} is not built yet in this version"):
        use(placeholder(name))


def test_a_name_stands_in_annotations() -> None:
    context: Any = placeholder("AgentContext")
    names: dict[str, Any] = {"AgentContext": context}
    exec("def read(ctx: AgentContext, more: list[AgentContext] | None) -> None: ...", names)
    assert get_type_hints(names["read"])["ctx"] is context
    assert not isinstance("text", context)
    assert not hasattr(context, "agent_id")
    assert placeholder("AgentContext") is context


def test_what_a_context_does_not_have_yet_is_refused_by_name() -> None:
    ctx: Any = WorkflowContext(workflow_id="a", execution_id="r", step_key="k", idempotency_key="i")
    with pytest.raises(DefinitionError, match=r"^ctx.tools is not built yet in this version$"):
        ctx.tools.append(print)
    assert not hasattr(ctx, "cancel_event")
    assert not hasattr(ctx, "nothing")
    assert copy.deepcopy(ctx) == pickle.loads(pickle.dumps(ctx)) == ctx


def test_advice_is_given_where_there_is_some() -> None:
    assert placeholder("AgentContext").__doc__ == (
        "AgentContext is not built yet in this version; tools get a WorkflowContext"
    )
    assert all(placeholder(name).__name__ == name for name in NAMES)


def test_a_method_that_is_not_built_is_refused_by_its_name() -> None:
    agent, plain = Agent("a", "openai", "m"), tool(id="t")(lambda: None)
    order = workflow(id="w")(lambda ctx: ctx)
    for owner, name, told in (
        (plain, "run", "tool.run"),
        (order, "stream", "workflow.stream"),
        (order, "queue_name", "workflow.queue_name"),
    ):
        assert not hasattr(owner, name)
        with pytest.raises(DefinitionError, match=f"^{told} is not built yet in this version; "):
            getattr(owner, name)
    with pytest.raises(AttributeError, match="'Agent' object has no attribute 'rum'"):
        agent.rum  # type: ignore[attr-defined]  # noqa: B018
