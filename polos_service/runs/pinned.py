"""Pinned definitions: what a run was started with, stored beside its log.

Only the input is ever served.

A pinned definition is a JSON object. Its members `kind` and `v` say what kind of runnable it
is of, and which version of that kind's format it has; the rest is the kind's own.
"""

from __future__ import annotations

import json
from typing import Any

from polos_service.errors import Unable

FIRST_KIND = "agent"
"""The kind of a definition that names none: version 0.1.0 ran agents only."""

FIRST_VERSION = 1
"""The version of a definition that names none."""

SHOWN = 80
"""Characters of an unknown kind or version that a message shows at most."""


def unpinned(pinned: bytes, kind: str, version: int) -> dict[str, Any]:
    """Return a pinned definition as it was written, if it is one that the caller reads.

    Args:
        pinned: the definition, as stored.
        kind: the kind that the caller reads.
        version: the newest version of its format that the caller reads; it reads the earlier
            ones, too.

    Raises:
        Unable: it is of another kind or a newer version; another process may read it.
        TypeError: it is JSON, but not an object.
        ValueError: it is not JSON.

    """
    # A function of Python for each object: between two of them another thread gets its turn.
    definition = json.loads(pinned, object_hook=lambda one: one)
    if not isinstance(definition, dict):
        raise TypeError("The pinned definition is not a JSON object.")
    found = definition.get("kind", FIRST_KIND), definition.get("v", FIRST_VERSION)
    if found not in [(kind, readable) for readable in range(FIRST_VERSION, version + 1)]:
        found_kind, found_version = (f"{one!s:.{SHOWN}}" for one in found)
        raise Unable(
            f"Its definition has the kind {found_kind!r} in version {found_version!r}. This "
            f"process reads {kind!r} up to version {version}: serve the run with the version of "
            "polos-grpc and the code that it was started with, or cancel it.",
            kind=found_kind,
            version=found_version,
            reads=f"{kind} {version}",
        )
    return definition
