"""The state of a workflow, where the original SDK has it."""

from polos_client.define.state import WorkflowState

__all__ = ["WorkflowState"]
