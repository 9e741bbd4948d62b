"""What this process has defined and still uses: agents and workflows by id."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any
from weakref import WeakValueDictionary

DEFINED: MutableMapping[str, Any] = WeakValueDictionary()
"""The last Agent or Workflow of each id."""
