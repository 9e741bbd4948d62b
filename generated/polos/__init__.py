"""The public names of Polos, each loaded when it is first used."""

# Written by scripts/generate.py; do not edit.

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polos_client.calls import events as events
    from polos_client.define import scripted as scripted
    from polos_client.define.agent import Agent as Agent
    from polos_client.calls.client import PolosClient as PolosClient
    from polos_client.define.context import WorkflowContext as WorkflowContext
    from polos_client.deadlines import Deadlines as Deadlines
    from polos_client.errors import AgentNotFound as AgentNotFound
    from polos_client.errors import CallError as CallError
    from polos_client.errors import ConnectionLost as ConnectionLost
    from polos_client.errors import CursorAhead as CursorAhead
    from polos_client.errors import DefinitionError as DefinitionError
    from polos_client.errors import Draining as Draining
    from polos_client.errors import InternalError as InternalError
    from polos_client.errors import InvalidRequest as InvalidRequest
    from polos_client.errors import PermissionDenied as PermissionDenied
    from polos_client.errors import PolosError as PolosError
    from polos_client.errors import RequestIdReused as RequestIdReused
    from polos_client.errors import RunCancelled as RunCancelled
    from polos_client.errors import RunError as RunError
    from polos_client.errors import RunExpired as RunExpired
    from polos_client.errors import RunFailed as RunFailed
    from polos_client.errors import RunNotFinished as RunNotFinished
    from polos_client.errors import RunNotFound as RunNotFound
    from polos_client.errors import RunTimeout as RunTimeout
    from polos_client.errors import StoreUnavailable as StoreUnavailable
    from polos_client.errors import TooLarge as TooLarge
    from polos_client.errors import TooManyRuns as TooManyRuns
    from polos_client.errors import Unauthenticated as Unauthenticated
    from polos_client.event import Event as Event
    from polos_client.calls.handle import ExecutionHandle as ExecutionHandle
    from polos_client.result import AgentResult as AgentResult
    from polos_client.result import ToolResult as ToolResult
    from polos_client.result import Usage as Usage
    from polos_client.define.stop import ExecutedToolConfig as ExecutedToolConfig
    from polos_client.define.stop import HasTextConfig as HasTextConfig
    from polos_client.define.stop import MaxStepsConfig as MaxStepsConfig
    from polos_client.define.stop import MaxTokensConfig as MaxTokensConfig
    from polos_client.define.stop import Step as Step
    from polos_client.define.stop import StopConditionContext as StopConditionContext
    from polos_client.define.stop import executed_tool as executed_tool
    from polos_client.define.stop import has_text as has_text
    from polos_client.define.stop import max_steps as max_steps
    from polos_client.define.stop import max_tokens as max_tokens
    from polos_client.define.stop import stop_condition as stop_condition
    from polos_client.calls.stream import AgentStream as AgentStream
    from polos_client.calls.stream import TextChunk as TextChunk
    from polos_client.define.tool import Tool as Tool
    from polos_client.define.tool import tool as tool
    from polos_client.define.workflow import workflow as workflow
    from polos_service.embedded import Polos as Polos

_HOMES = {
    "Agent": "polos_client.define.agent",
    "AgentNotFound": "polos_client.errors",
    "AgentResult": "polos_client.result",
    "AgentStream": "polos_client.calls.stream",
    "CallError": "polos_client.errors",
    "ConnectionLost": "polos_client.errors",
    "CursorAhead": "polos_client.errors",
    "Deadlines": "polos_client.deadlines",
    "DefinitionError": "polos_client.errors",
    "Draining": "polos_client.errors",
    "Event": "polos_client.event",
    "ExecutedToolConfig": "polos_client.define.stop",
    "ExecutionHandle": "polos_client.calls.handle",
    "HasTextConfig": "polos_client.define.stop",
    "InternalError": "polos_client.errors",
    "InvalidRequest": "polos_client.errors",
    "MaxStepsConfig": "polos_client.define.stop",
    "MaxTokensConfig": "polos_client.define.stop",
    "PermissionDenied": "polos_client.errors",
    "Polos": "polos_service.embedded",
    "PolosClient": "polos_client.calls.client",
    "PolosError": "polos_client.errors",
    "RequestIdReused": "polos_client.errors",
    "RunCancelled": "polos_client.errors",
    "RunError": "polos_client.errors",
    "RunExpired": "polos_client.errors",
    "RunFailed": "polos_client.errors",
    "RunNotFinished": "polos_client.errors",
    "RunNotFound": "polos_client.errors",
    "RunTimeout": "polos_client.errors",
    "Step": "polos_client.define.stop",
    "StopConditionContext": "polos_client.define.stop",
    "StoreUnavailable": "polos_client.errors",
    "TextChunk": "polos_client.calls.stream",
    "TooLarge": "polos_client.errors",
    "TooManyRuns": "polos_client.errors",
    "Tool": "polos_client.define.tool",
    "ToolResult": "polos_client.result",
    "Unauthenticated": "polos_client.errors",
    "Usage": "polos_client.result",
    "WorkflowContext": "polos_client.define.context",
    "executed_tool": "polos_client.define.stop",
    "has_text": "polos_client.define.stop",
    "max_steps": "polos_client.define.stop",
    "max_tokens": "polos_client.define.stop",
    "stop_condition": "polos_client.define.stop",
    "tool": "polos_client.define.tool",
    "workflow": "polos_client.define.workflow",
}
_MODULES = {
    "events": "polos_client.calls",
    "scripted": "polos_client.define",
}

__all__ = [
    "Agent",
    "AgentNotFound",
    "AgentResult",
    "AgentStream",
    "CallError",
    "ConnectionLost",
    "CursorAhead",
    "Deadlines",
    "DefinitionError",
    "Draining",
    "Event",
    "ExecutedToolConfig",
    "ExecutionHandle",
    "HasTextConfig",
    "InternalError",
    "InvalidRequest",
    "MaxStepsConfig",
    "MaxTokensConfig",
    "PermissionDenied",
    "Polos",
    "PolosClient",
    "PolosError",
    "RequestIdReused",
    "RunCancelled",
    "RunError",
    "RunExpired",
    "RunFailed",
    "RunNotFinished",
    "RunNotFound",
    "RunTimeout",
    "Step",
    "StopConditionContext",
    "StoreUnavailable",
    "TextChunk",
    "TooLarge",
    "TooManyRuns",
    "Tool",
    "ToolResult",
    "Unauthenticated",
    "Usage",
    "WorkflowContext",
    "events",
    "executed_tool",
    "has_text",
    "max_steps",
    "max_tokens",
    "scripted",
    "stop_condition",
    "tool",
    "workflow",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = import_module(f"{_MODULES[name]}.{name}")
    elif name in _HOMES:
        value = getattr(_load(name, _HOMES[name]), name)
    else:
        raise AttributeError(f"module 'polos' has no attribute {name!r}")
    globals()[name] = value
    return value


def _load(name: str, home: str) -> Any:
    try:
        return import_module(home)
    except ModuleNotFoundError as error:
        if not home.startswith("polos_service.") or str(error.name).startswith("polos"):
            raise
        raise ImportError(
            f"polos.{name} needs the service, and its package {error.name!r} is not installed: "
            "pip install 'polos-grpc[service]'"
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
