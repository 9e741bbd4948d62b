"""Finds misspelt settings among the variables of the environment."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from polos_service.config import Settings, variable
from polos_service.logs import get_logger

PREFIX = "POLOS_"
"""What the names of all variables of Polos begin with."""

OTHERS = frozenset(
    {
        *("POLOS_ADDRESS", "POLOS_API_KEY", "POLOS_API_KEY_FILE", "POLOS_API_URL", "POLOS_TLS"),
        *("POLOS_CLIENT_CERT", "POLOS_CLIENT_KEY", "POLOS_DEPLOYMENT_ID", "POLOS_PROJECT_ID"),
        *("POLOS_AGENT_MAX_STEPS", "POLOS_PORT"),
    }
)
"""The variables of clients, agents, `Polos` and the original SDK, which a service passes over."""

LIKENESS = 0.75
"""How like a known variable one must be to be taken for it, from 0 to 1, as difflib measures it."""

log = get_logger(__name__)


def warn_of_misspelt(environment: Iterable[str]) -> None:
    """Log each variable that is not known, with the known one that is most like it."""
    for name, meant in misspelt(environment):
        advice = f"did you mean {meant}?" if meant else "docs/reference/configuration.md lists them"
        log.warning("variable_is_not_known", variable=name, advice=advice)


def misspelt(environment: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the variables that are not known, each with the one that may be meant, or nothing."""
    known = {variable(field) for field in Settings.model_fields if not field.isupper()} | OTHERS
    for name in sorted(environment):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=LIKENESS)
            yield name, near[0] if near else ""
