"""The public names of Polos, each loaded when it is first used.

A public name stands three times below: for type checkers, for the interpreter and in `__all__`.
tests/contract/test_public.py holds them equal.
"""

from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

from polos_client.unbuilt import NAMES, not_built_yet

if TYPE_CHECKING:
    from polos.features import events
    from polos_client.budget import Budget
    from polos_client.calls.client import PolosClient
    from polos_client.calls.handle import ExecutionHandle
    from polos_client.calls.stream import AgentStream, TextChunk
    from polos_client.calls.waiting import Wait
    from polos_client.deadlines import Deadlines
    from polos_client.define import scripted
    from polos_client.define.agent import Agent
    from polos_client.define.ask import (
        AskUserField,
        AskUserFieldOption,
        AskUserInput,
        create_ask_user_tool,
    )
    from polos_client.define.batches import batch_agent_invoke, batch_invoke
    from polos_client.define.children import AgentRunConfig, BatchStepResult, BatchWorkflowInput
    from polos_client.define.context import WorkflowContext
    from polos_client.define.state import WorkflowState
    from polos_client.define.stop import (
        ExecutedToolConfig,
        HasTextConfig,
        MaxStepsConfig,
        MaxTokensConfig,
        Step,
        StopConditionContext,
        ToolCall,
        ToolCallFunction,
        executed_tool,
        has_text,
        max_steps,
        max_tokens,
        stop_condition,
    )
    from polos_client.define.tool import Tool, ToolApproval, tool
    from polos_client.define.workflow import (
        Workflow,
        get_all_workflows,
        get_workflow,
        workflow,
    )
    from polos_client.errors import (
        AgentNotFound,
        AlreadyAnswered,
        AmbiguousWait,
        CallError,
        ConnectionLost,
        CursorAhead,
        DefinitionError,
        Draining,
        ExecutionCancelledError,
        InternalError,
        InvalidRequest,
        KeyNotFound,
        PermissionDenied,
        PolosError,
        QuotaExceeded,
        RequestIdReused,
        ResultMismatch,
        RunCancelled,
        RunError,
        RunExpired,
        RunFailed,
        RunNotFinished,
        RunNotFound,
        RunTimeout,
        StepExecutionError,
        StoreUnavailable,
        TooLarge,
        TooManyCalls,
        TooManyCommands,
        TooManyKeys,
        TooManyRuns,
        Unauthenticated,
        WaitExpired,
        WaitNotOpen,
        WorkflowTimeoutError,
    )
    from polos_client.event import Event
    from polos_client.result import AgentResult, ToolResult, Usage
    from polos_service.embedded import Polos

__version__: str
"""The version of the distribution `polos-grpc`; read from its metadata when it is first used."""

__all__ = [
    "Agent",
    "AgentNotFound",
    "AgentResult",
    "AgentRunConfig",
    "AgentStream",
    "AlreadyAnswered",
    "AmbiguousWait",
    "AskUserField",
    "AskUserFieldOption",
    "AskUserInput",
    "BatchStepResult",
    "BatchWorkflowInput",
    "Budget",
    "CallError",
    "ConnectionLost",
    "CursorAhead",
    "Deadlines",
    "DefinitionError",
    "Draining",
    "Event",
    "ExecutedToolConfig",
    "ExecutionCancelledError",
    "ExecutionHandle",
    "HasTextConfig",
    "InternalError",
    "InvalidRequest",
    "KeyNotFound",
    "MaxStepsConfig",
    "MaxTokensConfig",
    "PermissionDenied",
    "Polos",
    "PolosClient",
    "PolosError",
    "QuotaExceeded",
    "RequestIdReused",
    "ResultMismatch",
    "RunCancelled",
    "RunError",
    "RunExpired",
    "RunFailed",
    "RunNotFinished",
    "RunNotFound",
    "RunTimeout",
    "Step",
    "StepExecutionError",
    "StopConditionContext",
    "StoreUnavailable",
    "TextChunk",
    "TooLarge",
    "TooManyCalls",
    "TooManyCommands",
    "TooManyKeys",
    "TooManyRuns",
    "Tool",
    "ToolApproval",
    "ToolCall",
    "ToolCallFunction",
    "ToolResult",
    "Unauthenticated",
    "Usage",
    "Wait",
    "WaitExpired",
    "WaitNotOpen",
    "Workflow",
    "WorkflowContext",
    "WorkflowState",
    "WorkflowTimeoutError",
    "batch_agent_invoke",
    "batch_invoke",
    "create_ask_user_tool",
    "events",
    "executed_tool",
    "get_all_workflows",
    "get_workflow",
    "has_text",
    "max_steps",
    "max_tokens",
    "scripted",
    "stop_condition",
    "tool",
    "workflow",
]

