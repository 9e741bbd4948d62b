"""Refusing what is not built yet: an option is never ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polos_client.errors import DefinitionError


def refuse(what: str, options: Mapping[str, Any]) -> None:
    """Refuse every option that has a value.

    Args:
        what: what takes the options, as it is written: "Agent" or "@tool".
        options: the options by name; None where none was given.

    Raises:
        DefinitionError: one was given.

    """
    for name, value in options.items():
        if value is not None:
            raise DefinitionError(
                f"{what}({name}={value!r}) is not built yet in this version; leave {name} out"
            )
