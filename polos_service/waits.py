"""What callers can do with waits: answer them, and list the open ones."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from polos.v1.event_pb2 import Event, Resumed, WaitKind
from polos.v1.run_pb2 import Wait
from polos_client.errors import (
    AlreadyAnswered,
    AmbiguousWait,
    InvalidRequest,
    RunNotFound,
    StoreUnavailable,
    WaitExpired,
    WaitNotOpen,
)
from polos_service.caller import Caller
from polos_service.logs import get_logger
from polos_service.reading.details import Details
from polos_service.runs.answers import ANSWER, APPROVE, Answer, slot
from polos_service.runs.clock import Clock
from polos_service.runs.frame import decode
from polos_service.store import ENDED, RunStore, WaitRecord

TIMER, APPROVAL = WaitKind.WAIT_KIND_TIMER, WaitKind.WAIT_KIND_APPROVAL

AT_FIRST, GROWTH, AT_ONCE = 32, 4, 1000
"""Waits that are read from the index at first, the factor by which that grows while they are
small, and the most: a wait may have 256 KiB."""

BATCH_BYTES = 128 * 1024
"""Bytes of waits read at once beyond which the next batch is a small one again."""

LOOKED_AT = 10_000
"""Waits that a page looks at, at most, for those that it is asked for."""

LISTED = 200
"""Characters of the waits that the error of an ambiguous answer lists."""

CheckEdit = Callable[[str, Wait, Any], Awaitable[str]]
"""Given a project, an approval and changed arguments, returns what is wrong, or nothing."""

HAS_ENDED = "The run has ended."
"""Why a wait is not open any more."""

Place = tuple[int, str, int]
"""Where a wait stands in the list of its project: see `WaitRecord.place`."""

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer to a wait, as a caller gives it.

    Attributes:
        run_id: the root run, or the child that waits.
        step_key: the wait's key; empty if `wait_id` names the wait.
        wait_id: the wait's id; 0 if its key names it.
        data_json: the answer as JSON text.
        data: the same as a value.
        request_id: tells a repeated answer; empty if there is none.

    """

    run_id: str
    step_key: str
    wait_id: int
    data_json: str
    data: Any
    request_id: str

    @property
    def root(self) -> str:
        """The root run."""
        return self.run_id.partition(":")[0]

    def names(self, wait: Wait) -> bool:
        """Return whether it is for this wait, of a run that it names by itself or by its root."""
        if self.wait_id and self.wait_id != wait.wait_id:
            return False
        if self.step_key and self.step_key != wait.step_key:
            return False
        return self.run_id in (self.root, wait.run_id)


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

        It is not open before the run has come to it: the answer is kept. A repeated answer may
        find its wait over.

        Raises:
            AlreadyAnswered: another answer was accepted before.
            AmbiguousWait: several open waits have this key.
            InvalidRequest: the wait cannot be answered with it.
            RunNotFound: there is no such run, or child of a run.
            TooManyCommands: the run's inbox is full.
            WaitExpired: the wait expired before.
            WaitNotOpen: there is no such wait, or the run has ended.

        """
        record = await self._store.get(caller.project, reply.root)
        wait = await self._find(caller, reply)
        ended = record.state in ENDED
        if wait is None and ended:
            raise not_open(reply, HAS_ENDED)
        await self._check(caller, reply, wait)
        run_id, key = (wait.run_id, wait.step_key) if wait else (reply.run_id, reply.step_key)
        answer = Answer(
            data_json=reply.data_json,
            request_id=reply.request_id or str(uuid.uuid4()),
            principal=caller.principal,
        )
        stands = None
        late = wait is not None and self._over(wait)
        if not ended and not late:
            command = answer.to(run_id, key)
            stands = await self._store.command(caller.project, reply.root, command)
        said = Answer.of(stands) if stands else await self._said(caller, reply, wait)
        if said is None:
            raise not_open(reply, HAS_ENDED) if ended or not late else expired(reply, wait)
        require_own(reply, answer, said, wait)
        if wait is not None:
            await self._close(caller, reply, wait)
        return wait

    async def open(self, caller: Caller, run_id: str) -> Sequence[Wait]:
        """Return the open waits of a root run that can be answered, oldest first."""
        records = await self._store.open_waits(caller.project, run_id)
        return [wait for one in records if not self._over(wait := waiting(one))]

    async def early(self, caller: Caller, run_id: str) -> Sequence[str]:
        """Return the keys of waits of a root run that were answered before they began."""
        inbox = await self._store.inbox(caller.project, run_id)
        found = {(one.run_id, one.step_key): one for one in inbox if one.kind == ANSWER}
        if found:
            async for event in self._details.waits(caller.project, run_id):
                found.pop((event.run_id, event.suspended.step_key), None)
        return [key for (_, key), one in found.items() if Answer.of(one).ending == "answered"]

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

    async def _find(self, caller: Caller, reply: Reply) -> Wait | None:
        """Return the wait that a reply names; None if it names it by a key that no wait has yet."""
        if reply.wait_id:
            event = await self._event(caller, reply.root, reply.wait_id)
            wait = wait_of(event) if event is not None and event.HasField("suspended") else None
            if wait is None or not reply.names(wait):
                raise not_open(reply, f"No wait that the answer names has the id {reply.wait_id}.")
            return wait
        found = [one for one in await self.open(caller, reply.root) if reply.names(one)]
        found = found or await self._in_log(caller, reply)
        if len(found) > 1:
            raise ambiguous(reply, found)
        if not found and reply.run_id != reply.root:
            await self._require_child(caller, reply)
        return found[0] if found else None

    async def _in_log(self, caller: Caller, reply: Reply) -> Sequence[Wait]:
        """Return the waits that a reply names by their key: the open ones, else the latest one.

        The index may be behind the log, and has neither timers nor what is over.
        """
        begun: list[Wait] = []
        over: set[int] = set()
        async for event in self._details.waits(caller.project, reply.root):
            if event.HasField("resumed"):
                over.add(event.resumed.wait_id)
            elif reply.names(wait := wait_of(event)):
                begun.append(wait)
        return [one for one in begun if one.wait_id not in over] or begun[-1:]

    async def _require_child(self, caller: Caller, reply: Reply) -> None:
        """Refuse a child that there is not: its id ends with the sequence of its first event."""
        number = reply.run_id.partition(":")[2]
        event = None
        if number.isascii() and number.isdigit() and len(number) <= len(str(2**62)) - 1:
            event = await self._event(caller, reply.root, int(number))
        if event is None or event.run_id != reply.run_id:
            raise RunNotFound(f"There is no run {reply.run_id:.80}.", run_id=reply.run_id)

    async def _event(self, caller: Caller, root: str, sequence: int) -> Event | None:
        """Return an event of a log; None if there is none."""
        found = await self._store.read(caller.project, root, sequence - 1, 1)
        events = (one for frame in found.frames for one in decode(frame.data))
        return next((one for one in events if one.sequence == sequence), None)

    async def _said(self, caller: Caller, reply: Reply, wait: Wait | None) -> Answer | None:
        """Return how a wait has ended, as the inbox has it, or the log; None if it has not."""
        if wait is None:
            return None
        place = slot(wait.run_id, wait.step_key)
        for command in await self._store.inbox(caller.project, reply.root):
            if command.id == place:
                return Answer.of(command)
        async for event in self._details.waits(caller.project, reply.root, wait.wait_id):
            if event.resumed.wait_id == wait.wait_id:
                return answer_of(event.resumed)
        return None

    async def _check(self, caller: Caller, reply: Reply, wait: Wait | None) -> None:
        """Refuse an answer that the wait cannot take."""
        if wait is None:
            if reply.step_key.endswith(APPROVE):
                raise not_open(reply, "An approval is answered once it is open, by its wait_id.")
        elif wait.kind == TIMER:
            raise not_open(reply, "A timer cannot be answered.")
        elif wait.kind == APPROVAL:
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


def require_own(reply: Reply, answer: Answer, said: Answer, wait: Wait | None) -> None:
    """Return if it is the caller's own answer that counts.

    Raises:
        AlreadyAnswered, WaitExpired, WaitNotOpen: another was first.

    """
    if said == answer:
        return
    if said.ending == "expired":
        raise expired(reply, wait)
    if said.ending == "cancelled":
        raise not_open(reply, "The run no longer waits for it.")
    raise AlreadyAnswered(
        f"The wait {name_of(reply, wait)} of run {reply.run_id} has an answer.",
        run_id=reply.run_id,
        step_key=wait.step_key if wait else reply.step_key,
    )


def wrong_approval(data: Any) -> str:
    """Return what is wrong with the answer to an approval; empty if nothing is."""
    if not isinstance(data, dict):
        return 'is not a JSON object, such as {"approved": true}'
    unknown = data.keys() - {"approved", "feedback", "arguments"}
    if unknown:
        return f"has the unknown member {min(unknown)!r:.80}"
    if not isinstance(data.get("approved"), bool):
        return "does not say whether it is approved: `approved` must be true or false"
    if not isinstance(data.get("feedback", ""), str):
        return "has a `feedback` that is not text"
    if "arguments" in data and not (data["approved"] and isinstance(data["arguments"], dict)):
        return "may have `arguments`, an object, only where `approved` is true"
    return ""


def waiting(record: WaitRecord) -> Wait:
    """Return a wait of the index as a message."""
    return Wait.FromString(record.data)


def wait_of(event: Event) -> Wait:
    """Return the wait that an event begins."""
    told = event.suspended
    return Wait(
        run_id=event.run_id,
        step_key=told.step_key,
        wait_id=event.sequence,
        kind=told.kind,
        data_json=told.data_json,
        create_time=event.create_time,
        expire_time=told.expire_time if told.HasField("expire_time") else None,
        workflow_id=event.workflow_id,
    )


def answer_of(resumed: Resumed) -> Answer:
    """Return the answer that ended a wait, or what else did."""
    kind = resumed.WhichOneof("outcome")
    if kind != "data_json":
        return Answer(ending="cancelled" if kind == "cancelled" else "expired")
    return Answer(
        data_json=resumed.data_json, request_id=resumed.request_id, principal=resumed.principal
    )


def name_of(reply: Reply, wait: Wait | None) -> str:
    """Return how a message names a wait."""
    return repr(wait.step_key if wait else reply.step_key)


def not_open(reply: Reply, why: str) -> WaitNotOpen:
    """Return the error of an answer to a wait that is not open."""
    return WaitNotOpen(why, run_id=reply.run_id, step_key=reply.step_key)


def expired(reply: Reply, wait: Wait | None) -> WaitExpired:
    """Return the error of an answer that comes too late."""
    when = f" at {wait.expire_time.ToJsonString()}" if wait is not None else ""
    return WaitExpired(
        f"The wait {name_of(reply, wait)} of run {reply.run_id} expired{when}.",
        run_id=reply.run_id,
        step_key=wait.step_key if wait else reply.step_key,
    )


def ambiguous(reply: Reply, found: Sequence[Wait]) -> AmbiguousWait:
    """Return the error of an answer that several waits could take."""
    lines: list[str] = []
    for one in found:
        lines.append(f"{one.wait_id} {one.run_id}")
        if sum(map(len, lines)) > LISTED:
            break
    return AmbiguousWait(
        f"{len(found)} open waits of run {reply.run_id} have the key {reply.step_key!r}. Name one "
        f"by its wait_id, for example {found[0].wait_id} of run {found[0].run_id}.",
        run_id=reply.run_id,
        step_key=reply.step_key,
        waits="\n".join(lines),
    )
