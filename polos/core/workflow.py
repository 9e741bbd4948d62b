"""Workflows, where the original SDK has them."""

from typing import TYPE_CHECKING

from polos_client.define.context import WorkflowContext
from polos_client.define.state import WorkflowState
from polos_client.define.workflow import Workflow, get_all_workflows, get_workflow, workflow
from polos_client.errors import StepExecutionError, WorkflowTimeoutError
from polos_client.unbuilt import not_built_yet

__all__ = [
    "StepExecutionError",
    "Workflow",
    "WorkflowContext",
    "WorkflowState",
    "WorkflowTimeoutError",
    "get_all_workflows",
    "get_workflow",
    "workflow",
]

if not TYPE_CHECKING:  # checkers refuse what is not built
    __getattr__ = not_built_yet(__name__, ("AgentContext",))
