"""`@workflow`: code of one's own that runs as durably as an agent does."""

from __future__ import annotations

from typing import Any, NoReturn

from polos_client.errors import DefinitionError


def workflow(*args: Any, **options: Any) -> NoReturn:  # noqa: ARG001
    """Refuse: workflows are not built yet in this version.

    Raises:
        DefinitionError: always.

    """
    raise DefinitionError(
        "@workflow is not built yet in this version; run an Agent, and put what it needs into "
        "its tools"
    )
