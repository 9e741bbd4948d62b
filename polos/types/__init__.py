"""What runs give back and stop conditions see, where the original SDK has it."""

from typing import TYPE_CHECKING

from polos.types.types import (
    AgentResult,
    BatchStepResult,
    BatchWorkflowInput,
    Step,
    ToolCall,
    ToolCallFunction,
    ToolResult,
    Usage,
)
from polos_client.unbuilt import not_built_yet

__all__ = [
    "AgentResult",
    "BatchStepResult",
    "BatchWorkflowInput",
    "Step",
    "ToolCall",
    "ToolCallFunction",
    "ToolResult",
    "Usage",
]

if not TYPE_CHECKING:  # checkers refuse what is not built
    _UNBUILT = ("AgentConfig",)
    __getattr__ = not_built_yet(__name__, _UNBUILT)
