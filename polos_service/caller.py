"""Who calls the service. Made once a call, in `api`, and passed on as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who makes a call, and what they may do.

    Attributes:
        project: whose runs they see; each run belongs to one project.
        principal: the user or program behind the call.
        scopes: what they may do, for example `runs:cancel`; `*` stands for everything.

    """

    project: str
    principal: str
    scopes: frozenset[str]
