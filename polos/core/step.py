"""The errors of steps, where the original SDK has them."""

from polos_client.errors import ExecutionCancelledError, StepExecutionError

__all__ = ["ExecutionCancelledError", "StepExecutionError"]
