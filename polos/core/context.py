"""The context of a run, where the original SDK has it."""

from typing import TYPE_CHECKING

from polos_client.define.context import WorkflowContext
from polos_client.unbuilt import not_built_yet

__all__ = ["WorkflowContext"]

if not TYPE_CHECKING:  # checkers refuse what is not built
    __getattr__ = not_built_yet(__name__, ("AgentContext",))
