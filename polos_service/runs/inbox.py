"""What the holder of a run's claim reads in the run's inbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from polos_service.logs import get_logger
from polos_service.runs.answers import CANCELLED, KINDS, Answer, slot
from polos_service.store import CANCEL, ENDED_RUN, SETTLED, Claim, Command, Inboxes, end_of

log = get_logger(__name__)


def cancels(claim: Claim, commands: Iterable[Command]) -> bool:
    """Return whether one of the commands cancels the claim's run, and not only a child of it."""
    return any(one.cancels(claim.run_id) for one in commands)


async def cancellation(store: Inboxes, claim: Claim) -> None:
    """Return when a command that cancels the run has come after the claim began.

    Raises:
        Fenced: the claim was lost, as far as the store can tell.

    """
    inbox = Inbox(store, claim)
    await inbox.cancelled()


class Inbox:
    """The inbox of a claimed run.

    Attributes:
        seen: commands that it has read.

    """

    def __init__(
        self, store: Inboxes, claim: Claim, came: Callable[[], None] = lambda: None
    ) -> None:
        """Read the inbox; `came` is called when a wait that is open gets its answer."""
        self._came = came
        self._store = store
        self._claim = claim
        self.seen = 0
        self._answers: dict[str, Answer] = {}
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._take(claim.commands)

    async def cancelled(self) -> None:
        """Read the inbox until the run is cancelled; waits are told of their answers meanwhile.

        Raises:
            Fenced: the claim was lost, as far as the store can tell.

        """
        while True:
            found = await self._store.commands(self._claim, self.seen)
            self._take(found)
            if cancels(self._claim, found):
                return

    async def answer(self, run_id: str, step_key: str) -> Answer:
        """Return how a wait of the run ends, once anybody has said it; without a key, a child."""
        place = slot(run_id, step_key)
        if place not in self._answers:
            future = asyncio.get_running_loop().create_future()
            self._waiting[place] = future
            try:
                found: Answer = await future
                return found
            finally:
                self._waiting.pop(place, None)
        return self._answers[place]

    async def told(self, run_id: str) -> None:
        """Return once the inbox has been told of the end of another run."""
        await self._end_told(end_of(run_id, "").id).wait()

    def _end_told(self, command_id: str) -> asyncio.Event:
        return self._ended.setdefault(command_id, asyncio.Event())

    def has_cancelled(self, run_id: str) -> bool:
        """Return whether somebody has cancelled this child."""
        return slot(run_id, "") in self._answers

    async def end(self, run_id: str, step_key: str, answer: Answer) -> Answer:
        """End a wait without an answer; return how it ends, which another may have said before.

        Raises:
            StoreUnavailable: the store did not take it.

        """
        command = answer.settled(run_id, step_key)
        stands = await self._store.command(self._claim.project, self._claim.run_id, command)
        return answer if stands is None else answer.said_by(stands)

    async def settle(self, run_id: str, step_key: str, answer: Answer) -> None:
        """Keep of an answer, which the log has, only what tells it from others.

        Raises:
            StoreUnavailable: the store did not take it.

        """
        command = answer.settled(run_id, step_key)
        await self._store.settle(self._claim.project, self._claim.run_id, command)
        self._answers.pop(command.id, None)

    def _take(self, commands: Iterable[Command]) -> None:
        for command in commands:
            self.seen += 1
            if command.id.startswith(ENDED_RUN):
                self._end_told(command.id).set()
                self._came()
                continue
            child = command.kind == CANCEL and not command.cancels(self._claim.run_id)
            if command.kind not in KINDS and not child:
                continue
            try:
                answer = CANCELLED if child else Answer.of(command)
            except (KeyError, TypeError, ValueError) as error:
                log.warning(
                    "answer_unreadable", run_id=command.run_id, key=command.step_key, why=str(error)
                )
                continue
            if command.kind == SETTLED and answer.ending == "answered":
                continue  # the log has it
            self._answers[command.id] = answer
            waiting = self._waiting.get(command.id)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)
                self._came()
