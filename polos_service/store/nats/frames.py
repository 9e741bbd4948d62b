"""A frame as a message of its log: its head tells all of it but the bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self, cast
from urllib.parse import quote, unquote

from polos.v1.run_pb2 import RunState
from polos_client.errors import StoreUnavailable
from polos_service.store import ENDED, Entry, Frame
from polos_service.store.nats.jetstream import EXPECTED_LAST
from polos_service.store.nats.messages import NUMBER, NotOurs, StoredMessage

HEADER = "Polos-Frame"
"""The header that makes a message one of ours."""

BEHIND = "Polos-Behind"
"""The header with the sequence of our message before this one, where foreign ones stand between."""

FORM = re.compile(
    r"([0-9]{1,19}) " * 5 + r"([!-~]{1,64}) (events|claimed|released) ([0-9]{1,19}) ([0-9]{1,9})"
)
"""The value of the header."""

PARKED = "Polos-Parked"
"""The further header of a mark with which a run was suspended. Versions that do not know it take
the mark for one of a run that was released."""

PARKED_FORM = re.compile(r"([0-9]{1,19}) ([0-9]{1,9}) ([0-9]{1,19})")
"""The value of that header."""

LEFT = "Polos-Left"
"""The further header of a mark that says why a run was left, percent-encoded. A claim hands it on,
so that it stands at the end of the log until an event follows."""

LIMIT = 1 << 63
"""All numbers are below it."""


class Mark(StrEnum):
    """What a message of a log is."""

    EVENTS = "events"
    CLAIMED = "claimed"
    RELEASED = "released"


class Parked(NamedTuple):
    """How a run was suspended.

    Attributes:
        item: the queue's sequence of its work item, which is removed; 0 if there was none.
        seen: commands in its inbox that its holder has seen.
        wake_at: when it is queued again, in nanoseconds since the epoch; 0: only by a command.

    """

    item: int
    seen: int
    wake_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """A message's head.

    Attributes:
        first: sequence of the frame's first event; of a mark, that of the event to come.
        last: sequence of the newest event.
        epoch: that of the claim that wrote it.
        size: bytes of the frame's data; private bytes follow it.
        start: when the run's first claim began, in nanoseconds since the epoch.
        claim: names the claim; of two with the same epoch, only one is in the log.
        mark: what the message is.
        delivery: how often the run's work item had been delivered when its holder got it; 0
            if the claim was taken without it.
        outcome: what state the run ended in with this message; 0 if it goes on.
        parked: how the run was suspended with this message, if it was.
        left: why the run was left to others, if it was, and nothing has happened since.

    """

    first: int
    last: int
    epoch: int
    size: int
    start: int
    claim: str
    mark: Mark
    delivery: int
    outcome: int
    parked: Parked | None = None
    left: str = ""

    def headers(self) -> dict[str, str]:
        """Return the head as a message's headers."""
        found = {
            HEADER: f"{self.first} {self.last} {self.epoch} {self.size} {self.start} {self.claim} "
            f"{self.mark} {self.delivery} {self.outcome}"
        }
        if self.parked is not None:
            found[PARKED] = " ".join(map(str, self.parked))
        if self.left:
            found[LEFT] = quote(self.left, safe=" ")
        return found

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Return the head that a message's headers hold.

        Raises:
            NotOurs: they hold none.

        """
        found = FORM.fullmatch(headers.get(HEADER, ""))
        if found is None:
            raise NotOurs(f"it has no {HEADER} header, or not the form of one")
        first, last, epoch, size, start, claim, mark, delivery, outcome = found.groups()
        head = cls(
            first=int(first),
            last=int(last),
            epoch=int(epoch),
            size=int(size),
            start=int(start),
            claim=claim,
            mark=Mark(mark),
            delivery=int(delivery),
            outcome=int(outcome),
            parked=parked_in(headers),
            left=unquote(headers.get(LEFT, "")),
        )
        if not head.sound:
            raise NotOurs(f"its {HEADER} header has impossible numbers")
        return head

    @property
    def sound(self) -> bool:
        """Whether the numbers can be those of a frame, or of a mark."""
        events = self.mark is Mark.EVENTS
        return (
            max(self.last, self.epoch, self.start, self.delivery, *(self.parked or ())) < LIMIT
            and (self.parked is None or self.mark is Mark.RELEASED)
            and (0 < self.first <= self.last if events else self.first == self.last + 1)
            and (not self.outcome or (events and self.outcome in ENDED))
        )

    @property
    def held(self) -> bool:
        """Whether, after this message, a claim holds the run."""
        return self.mark is not Mark.RELEASED and not self.outcome

    @property
    def parked_item(self) -> int:
        """The sequence of the work item that is removed with this mark of a park; 0 if none is."""
        return 0 if self.parked is None else self.parked.item

    @property
    def state(self) -> RunState.ValueType:
        """The state that the run is in after this message; a parked one if it has a work item."""
        if self.outcome:
            return cast("RunState.ValueType", self.outcome)
        return RunState.RUN_STATE_RUNNING if self.held else RunState.RUN_STATE_QUEUED

    def frame(self, payload: bytes) -> Frame:
        """Return the frame that a message with this head holds.

        Raises:
            StoreUnavailable: the message is shorter than its head says.

        """
        return Frame(
            first=self.first,
            last=self.last,
            data=self.entry(payload).data,
            outcome=self.state if self.outcome else None,
        )

    def entry(self, payload: bytes) -> Entry:
        """Return the message's frame with its private part.

        Raises:
            StoreUnavailable: the message is shorter than its head says.

        """
        if len(payload) < self.size:
            raise StoreUnavailable(
                f"NATS has {len(payload)} of {self.size} bytes of events {self.first} to "
                f"{self.last} of a run. Restore the stream, or cancel and delete the run."
            )
        return Entry(data=payload[: self.size], private=payload[self.size :])


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The last message of ours in a log. `time` is the server's, as it wrote it."""

    sequence: int
    head: Head
    time: str

    @classmethod
    def of(cls, message: StoredMessage) -> Self:
        """Return a message as the last one of its log.

        Raises:
            NotOurs: it is not one of ours.

        """
        before(message.headers)
        return cls(message.sequence, Head.of(message.headers), message.time)


def parked_in(headers: Mapping[str, str]) -> Parked | None:
    """Return how a run was suspended with a message that has these headers, if it was.

    Raises:
        NotOurs: they do not have the form for it.

    """
    told = headers.get(PARKED)
    if told is None:
        return None
    found = PARKED_FORM.fullmatch(told)
    if found is None:
        raise NotOurs(f"its {PARKED} header does not have the form of one")
    return Parked(*map(int, found.groups()))


def before(headers: Mapping[str, str]) -> int:
    """Return the sequence of our message before one of ours; 0 for the first.

    Raises:
        NotOurs: the headers do not tell.

    """
    told = headers.get(BEHIND) or headers.get(EXPECTED_LAST, "")
    if not NUMBER.fullmatch(told):
        raise NotOurs(f"it has no {EXPECTED_LAST} header")
    return int(told)
