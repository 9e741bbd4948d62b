"""The one writer of a log: of the root run's events, and of its children's.

Emitting never waits for storage: events queue, encoded, and whatever queued while the
last append was under way travels in the next one. Under load frames grow; with one slow
stream every event is a frame of its own, at once.
"""

from __future__ import annotations

import asyncio
from collections import deque

from google.protobuf.message import Message

from polos.v1.error_pb2 import FailureReason
from polos.v1.run_pb2 import RunState
from polos_service.errors import Finished, StepError
from polos_service.limits import EVENT_LIMIT
from polos_service.runs.clock import Clock
from polos_service.runs.frame import Encoder
from polos_service.runs.lineage import Lineage
from polos_service.store import Claim, Frame, RunStore

FRAME_LIMIT = 256 * 1024
"""Bytes, private ones included, beyond which a frame takes no second event."""

BACKLOG_LIMIT = 1024 * 1024
"""Bytes not yet stored beyond which `room` waits."""


class Writer:
    """Numbers, encodes and appends the events of one claim.

    Attributes:
        latest: the sequence of the newest event that was emitted.

    """

    def __init__(self, store: RunStore, claim: Claim, clock: Clock) -> None:
        self._store = store
        self._claim = claim
        self._clock = clock
        self._root = Encoder(Lineage(claim.run_id, claim.workflow_id))
        self._pending: deque[tuple[bytes, bytes]] = deque()
        self._backlog = 0
        self.latest = claim.latest
        self._durable = claim.latest
        self._outcome: RunState.ValueType | None = None
        self._closed = False
        self._work = asyncio.Event()
        self._progress = asyncio.Event()

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
            StepError: the event is larger than every store takes.

        """
        if self._outcome is not None:
            raise Finished(f"Run {self._claim.run_id} has ended and takes no events.")
        self._check_open()
        data = (encoder or self._root).encode(
            payload,
            sequence=self.latest + 1,
            time=self._clock.now(),
            terminal=outcome is not None,
        )
        if len(data) > EVENT_LIMIT:
            raise StepError(
                FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE,
                f"An event of {len(data)} bytes exceeds the limit of {EVENT_LIMIT}.",
            )
        self._outcome = outcome
        self.latest += 1
        self._pending.append((data, private))
        self._backlog += len(data) + len(private)
        self._work.set()

    async def room(self) -> None:
        """Wait while more is queued than may be; raises Finished if the writer is closed."""
        while self._backlog > BACKLOG_LIMIT:
            self._check_open()
            await self._progress.wait()

    async def flush(self) -> None:
        """Wait until all that was emitted is durable; raises Finished if the writer is closed."""
        target = self.latest
        while self._durable < target:
            self._check_open()
            await self._progress.wait()

    def close(self) -> None:
        """Let whoever still emits or waits know that nothing is appended any more."""
        self._closed = True
        self._progress.set()

    def _check_open(self) -> None:
        if self._closed:
            raise Finished(f"This process has released run {self._claim.run_id}.")

    async def run(self) -> None:
        """Append what is emitted until the terminal event is durable.

        Raises:
            Fenced: the claim was lost.
            StoreUnavailable: the store refused to write.

        """
        while self._outcome is None or self._pending:
            await self._work.wait()
            self._work.clear()
            while self._pending:
                await self._append()

    async def _append(self) -> None:
        first = self._durable + 1
        data, private = self._take()
        last = first + len(data) - 1
        outcome = self._outcome if last == self.latest else None
        frame = Frame(first=first, last=last, data=b"".join(data), outcome=outcome)
        beside = b"".join(private)
        await self._store.append(self._claim, frame, beside)
        self._durable = last
        self._backlog -= len(frame.data) + len(beside)
        self._progress.set()
        self._progress = asyncio.Event()

    def _take(self) -> tuple[list[bytes], list[bytes]]:
        data: list[bytes] = []
        private: list[bytes] = []
        size = 0
        while self._pending:
            event, beside = self._pending[0]
            size += len(event) + len(beside)
            if data and size > FRAME_LIMIT:
                break
            self._pending.popleft()
            data.append(event)
            private.append(beside)
        return data, private
