"""What callers can do with waits: answer them, and list the open ones."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from polos.v1.event_pb2 import WaitKind
from polos.v1.run_pb2 import Wait
from polos_client.errors import (
    InvalidRequest,
    StoreUnavailable,
)
from polos_service.caller import RUNS_RESUME, Caller
from polos_service.logs import get_logger
from polos_service.reading.details import Details
from polos_service.reply import (
    HAS_ENDED,
    Reply,
    ambiguous,
    answer_of,
    not_open,
    opened,
    require_executed,
    require_own,
    wait_of,
    wrong_approval,
)
from polos_service.runs.answers import APPROVE, ASK, EXPIRED, UNSETTLED, Answer, slot
from polos_service.runs.clock import Clock
from polos_service.runs.journal import UNANSWERED
from polos_service.store import ENDED, RunStore, WaitRecord

TIMER, APPROVAL = WaitKind.WAIT_KIND_TIMER, WaitKind.WAIT_KIND_APPROVAL

AT_FIRST, GROWTH, AT_ONCE = 32, 4, 256
"""Waits that are read from the index at first, the factor by which that grows while they are
small, and the most before the event loop gets a turn: a wait may have 256 KiB."""

BATCH_BYTES = 128 * 1024
"""Bytes of waits read at once beyond which the next batch is a small one again."""

LOOKED_AT = 10_000
"""Waits that a page looks at, at most, for those that it is asked for."""

CheckEdit = Callable[[str, Wait, Any], Awaitable[str]]
"""Given a project, an approval and changed arguments, returns what is wrong, or nothing."""

Place = tuple[int, str, int]
"""Where a wait stands in the list of its project: see `WaitRecord.place`."""

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A page of open waits that is asked for.

    Attributes:
        limit: waits at most.
        size: bytes of waits at most, unless the first alone is larger.
        after: the place of the last wait of the page before; None: from the first.
        workflow_id: only waits of runs of this agent or workflow; empty for all.

    """

    limit: int
    size: int
    after: Place | None = None
    workflow_id: str = ""


