"""What the original SDK defines beside its workflows, as far as it is built."""

from typing import TYPE_CHECKING

from polos_client.define.context import WorkflowContext
from polos_client.errors import StepExecutionError, WorkflowTimeoutError
from polos_client.unbuilt import not_built_yet

__all__ = ["StepExecutionError", "WorkflowContext", "WorkflowTimeoutError"]

if not TYPE_CHECKING:  # checkers refuse what is not built
    _UNBUILT = ("AgentContext", "Workflow", "get_all_workflows", "get_workflow", "workflow")
    __getattr__ = not_built_yet(__name__, _UNBUILT)
