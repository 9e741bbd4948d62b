"""What this process has defined and still uses: agents and workflows by id."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from polos_client.define.agent import Agent
    from polos_client.define.workflow import Workflow

DEFINED: MutableMapping[str, Agent | Workflow] = WeakValueDictionary()
"""The last definition of each id."""