class Waits:
    """The use cases. A caller sees the waits of their own project only.

    Every one of them may raise StoreUnavailable.
    """

    def __init__(
        self, store: RunStore, details: Details, clock: Clock, check_edit: CheckEdit
    ) -> None:
        self._store = store
        self._details = details
        self._clock = clock
        self._check_edit = check_edit

    async def resume(self, caller: Caller, reply: Reply) -> Wait | None:
        """Answer a wait, and return it; None if the reply names it by its key and it is not open.

        It is not open before the run has come to it: the answer is kept, as one of EARLY_LIMIT.
        A repeated answer may find its wait over.

        Raises:
            AlreadyAnswered: another answer was accepted before.
            AmbiguousWait: several open waits have this key.
            InvalidRequest: the wait cannot be answered with it.
            RunNotFound: there is no such run, or child of a run.
            TooManyCommands: the run's inbox is full.
            WaitExpired: the wait expired before.
            WaitNotOpen: there is no such wait, the key is that of a step, the run no longer waits
                for it, or the run has ended.

        """
        record = await self._store.get(caller.project, reply.root)
        ended = record.state in ENDED
        wait, over = await self._find(caller, reply, ended=ended)
        executed = wait.workflow_id if wait else await self._executed(caller, reply)
        require_executed(reply, record.workflow_id, executed)
        await self._check(caller, reply, wait)
        run_id, key = (wait.run_id, wait.step_key) if wait else (reply.run_id, reply.step_key)
        answer = Answer(
            data_json=reply.data_json,
            request_id=reply.request_id or str(uuid.uuid4()),
            principal=caller.principal,
        )
        stands = None
        late = wait is not None and self._over(wait)
        if not ended and not over:
            # Who comes too late ends the wait, so that no answer is accepted after this refusal.
            expiry = EXPIRED.settled(run_id, key)
            command = expiry if late else answer.to(run_id, key, early=wait is None)
            stands = await self._store.command(caller.project, reply.root, command)
        said = answer.said_by(stands) if stands else await self._said(caller, reply, wait, answer)
        if said is None:
            raise not_open(reply, HAS_ENDED)
        if wait is not None:
            await self._close(caller, reply, wait)
        require_own(reply, answer, said, wait)
        return wait

    async def answer(  # noqa: PLR0917 - a port of workflows
        self,
        project: str,
        principal: str,
        run_id: str,
        step_key: str,
        data_json: str,
        request_id: str,
        workflow_id: str = "",
    ) -> Wait | None:
        """Answer a wait of a run as the code of another one, which cannot answer an approval.

        Raises:
            As `resume`.

        """
        caller = Caller(project=project, principal=principal, scopes=frozenset({RUNS_RESUME}))
        reply = Reply(
            run_id=run_id,
            step_key=step_key,
            wait_id=0,  # which an approval needs
            data_json=data_json,
            data=None,
            request_id=request_id,
            workflow_id=workflow_id,
        )
        return await self.resume(caller, reply)

    async def open(self, caller: Caller, run_id: str) -> Sequence[Wait]:
        """Return the open waits of a root run that can be answered, oldest first."""
        records = await self._store.open_waits(caller.project, run_id)
        return [wait for one in records if not self._over(wait := waiting(one))]

    async def early(self, caller: Caller, run_id: str) -> Sequence[tuple[str, str]]:
        """Return the waits of a root run that were answered before they began: run and key."""
        inbox = await self._store.inbox(caller.project, run_id)
        found = {(one.run_id, one.step_key): None for one in inbox if one.kind in UNSETTLED}
        if found:
            async for event in self._details.waits(caller.project, run_id):
                found.pop((event.run_id, event.suspended.step_key), None)
        return list(found)

    async def page(self, caller: Caller, asked: Asked) -> tuple[Sequence[Wait], Place | None]:
        """Return open waits of the project, oldest first, and the place behind which more stand.

        There may be fewer than asked for, or none, while there are more: it looks at LOOKED_AT
        waits at most.
        """
        found: list[Wait] = []
        size, looked, number = 0, 0, AT_FIRST
        after = asked.after
        while True:
            records = await self._store.list_waits(caller.project, number, after)
            for record in records:
                wait = waiting(record)
                if asked.workflow_id in ("", wait.workflow_id) and not self._over(wait):
                    size += len(record.data)
                    if found and (len(found) == asked.limit or size > asked.size):
                        return found, after
                    found.append(wait)
                after = record.place
            looked += len(records)
            if len(records) < number:
                return found, None
            if looked >= LOOKED_AT:
                return found, after
            small = sum(len(one.data) for one in records) < BATCH_BYTES
            number = min(number * GROWTH, AT_ONCE) if small else AT_FIRST
            await asyncio.sleep(0)

    async def _find(self, caller: Caller, reply: Reply, *, ended: bool) -> tuple[Wait | None, bool]:
        """Return the wait that a reply names, and whether the log is known to have its end.

        There is no wait if the reply names it by a key that the run may still come to.
        """
        if reply.wait_id:
            event = await self._details.event(caller.project, reply.root, reply.wait_id)
            if event is not None and event.HasField("suspended") and reply.names(wait_of(event)):
                return wait_of(event), False
        elif reply.request_id and (wait := await self._repeated(caller, reply)):
            return wait, True
        every = await self.open(caller, reply.root)
        found = [one for one in every if reply.names(one)]
        if reply.wait_id and not found:  # the index may also be ahead of the log
            what = f"No wait that the answer names has the id {reply.wait_id}. "
            raise not_open(reply, what + opened(every))
        over = False
        if not found:
            found, over = await self._in_log(caller, reply, every, ended=ended)
        if len(found) > 1:
            raise ambiguous(reply, found)
        return (found[0], over) if found else (None, False)

    async def _repeated(self, caller: Caller, reply: Reply) -> Wait | None:
        """Return the wait of this key that this request has answered before; None if it has not.

        Several children may have waits of one key, one after the other.
        """
        begun: dict[int, Wait] = {}
        own = reply.request_id, caller.principal
        async for event in self._details.waits(caller.project, reply.root, key=reply.step_key):
            if event.HasField("suspended") and reply.names(wait := wait_of(event)):
                begun[wait.wait_id] = wait
            told = event.resumed
            if told.wait_id in begun and (told.request_id, told.principal) == own:
                return begun[told.wait_id]
        return None

    async def _in_log(
        self, caller: Caller, reply: Reply, every: Sequence[Wait], *, ended: bool
    ) -> tuple[list[Wait], bool]:
        """Return the waits that a reply names by their key: the open ones, else the latest one.

        The index may be behind the log, and has neither timers nor what is over. With the waits
        comes whether they are over.

        Raises:
            WaitNotOpen: the run does not come to such a wait: the key is that of a step, or of a
                tool that waits for its approval, or the run has ended.

        """
        begun: list[Wait] = []
        over: set[int] = set()
        approval, step = False, False
        asked = reply.step_key + APPROVE, reply.step_key + ASK
        async for event in self._details.waits(caller.project, reply.root, key=reply.step_key):
            if event.HasField("resumed"):
                over.add(event.resumed.wait_id)
            elif event.HasField("suspended"):
                if reply.names(wait := wait_of(event)):
                    begun.append(wait)
                approval |= event.suspended.step_key in asked
            else:
                step |= event.run_id in (reply.run_id, reply.root)
        if not begun:
            key, now = repr(reply.step_key), opened(every)
            if ended:
                raise not_open(reply, HAS_ENDED)
            if step or approval:
                raise not_open(reply, f"The run has a step {key:.80}, not a wait. {now}")
            if reply.step_key.endswith(APPROVE):
                what = "An approval is answered once it is open, by its wait_id. "
                raise not_open(reply, what + now)
        left = [one for one in begun if one.wait_id not in over]
        return left or begun[-1:], not left

    async def _executed(self, caller: Caller, reply: Reply) -> str:
        """Return what a child executes; empty if the reply names the root.

        Raises:
            RunNotFound: there is no such child: its id ends with the sequence of its first event.

        """
        if reply.run_id == reply.root:
            return ""
        return (await self._details.first(caller.project, reply.run_id)).workflow_id

    async def _said(
        self, caller: Caller, reply: Reply, wait: Wait | None, answer: Answer
    ) -> Answer | None:
        """Return how a wait has ended, as the inbox has it, or the log; None if it has not.

        It is the given answer itself if that is the one.
        """
        if wait is None:
            return None
        place = slot(wait.run_id, wait.step_key)
        for command in await self._store.inbox(caller.project, reply.root):
            if command.id == place:
                return answer.said_by(command)
        async for event in self._details.waits(caller.project, reply.root, wait.wait_id):
            if event.resumed.wait_id == wait.wait_id:
                return answer_of(event.resumed)
        return None

    async def _check(self, caller: Caller, reply: Reply, wait: Wait | None) -> None:
        """Refuse an answer that the wait cannot take."""
        if wait is None:
            return
        if wait.kind in UNANSWERED:
            what = "A timer" if wait.kind == TIMER else "A wait for the end of a run"
            raise not_open(reply, f"{what} cannot be answered.")
        if wait.kind == APPROVAL:
            if not reply.wait_id:
                what = f"is missing: an approval is answered by its id, here {wait.wait_id}"
                raise InvalidRequest({"wait_id": what})
            await self._check_approval(caller, reply, wait)

    async def _check_approval(self, caller: Caller, reply: Reply, wait: Wait) -> None:
        data = reply.data
        wrong = wrong_approval(data)
        if not wrong and "arguments" in data:
            told = await self._check_edit(caller.project, wait, data["arguments"])
            wrong = f"has arguments that cannot be taken: {told}" if told else ""
        if wrong:
            raise InvalidRequest({"data_json": wrong})

    def _over(self, wait: Wait) -> bool:
        """Return whether the time in which a wait can be answered is over."""
        return (
            wait.HasField("expire_time") and wait.expire_time.ToNanoseconds() <= self._clock.now()
        )

    async def _close(self, caller: Caller, reply: Reply, wait: Wait) -> None:
        """Take an answered wait out of the index; the run does it, too, when it goes on."""
        try:
            await self._store.close_wait(caller.project, reply.root, wait.wait_id)
        except StoreUnavailable as error:
            log.warning("wait_not_closed", run_id=reply.root, key=wait.step_key, error=str(error))


def waiting(record: WaitRecord) -> Wait:
    """Return a wait of the index as a message."""
    return Wait.FromString(record.data)
