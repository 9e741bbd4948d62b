"""Commands: the messages to runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

CANCEL = "cancel"
"""The kind of a command that cancels, and the id of the one that cancels a root run. No other
command has that id. An inbox takes that one even when it is full."""

EARLY = "early"
"""The kind of a command that the run has not come to yet. These have room of their own in an
inbox, so that they never take that of the others."""

SETTLED = "settled"
"""The kind of a command that the run has done with, or that asks for nothing. It keeps its id, and
takes no room."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A message to a run, for the holder of its claim.

    Attributes:
        id: unique in the inbox of a root run, at most 128 characters. A command with the id of
            an earlier one is ignored. CANCEL is the id of the command that cancels the root run.
        kind: what is asked for, for example CANCEL. A holder ignores kinds that it does not know.
        run_id: the run that the command is for: the root, or one of its children.
        step_key: the step that the command is for; empty if it is for the whole run.
        payload: JSON text of at most 480 KiB; empty if there is none.

    """

    id: str
    kind: str
    run_id: str
    step_key: str = ""
    payload: bytes = b""

    def cancels(self, run_id: str) -> bool:
        """Return whether it cancels this run, and not only a child of it."""
        return self.kind == CANCEL and self.run_id == run_id


ENDED_RUN = "ended-"
"""What the ids of the commands begin with that tell the ends of other runs."""

SAYS_NOTHING = b'{"ending":"answered","digest":""}'
"""The payload of that command: versions that do not know it pass over it."""


def end_of(run_id: str, root: str) -> Command:
    """Return the command that tells a root run of the end of another run.

    It is of the kind SETTLED: there is always room for it.
    """
    digest = hashlib.sha256(run_id.encode(errors="surrogatepass")).hexdigest()[:40]
    return Command(id=ENDED_RUN + digest, kind=SETTLED, run_id=root, payload=SAYS_NOTHING)
