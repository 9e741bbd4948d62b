"""Who calls the service. Determined once a call, in `access`, and passed on as a value."""

from __future__ import annotations

from dataclasses import dataclass

AGENTS_READ = "agents:read"
"""The scope for listing agents and reading their descriptions."""

RUNS_READ = "runs:read"
"""The scope for reading runs: records, logs and results."""

RUNS_WRITE = "runs:write"
"""The scope for starting, cancelling and deleting runs."""

RUNS_RESUME = "runs:resume"
"""The scope for answering runs that wait for somebody."""

ADMIN = "admin"
"""The scope for managing the API keys of the caller's own project."""

EVERYTHING = "*"
"""The scope that stands for all others, and for the API keys of every project."""

SCOPES = (AGENTS_READ, RUNS_READ, RUNS_WRITE, RUNS_RESUME, ADMIN, EVERYTHING)
"""Every scope that a credential may have."""

DEFAULT_PROJECT = "default"
"""The project of callers whose credentials name none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who makes a call, and what they may do.

    Attributes:
        project: whose runs they see; each run belongs to one project.
        principal: the user or program behind the call.
        scopes: what they may do, out of SCOPES.
        credential: identifies the credential, as in `key:ID`, for revocation and logs; it contains
            no secret. Empty if the caller has none.
        expires: when the credential ends, in seconds since the epoch; None if it does not.
        run_id: the only run that the caller may read; empty if they may read every run of the
            project.

    """

    project: str
    principal: str
    scopes: frozenset[str]
    credential: str = ""
    expires: float | None = None
    run_id: str = ""

    def may(self, scope: str) -> bool:
        """Return whether the caller has the scope."""
        return scope in self.scopes or EVERYTHING in self.scopes


OPERATOR = Caller(
    project=DEFAULT_PROJECT,
    principal="operator",
    scopes=frozenset({EVERYTHING}),
    credential="operator",
)
"""Whoever has the store itself, and so may do everything."""

ANONYMOUS = Caller(project=DEFAULT_PROJECT, principal="anonymous", scopes=frozenset({EVERYTHING}))
"""The caller of every call while access is off."""
