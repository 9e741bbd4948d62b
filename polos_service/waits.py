"""What callers can do with waits: answer them, and list the open ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from polos.v1.event_pb2 import WaitKind
from polos.v1.run_pb2 import Wait
from polos_client.errors import (
    AlreadyAnswered,
    AmbiguousWait,
    InvalidRequest,
    WaitExpired,
    WaitNotOpen,
)
from polos_service.caller import RUNS_RESUME, Caller
from polos_service.runs.answers import ANSWER, APPROVE, Answer
from polos_service.runs.clock import Clock
from polos_service.runs.frame import decode
from polos_service.store import ENDED, RunStore, WaitRecord

TIMER, APPROVAL = WaitKind.WAIT_KIND_TIMER, WaitKind.WAIT_KIND_APPROVAL

CheckEdit = Callable[[str, Wait, Any], str]
"""Given a project, an approval and changed arguments, returns what is wrong, or nothing."""


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


class Waits:
    """The use cases. A caller sees the waits of their own project only.

    Every one of them may raise StoreUnavailable.
    """

    def __init__(self, store: RunStore, clock: Clock, check_edit: CheckEdit) -> None:
        self._store = store
        self._clock = clock
        self._check_edit = check_edit

    async def resume(self, caller: Caller, reply: Reply) -> Wait | None:
        """Answer a wait, and return it; None if the run does not wait yet.

        Raises:
            AlreadyAnswered: another answer was accepted before.
            AmbiguousWait: several open waits have this key.
            InvalidRequest: the wait cannot be answered with it.
            RunNotFound: there is no such run.
            TooManyCommands: the run's inbox is full.
            WaitExpired: the wait expired before.
            WaitNotOpen: there is no such wait, or the run has ended.

        """
        record = await self._store.get(caller.project, reply.root)
        if record.state in ENDED:
            raise not_open(reply, "The run has ended.")
        wait = await self._find(caller, reply)
        run_id, key = (wait.run_id, wait.step_key) if wait else (reply.run_id, reply.step_key)
        self._check(caller, reply, wait, key)
        answer = Answer(
            data_json=reply.data_json, request_id=reply.request_id, principal=caller.principal
        )
        stands = await self._store.command(caller.project, reply.root, answer.to(run_id, key))
        if stands is None:
            raise not_open(reply, "The run has ended.")
        self._accepted(reply, answer, Answer.of(stands))
        if wait is not None:
            await self._store.close_wait(caller.project, reply.root, wait.wait_id)
        return wait

    async def answer(  # noqa: PLR0917 - a port of workflows
        self,
        project: str,
        principal: str,
        run_id: str,
        step_key: str,
        data_json: str,
        request_id: str,
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
        )
        return await self.resume(caller, reply)

    async def open(self, caller: Caller, run_id: str) -> Sequence[Wait]:
        """Return the open waits of a root run that can be answered, oldest first."""
        return [waiting(one) for one in await self._store.open_waits(caller.project, run_id)]

    async def early(self, caller: Caller, run_id: str) -> Sequence[str]:
        """Return the keys of answers in a run's inbox."""
        found = await self._store.inbox(caller.project, run_id)
        return [one.step_key for one in found if one.kind == ANSWER]

    async def list(
        self, caller: Caller, limit: int, after: tuple[int, str, int] | None
    ) -> Sequence[WaitRecord]:
        """Return a page of the open waits of the project, oldest first."""
        return await self._store.list_waits(caller.project, limit, after)

    async def _find(self, caller: Caller, reply: Reply) -> Wait | None:
        """Return the open wait that a reply names; None if the run does not wait with it yet."""
        every = await self.open(caller, reply.root)
        found = [one for one in every if names(reply, one)]
        if len(found) > 1:
            raise ambiguous(reply, found)
        if found:
            return found[0]
        if reply.wait_id:
            wait = await self._logged(caller, reply)
            if wait is None or not names(reply, wait):
                raise not_open(reply, f"No wait has the id {reply.wait_id}.")
            return wait
        if not reply.step_key:
            raise not_open(reply, "The run has no open wait that can be answered.")
        return None

    async def _logged(self, caller: Caller, reply: Reply) -> Wait | None:
        """Return the wait with the reply's id as the log has it, open or not."""
        found = await self._store.read(caller.project, reply.root, reply.wait_id - 1, 1)
        for frame in found.frames:
            for event in decode(frame.data):
                if event.sequence == reply.wait_id and event.HasField("suspended"):
                    told = event.suspended
                    wait = Wait(
                        run_id=event.run_id,
                        step_key=told.step_key,
                        wait_id=event.sequence,
                        kind=told.kind,
                        data_json=told.data_json,
                        create_time=event.create_time,
                        workflow_id=event.workflow_id,
                    )
                    if told.HasField("expire_time"):
                        wait.expire_time.CopyFrom(told.expire_time)
                    return wait
        return None

    def _check(self, caller: Caller, reply: Reply, wait: Wait | None, key: str) -> None:
        """Refuse an answer that the wait cannot take."""
        if wait is None:
            if key.endswith(APPROVE):
                raise not_open(reply, "An approval is answered once it is open, by its wait_id.")
            return
        if wait.kind == TIMER:
            raise not_open(reply, "A timer cannot be answered.")
        if wait.HasField("expire_time"):
            expires = wait.expire_time.ToNanoseconds()
            if expires <= self._clock.now():
                raise expired(reply, wait)
        if wait.kind == APPROVAL:
            if not reply.wait_id:
                what = f"is missing: an approval is answered by its id, here {wait.wait_id}"
                raise InvalidRequest({"wait_id": what})
            self._check_approval(caller, reply, wait)

    def _check_approval(self, caller: Caller, reply: Reply, wait: Wait) -> None:
        data = reply.data
        wrong = wrong_approval(data)
        if not wrong and isinstance(data, dict) and "arguments" in data:
            told = self._check_edit(caller.project, wait, data["arguments"])
            wrong = f"has arguments that cannot be taken: {told}" if told else ""
        if wrong:
            raise InvalidRequest({"data_json": wrong})

    def _accepted(self, reply: Reply, answer: Answer, stands: Answer) -> None:
        """Return if it is the caller's own answer that counts.

        Raises:
            AlreadyAnswered, WaitExpired, WaitNotOpen: another was first.

        """
        if stands == answer and (answer.request_id or stands is answer):
            return
        if stands.ending == "expired":
            raise expired(reply, None)
        if stands.ending == "cancelled":
            raise not_open(reply, "The run no longer waits for it.")
        raise AlreadyAnswered(
            f"The wait {reply.step_key or reply.wait_id} of run {reply.run_id} has an answer.",
            run_id=reply.run_id,
            step_key=reply.step_key,
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


def names(reply: Reply, wait: Wait) -> bool:
    """Return whether a reply names an open wait."""
    if reply.wait_id and reply.wait_id != wait.wait_id:
        return False
    if reply.step_key and reply.step_key != wait.step_key:
        return False
    return reply.run_id in (reply.root, wait.run_id)


def waiting(record: WaitRecord) -> Wait:
    """Return a wait of the index as a message."""
    return Wait.FromString(record.data)


def not_open(reply: Reply, why: str) -> WaitNotOpen:
    """Return the error of an answer to a wait that is not open."""
    return WaitNotOpen(why, run_id=reply.run_id, step_key=reply.step_key)


def expired(reply: Reply, wait: Wait | None) -> WaitExpired:
    """Return the error of an answer that comes too late."""
    when = f" at {wait.expire_time.ToJsonString()}" if wait is not None else ""
    key = wait.step_key if wait is not None else reply.step_key
    return WaitExpired(
        f"The wait {key!r} of run {reply.run_id} expired{when}.",
        run_id=reply.run_id,
        step_key=key,
    )


def ambiguous(reply: Reply, found: Sequence[Wait]) -> AmbiguousWait:
    """Return the error of an answer that several waits could take."""
    listed = "\n".join(f"{one.wait_id} {one.step_key}" for one in found)
    return AmbiguousWait(
        f"{len(found)} open waits of run {reply.run_id} fit. Name one by its wait_id: "
        + ", ".join(f"{one.wait_id} ({one.step_key})" for one in found),
        run_id=reply.run_id,
        waits=listed,
    )
