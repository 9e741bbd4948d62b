"""The tables of docs/security.md: what every method answers to every kind of credentials.

They are data here. `tests/rpc/test_access_table.py` calls every method with every kind of
credentials, and compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from polos_service.api.grpc.admin_service import AdminService
from polos_service.api.grpc.agent_service import AgentService
from polos_service.api.grpc.handlers import Needs
from polos_service.api.grpc.run_service import RunService
from scripts.docs_source import table

BEGIN = "<!-- Begin of the tables by scripts/docs.py. Do not edit; run `make docs`. -->"
"""The line before the tables in docs/security.md."""

END = "<!-- End of the tables. -->"
"""The line behind it."""

REFUSED: Mapping[str, str] = {
    "none": "missing",
    "malformed": "malformed",
    "unknown": "unknown",
    "expired": "expired",
    "revoked": "revoked",
    "JWT: expired": "expired",
    "JWT: other audience": "audience",
    "JWT: other issuer": "issuer",
    "JWT: other key": "unknown",
    "certificate: unknown": "unknown",
}
"""Kinds of credentials that are good for nothing, and the `cause` with which they are refused."""

UNCONNECTED = ("certificate: none", "certificate: expired", "certificate: other authority")
"""Kinds of certificates with which TLS refuses the connection."""

TOKENS = (
    *(kind for kind in REFUSED if not kind.startswith("certificate")),
    *("other scope", "other project", "run token", "right", "JWT: right"),
)
"""The kinds of credentials in `authorization`, in the order of the table. `other scope` is a key
with every scope but those that are needed, and `other project` one with every scope but `*`."""

CERTIFICATES = (
    *UNCONNECTED,
    "certificate: unknown",
    "certificate: other scope",
    "certificate: other project",
    "certificate: right",
)
"""The kinds of certificates of clients, in the order of the table."""

NOBODY = "UNAUTHENTICATED"
"""The status of a call whose credentials are good for nothing; the table leaves out the cause."""

DENIED = "PERMISSION_DENIED"
"""The status of a call that the credentials do not permit."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method.

    Attributes:
        needs: what it needs of its caller; None if it needs no credentials.
        other: what a caller of another project gets.
        right: what the right caller gets.

    """

    needs: Needs | None
    other: str = "OK"
    right: str = "OK"

    @property
    def scopes(self) -> str:
        """The scopes that it needs, to be read."""
        return "none" if self.needs is None else ", ".join(self.needs.scopes)

    def cell(self, column: str) -> str:
        """Return what the method answers to a kind of credentials."""
        if column in UNCONNECTED:
            return "no connection"
        if self.needs is None or column.endswith("right"):
            return self.right
        if column in REFUSED:
            return f"{NOBODY} {REFUSED[column]}"
        if column == "run token":
            return "OK" if self.needs.run_field else DENIED
        return DENIED if column.endswith("other scope") else self.other


def declared(servicer: type, **others: str) -> dict[str, Method]:
    """Return the methods of a servicer; `others` is what callers of another project get."""
    return {name: Method(getattr(servicer, name).needs, other) for name, other in others.items()}


SERVICES: Mapping[str, Mapping[str, Method]] = {
    "polos.v1.RunService": declared(
        RunService,
        StreamRun="NOT_FOUND",
        StreamWorkflow="NOT_FOUND",
        CreateRun="NOT_FOUND",
        GetRun="NOT_FOUND",
        ListRuns="OK, nothing",
        CancelRun="NOT_FOUND",
        DeleteRun="NOT_FOUND",
        CreateRunToken="NOT_FOUND",
        ResumeRun="NOT_FOUND",
        ListWaits="OK, nothing",
    ),
    "polos.v1.AgentService": declared(
        AgentService,
        GetAgent="NOT_FOUND",
        ListAgents="OK, nothing",
        ListWorkflows="OK, nothing",
    ),
    "polos.v1.AdminService": declared(
        AdminService,
        CreateKey=DENIED,
        ListKeys=DENIED,
        RevokeKey="NOT_FOUND",
        RevokeRunTokens=DENIED,
    ),
    "grpc.health.v1.Health": {
        "Check": Method(None),
        "List": Method(None, right="UNIMPLEMENTED"),
        "Watch": Method(None),
    },
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": Method(None)},
}
"""Every method of every service, by name."""


def access_tables() -> str:
    """Return the table of what travels in `authorization`, and the one of certificates."""
    return "\n\n".join(
        table(["method", "scopes", *columns], rows(columns)) for columns in (TOKENS, CERTIFICATES)
    )


def rows(columns: Sequence[str]) -> Iterator[list[str]]:
    """Yield the row of each method."""
    for service, methods in SERVICES.items():
        for name, method in methods.items():
            found = (method.cell(column) for column in columns)
            cells = (
                "UNAUTHENTICATED" if one.startswith("UNAUTHENTICATED") else one for one in found
            )
            yield [f"`{service.rpartition('.')[2]}.{name}`", method.scopes, *cells]


def with_access_tables(page: str) -> str:
    """Return docs/security.md with the tables of today."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{access_tables()}\n\n{END}{after}"
