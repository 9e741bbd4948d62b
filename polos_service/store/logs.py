"""The port to logs: frames of events, and how they are appended, read and followed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from polos.v1.run_pb2 import RunState
from polos_service.store.claims import Claim


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Events `first` to `last`, encoded.

    Attributes:
        outcome: the state that a terminal frame leads to.
        branches: the numbers under which the frame is found by `read`: of the children that its
            events belong to, and of the children above these. None: not known.

    """

    first: int
    last: int
    data: bytes
    outcome: RunState.ValueType | None = None
    branches: frozenset[int] | None = field(default=None, compare=False)

    def may_hold(self, branch: int) -> bool:
        """Return whether it may hold events of a branch."""
        return self.branches is None or branch in self.branches


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """A piece of a log. If `ended`, no event after `latest` will ever come.

    Attributes:
        covered: the last sequence of the piece, the frames that were left out included.

    """

    frames: Sequence[Frame]
    latest: int
    ended: bool
    covered: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A frame of the log with its private part. A claim frame has no data."""

    data: bytes
    private: bytes


class Logs(Protocol):
    """The log of each root run. Every method may raise StoreUnavailable."""

    def append(self, claim: Claim, frame: Frame, private: bytes = b"") -> Awaitable[None]:
        """Append a frame. It is durable when this is done, and readers are woken.

        The frame is stored even if whoever awaits this is cancelled.

        Raises:
            Fenced: the claim was lost, or the run has ended.
            ValueError: the frame does not begin at the newest sequence plus 1.

        """
        ...

    async def read(
        self, project: str, run_id: str, after: int, limit: int, branch: int | None = None
    ) -> Slice:
        """Return the frames that hold events after `after`, whole, in order.

        Stops at the frame that reaches `limit` bytes, or earlier: only a Slice that covers nothing
        after `after` says that there are no more. The first frame may begin at or before `after`.

        Args:
            project: the run's project.
            run_id: the root run.
            after: the cursor.
            limit: bytes.
            branch: the number of a child. Frames that hold no event of it, nor of the runs below
                it, may be left out; the last one of a run that has ended never is. A store leaves
                out what it can without reading it.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.

        """
        ...

    async def wait(self, project: str, run_id: str, after: int) -> None:
        """Return when the log holds an event after `after`, or the run has ended.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.

        """
        ...

    def follow(self, project: str, run_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called whenever the log has grown, or the run has ended or was removed.

        It is called in the loop, must not raise, and may be called without a reason. Follow
        first, then read: only a run that was read is followed for certain.

        Returns:
            What ends it; to be called once.

        """
        ...

    def history(self, claim: Claim) -> AsyncIterator[Entry]:
        """Yield the whole log with its private parts, for the holder to fold."""
        ...

    async def private(self, project: str, run_id: str, sequence: int) -> bytes:
        """Return what is stored beside the event of a root run's log, and beside those around it.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.

        """
        ...
