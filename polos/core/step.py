"""The errors of steps, where the original SDK has them. Nothing raises them yet."""

from polos_client.errors import ExecutionCancelledError, StepExecutionError

__all__ = ["ExecutionCancelledError", "StepExecutionError"]