_HOMES = {
    "Agent": "polos_client.define.agent",
    "AgentNotFound": "polos_client.errors",
    "AgentResult": "polos_client.result",
    "AgentRunConfig": "polos_client.define.children",
    "AgentStream": "polos_client.calls.stream",
    "AlreadyAnswered": "polos_client.errors",
    "AmbiguousWait": "polos_client.errors",
    "AskUserField": "polos_client.define.ask",
    "AskUserFieldOption": "polos_client.define.ask",
    "AskUserInput": "polos_client.define.ask",
    "BatchStepResult": "polos_client.define.children",
    "BatchWorkflowInput": "polos_client.define.children",
    "Budget": "polos_client.budget",
    "CallError": "polos_client.errors",
    "ConnectionLost": "polos_client.errors",
    "CursorAhead": "polos_client.errors",
    "Deadlines": "polos_client.deadlines",
    "DefinitionError": "polos_client.errors",
    "Draining": "polos_client.errors",
    "Event": "polos_client.event",
    "ExecutedToolConfig": "polos_client.define.stop",
    "ExecutionCancelledError": "polos_client.errors",
    "ExecutionHandle": "polos_client.calls.handle",
    "HasTextConfig": "polos_client.define.stop",
    "InternalError": "polos_client.errors",
    "InvalidRequest": "polos_client.errors",
    "KeyNotFound": "polos_client.errors",
    "MaxStepsConfig": "polos_client.define.stop",
    "MaxTokensConfig": "polos_client.define.stop",
    "PermissionDenied": "polos_client.errors",
    "Polos": "polos_service.embedded",
    "PolosClient": "polos_client.calls.client",
    "PolosError": "polos_client.errors",
    "QuotaExceeded": "polos_client.errors",
    "RequestIdReused": "polos_client.errors",
    "ResultMismatch": "polos_client.errors",
    "RunCancelled": "polos_client.errors",
    "RunError": "polos_client.errors",
    "RunExpired": "polos_client.errors",
    "RunFailed": "polos_client.errors",
    "RunNotFinished": "polos_client.errors",
    "RunNotFound": "polos_client.errors",
    "RunTimeout": "polos_client.errors",
    "Step": "polos_client.define.stop",
    "StepExecutionError": "polos_client.errors",
    "StopConditionContext": "polos_client.define.stop",
    "StoreUnavailable": "polos_client.errors",
    "TextChunk": "polos_client.calls.stream",
    "TooLarge": "polos_client.errors",
    "TooManyCalls": "polos_client.errors",
    "TooManyCommands": "polos_client.errors",
    "TooManyKeys": "polos_client.errors",
    "TooManyRuns": "polos_client.errors",
    "Tool": "polos_client.define.tool",
    "ToolApproval": "polos_client.define.tool",
    "ToolCall": "polos_client.define.stop",
    "ToolCallFunction": "polos_client.define.stop",
    "ToolResult": "polos_client.result",
    "Unauthenticated": "polos_client.errors",
    "Usage": "polos_client.result",
    "Wait": "polos_client.calls.waiting",
    "WaitExpired": "polos_client.errors",
    "WaitNotOpen": "polos_client.errors",
    "Workflow": "polos_client.define.workflow",
    "WorkflowContext": "polos_client.define.context",
    "WorkflowState": "polos_client.define.state",
    "WorkflowTimeoutError": "polos_client.errors",
    "batch_agent_invoke": "polos_client.define.batches",
    "batch_invoke": "polos_client.define.batches",
    "create_ask_user_tool": "polos_client.define.ask",
    "executed_tool": "polos_client.define.stop",
    "get_all_workflows": "polos_client.define.workflow",
    "get_workflow": "polos_client.define.workflow",
    "has_text": "polos_client.define.stop",
    "max_steps": "polos_client.define.stop",
    "max_tokens": "polos_client.define.stop",
    "stop_condition": "polos_client.define.stop",
    "tool": "polos_client.define.tool",
    "workflow": "polos_client.define.workflow",
}
"""The module that defines each name."""

_MODULES = {
    "events": "polos.features.events",
    "scripted": "polos_client.define.scripted",
}
"""The modules that are public as they are."""

__path__ = extend_path(__path__, __name__)  # `polos.v1` is generated, into a folder of its own

if not TYPE_CHECKING:  # checkers read the imports above, and refuse any other name

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            value = import_module(_MODULES[name])
        elif name in _HOMES:
            value = getattr(_load(name), name)
        elif name == "__version__":
            value = import_module("importlib.metadata").version("polos-grpc")
        else:
            value = not_built_yet(__name__, NAMES)(name)
        globals()[name] = value
        return value


def _load(name: str) -> Any:
    home = _HOMES[name]
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
