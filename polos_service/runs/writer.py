"""The one writer of a log: of the root run's events, and of its children's.

Emitting never waits for storage. Events queue, encoded; the events of one turn of the loop are
appended together, and those that are emitted during an append are the next one. Under load
frames grow; with one slow stream every event is a frame of its own, at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import copy_context

from google.protobuf.message import Message

from polos.v1.error_pb2 import FailureReason
from polos.v1.run_pb2 import RunState
from polos_client.errors import StoreUnavailable
from polos_service.cancelling import seen
from polos_service.errors import Finished, LogFull, StepError
from polos_service.limits import EVENT_LIMIT
from polos_service.quotas import SETTING
from polos_service.runs.clock import Clock
from polos_service.runs.frame import Encoder
from polos_service.runs.lineage import Lineage
from polos_service.store import Claim, Frame, Logs

FRAME_LIMIT = 256 * 1024
"""Bytes, private ones included, beyond which a frame takes no second event."""

BACKLOG_LIMIT = 1024 * 1024
"""Bytes not yet stored beyond which `room` waits."""

NO_LIMIT = 1 << 62
"""Bytes that no log reaches."""


class Writer:
    """Numbers, encodes and appends the events of one claim.

    It has no task: appends begin in the loop's next turn, or when the append before is durable.

    Attributes:
        latest: the sequence of the newest event that was emitted.
        latest_time: when that was, in nanoseconds since the epoch; 0 if none was.
        log_full: what `emit` has raised because the log has no room; the run ends by it, whatever
            its code makes of it. None if it has not.
        ended: resolved when the terminal event is durable. Raises Fenced if the claim was lost,
            StoreUnavailable if the store refused to write, or whatever else an append raised.

    """

    def __init__(
        self,
        store: Logs,
        claim: Claim,
        clock: Clock,
        *,
        log_limit: int | None = None,
        size: int = 0,
    ) -> None:
        """Write behind what the log holds.

        Args:
            store: where the log is.
            claim: the right to write it.
            clock: the time.
            log_limit: bytes that the log may have before its terminal event; None: any number.
            size: bytes that it has.

        """
        self._store = store
        self._claim = claim
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        # Not that of the code which emits: what it sees of tasks it may cancel.
        self._context = copy_context()
        self._root = Encoder(Lineage(claim.run_id, claim.workflow_id))
        self._pending: deque[tuple[bytes, bytes, frozenset[int]]] = deque()
        self._backlog = 0
        self._log_limit = log_limit
        self.log_full: LogFull | None = None
        self._room = NO_LIMIT if log_limit is None else log_limit - size
        """Bytes that the backlog may have, because the log takes no more."""
        self.latest = claim.latest
        self.latest_time = 0
        self._durable = claim.latest
        self._outcome: RunState.ValueType | None = None
        self._closed = False
        self._appending = False
        self._under_way = (0, 0)
        """Sequence of the last event of the append that is under way, and its bytes."""
        self._waiting: list[asyncio.Future[None]] = []
        """Those who wait for room."""
        self._flushing: deque[tuple[int, asyncio.Future[None]]] = deque()
        """Those who wait for a sequence to be durable, the smallest first."""
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.ended.add_done_callback(seen)  # whoever has closed the writer does not ask

    def emit(
        self,
        payload: Message,
        private: bytes = b"",
        outcome: RunState.ValueType | None = None,
        *,
        encoder: Encoder | None = None,
    ) -> None:
        """Queue an event of the root run, or of a child run.

        Args:
            payload: what happened.
            private: what is stored beside it and never served.
            outcome: the state that the event leaves the root run in, if it is the terminal one.
            encoder: that of a child run; None: the event is of the root run.

        Raises:
            Finished: the terminal event was emitted before, or the writer is closed.
            LogFull: the log has no room for it, and it is not the terminal event.
            StepError: the event is larger than every store takes.

        """
        if self._outcome is not None:
            raise Finished(f"Run {self._claim.run_id} has ended and takes no events.")
        self._check_open()
        now = self._clock.now()
        encoder = encoder or self._root
        data = encoder.encode(
            payload,
            sequence=self.latest + 1,
            time=now,
            terminal=outcome is not None,
        )
        backlog = self._backlog + len(data) + len(private)
        if len(data) > EVENT_LIMIT or backlog > self._room:
            self._check_size(len(data), terminal=outcome is not None)
        self._outcome = outcome
        self.latest += 1
        self.latest_time = now
        self._pending.append((data, private, encoder.branches))
        self._backlog = backlog
        if not self._appending:
            self._appending = True
            self._loop.call_soon(self._append, context=self._context)

    @property
    def closed(self) -> bool:
        """Whether it takes nothing any more, because this process lets go of the run."""
        return self._closed

    @property
    def durable(self) -> int:
        """The sequence of the newest event that is durable."""
        return self._durable

    @property
    def lineage(self) -> Lineage:
        """The root run."""
        return self._root.lineage

    @property
    def full(self) -> bool:
        """Whether more is queued than may be."""
        return self._backlog > BACKLOG_LIMIT

    async def room(self) -> None:
        """Wait while the writer is full; raises Finished if it is closed."""
        while self.full:
            self._check_open()
            progress = self._loop.create_future()
            self._waiting.append(progress)
            await progress

    async def flush(self) -> None:
        """Wait until all that was emitted is durable; raises Finished if the writer is closed."""
        target = self.latest
        while self._durable < target:
            self._check_open()
            durable = self._loop.create_future()
            self._flushing.append((target, durable))
            await durable

    def close(self) -> None:
        """Let whoever still emits or waits know that nothing is appended any more."""
        self._closed = True
        self._pending.clear()
        self._wake()

    def _check_size(self, size: int, *, terminal: bool) -> None:
        if size > EVENT_LIMIT:
            raise StepError(
                FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE,
                f"An event of {size} bytes exceeds the limit of {EVENT_LIMIT}.",
            )
        if self._log_limit is not None and not terminal:
            self.log_full = LogFull(self._log_limit, SETTING)
            raise self.log_full

    def _check_open(self) -> None:
        if self._closed:
            raise Finished(f"This process has released run {self._claim.run_id}.")

    def _wake(self) -> None:
        """Wake those whose time has come; all of them if the writer is closed."""
        waiting, self._waiting = self._waiting, []
        while self._flushing and (self._closed or self._flushing[0][0] <= self._durable):
            waiting.append(self._flushing.popleft()[1])
        for one in waiting:
            if not one.done():
                one.set_result(None)

    def _append(self) -> None:
        """Begin the next append, unless there is nothing to append."""
        try:
            if not self._pending:
                self._appending = False
                return
            frame, private = self._take()
            self._under_way = (frame.last, len(frame.data) + len(private))
            append = asyncio.ensure_future(self._store.append(self._claim, frame, private))
            append.add_done_callback(self._appended)
        except BaseException as error:  # noqa: BLE001 - raised from a callback, it hangs the run
            self._fail(error)

    def _appended(self, append: asyncio.Future[None]) -> None:
        try:
            append.result()
        except BaseException as error:  # noqa: BLE001 - as above
            self._fail(error)
            return
        self._durable, size = self._under_way
        self._backlog -= size
        self._room -= size
        self._wake()
        if self._outcome is not None and self._durable == self.latest and not self.ended.done():
            self.ended.set_result(None)
        self._append()

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            cut_off = StoreUnavailable(f"An append was cut off: {type(error).__name__}.")
            cut_off.__cause__ = error
            error = cut_off
        if not self.ended.done():
            self.ended.set_exception(error)

    def _take(self) -> tuple[Frame, bytes]:
        """Return the frame that is appended next, and what is stored beside it."""
        data: list[bytes] = []
        private: list[bytes] = []
        branches: set[int] = set()
        size = 0
        while self._pending:
            event, beside, numbers = self._pending[0]
            size += len(event) + len(beside)
            if data and size > FRAME_LIMIT:
                break
            self._pending.popleft()
            data.append(event)
            private.append(beside)
            branches |= numbers
        last = self._durable + len(data)
        frame = Frame(
            first=self._durable + 1,
            last=last,
            data=b"".join(data),
            outcome=self._outcome if last == self.latest else None,
            branches=frozenset(branches),
        )
        return frame, b"".join(private)
