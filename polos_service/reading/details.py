"""What a run's log says of its outcome and its tools; the log may be long.

Few events are needed: the terminal one is the last, and the ends of steps say so in their
bytes. All others are skipped without being decoded, unless they hold a part of a long result.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from polos.v1.event_pb2 import Event, StepFinish, ToolCall, WaitKind
from polos.v1.run_pb2 import RunTree, ToolResult
from polos_client.errors import StoreUnavailable
from polos_client.wire import RESULT_LIMIT, root_of
from polos_service.pacer import Pacer
from polos_service.reading.budget import Budget
from polos_service.reading.parts import TEXT, Parts, Place, place_of
from polos_service.reading.subtree import Subtree, begin_of
from polos_service.reading.tail import READ_LIMIT, events_of
from polos_service.reading.tree import Member, Tree, resting, state_of
from polos_service.runs.frame import decode, split
from polos_service.runs.journal import awaited_run
from polos_service.runs.lineage import Origin, number_of
from polos_service.runs.private import definition_in
from polos_service.store import ENDED, Frame, RunRecord, RunStore, Slice
from polos_service.store.refusals import not_found

TOOL = b"\x12\x04tool"
"""What the bytes of every event of a tool's step hold: its `step_type`, which is field 2."""

MODEL = b"\x12\x03llm"
"""What those of the start and the end of every model call hold."""

WAITS = (b"\xb2\x01", b"\xba\x01")
"""The tags of `suspended` and `resumed`, one of which the bytes of each such event hold."""

RESULTS_LIMIT = 1024 * 1024
"""Bytes of tool results that are returned of a run at most."""

RESULTS_AT_ONCE = 2 * RESULT_LIMIT
"""Bytes of long results that are put together, or on their way to callers, at once."""

RESULT_PATIENCE = 10.0
"""Seconds that a caller waits for room for a long result; it is left out after that."""


def keep() -> None:
    """Give nothing back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDetails:
    """A run's record, and what its log says beyond that.

    Attributes:
        record: the run.
        outcome: the event that ended the run, its root's if it has none; None if it has not ended.
        origin: what started a child; None of a root run.
        root_workflow_id: what the root of a child executes; empty of a root run.
        runs: of a child, its id and those of the runs below it.
        tree: the run and the runs below it; None if nobody has asked for them.
        tool_results: in the order in which the tools finished.
        omitted: further tool results, beyond RESULTS_LIMIT.
        release: to be called once nobody holds the details any more.

    """

    record: RunRecord
    outcome: Event | None
    origin: Origin | None = None
    root_workflow_id: str = ""
    runs: frozenset[str] = frozenset()
    tree: RunTree | None = None
    tool_results: Sequence[ToolResult] = ()
    omitted: int = 0
    release: Callable[[], None] = keep

    def has(self, run_id: str) -> bool:
        """Return whether a run of the log is the run itself, or below it."""
        return not self.runs or run_id in self.runs


class Details:
    """Reads logs for answers, a piece at a time, fairly between all that are asked for."""

    def __init__(self, store: RunStore, pacer: Pacer) -> None:
        self._store = store
        self._pacer = pacer
        self._budget = Budget(RESULTS_AT_ONCE)

    async def event(self, project: str, root: str, sequence: int) -> Event | None:
        """Return an event of a log; None if there is none.

        Raises:
            RunNotFound: there is no such run.

        """
        found = await self._store.read(project, root, sequence - 1, 1)
        if not found.frames or found.frames[0].first > sequence:
            return None
        return event_in(found.frames[0], sequence)

    async def first(self, project: str, run_id: str) -> Event:
        """Return the first event of a child.

        Raises:
            RunNotFound: there is no such child.

        """
        number = number_of(run_id)
        event = await self.event(project, root_of(run_id), number) if number else None
        if event is None or event.run_id != run_id:
            raise not_found(run_id)
        return event

    async def definition(self, project: str, run_id: str) -> bytes:
        """Return what a run or a child was started with; nothing if the store has lost it.

        Raises:
            RunNotFound: there is no such run.

        """
        root, number = root_of(run_id), number_of(run_id)
        if number is None:
            return await self._store.definition(project, root)
        return definition_in(await self._store.private(project, root, number), run_id)

    async def ended(self, project: str, run_id: str) -> RunDetails:
        """Return the run with its outcome, if it has ended; without the results of its tools.

        Raises:
            RunNotFound: there is no such run.

        """
        if root_of(run_id) != run_id:
            return await self._child(project, run_id)
        record = await self._store.get(project, run_id)
        if record.state not in ENDED:
            return RunDetails(record=record, outcome=None)
        part = await self._read(project, run_id, record.latest - 1, 1)
        outcome = event_in(part.frames[0], record.latest)
        return RunDetails(record=record, outcome=outcome)

    async def whole(
        self, project: str, run_id: str, max_result: int, *, tree: bool = False
    ) -> RunDetails:
        """Return the run with its outcome and the results of its own tools; with `tree`, that too.

        A result that exceeds the terminal event is put into the outcome, unless it has more
        than `max_result` bytes or there is no room for it within RESULT_PATIENCE.

        Raises:
            RunNotFound: there is no such run.

        """
        if root_of(run_id) != run_id:
            details = await self._child(project, run_id, tree=tree)
        else:
            details = await self.ended(project, run_id)
            if tree:
                details = replace(details, tree=await self._tree(project, details.record))
        own = details.outcome is not None and details.outcome.run_id == run_id
        step_key = details.outcome.agent_finish.result_step_key if own and details.outcome else ""
        results = Results(details.record)
        async for data in self._log(project, details.record):
            if TOOL in data or (step_key and MODEL in data):
                results.add(decode(data))
        size = results.texts.get(step_key, 0)
        if not 0 < size <= max_result or not await self._room(size):
            step_key, size = "", 0
        release = partial(self._budget.give, size)
        try:
            parts = await self._parts(project, results, step_key)
        except BaseException:
            release()
            raise
        if step_key and details.outcome is not None:
            details.outcome.agent_finish.result = parts.text(step_key)
            details.outcome.agent_finish.ClearField("result_step_key")
        found, omitted = results.whole(parts)
        return replace(details, tool_results=found, omitted=omitted, release=release)

    async def waits(
        self, project: str, run_id: str, after: int = 0, *, key: str = ""
    ) -> AsyncIterator[Event]:
        """Yield the events behind a cursor with which waits begin and end, and steps with a key.

        Raises:
            RunNotFound: there is no such run.

        """
        record = await self._store.get(project, run_id)
        async for data in self._log(project, record, after):
            if any(tag in data for tag in WAITS) or (key and key.encode() in data):
                for event in decode(data):
                    waits = event.HasField("suspended") or event.HasField("resumed")
                    if waits or (key and event.step_start.step_key == key):
                        yield event

    async def awaited(self, project: str, run_id: str) -> set[str]:
        """Return the runs for whose ends a root run or its children wait, however long it takes.

        Raises:
            RunNotFound: there is no such run.

        """
        waits = {
            event.sequence: awaited_run(event.suspended)
            async for event in self.waits(project, run_id)
            if event.suspended.kind == WaitKind.WAIT_KIND_RUN
            and not event.suspended.HasField("expire_time")
        }
        if not waits:
            return set()
        tree = Tree()
        async for data in self._log(project, await self._store.get(project, run_id)):
            tree.add(decode(data))
        still_open = {wait_id for member in tree.standing() for wait_id in member.waits}
        return {awaited for wait_id, awaited in waits.items() if wait_id in still_open}

    async def _room(self, size: int) -> bool:
        """Take room for a result; False if there is none."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RESULT_PATIENCE):
                await self._budget.take(size)
                return True
        return False

    async def _parts(self, project: str, results: Results, step_key: str) -> Parts:
        """Return what the log holds in parts: the text of a step, and the tools' arguments."""
        record = results.record
        wanted = {*results.long, *([(step_key, TEXT)] if step_key else [])}
        parts = Parts(record.run_id, record.latest, wanted, RESULTS_LIMIT - results.size)
        if wanted:
            async for data in self._log(project, record):
                if not parts.skips(data):
                    parts.add(decode(data))
        return parts

    async def _child(self, project: str, run_id: str, *, tree: bool = False) -> RunDetails:
        """Return a child with its outcome, and with the tree below it if that is asked for.

        Raises:
            RunNotFound: there is no such child.

        """
        await self.first(project, run_id)
        root = await self._store.get(project, root_of(run_id))
        subtree, found = Subtree(run_id), Tree()
        outcome = None
        latest = max(root.latest, subtree.after + 1)  # its first event was there
        while subtree.after < latest and not subtree.ended:
            await self._pacer.next()
            part = await self._read(project, run_id, subtree.after)
            picked = subtree.take(part, READ_LIMIT)
            if subtree.ended:
                outcome = Event()
                outcome.CopyFrom(picked[-1])
                if outcome.run_id != run_id:
                    del picked[-1]
            found.add(picked)
        return await asyncio.to_thread(details_of_child, run_id, root, found, outcome, tree=tree)

    async def _tree(self, project: str, root: RunRecord) -> RunTree:
        tree = Tree()
        async for data in self._log(project, root):
            tree.add(decode(data))
        return await asyncio.to_thread(tree.told, root)

    async def _log(self, project: str, record: RunRecord, after: int = 0) -> AsyncIterator[bytes]:
        """Yield the log behind a cursor as encoded events.

        Of a child it has what its root's log says from the child's begin to its newest event.
        """
        after = max(after, begin_of(record.run_id))
        while after < record.latest:
            await self._pacer.next()
            part = await self._read(project, record.run_id, after)
            data, after = events_of(part, after)
            yield data

    async def _read(self, project: str, run_id: str, after: int, limit: int = READ_LIMIT) -> Slice:
        """Return frames behind a cursor, of a child those of its branch; there is more of the log.

        Raises:
            StoreUnavailable: the store does not have it.

        """
        run_id, branch = root_of(run_id), number_of(run_id)
        part = await self._store.read(project, run_id, after, limit, branch)
        if part.covered <= after:  # this replica has not heard yet of what the record counts
            await self._store.wait(project, run_id, after)
            part = await self._store.read(project, run_id, after, limit, branch)
        if part.covered <= after:
            raise StoreUnavailable(
                f"The store lacks events of run {run_id} after {after}. Restore it from a backup."
            )
        return part


def event_in(frame: Frame, sequence: int) -> Event:
    """Return an event of a frame."""
    return Event.FromString(split(frame.data)[sequence - frame.first])


class Results:
    """Collects the results of a root run's own tools, and the sizes of long texts.

    Attributes:
        record: the run.
        size: bytes of the results so far.
        texts: bytes of the text of each model step whose answer exceeds its end.

    """

    def __init__(self, record: RunRecord) -> None:
        """Collect from the events that the record counts; what came later is ignored."""
        self.record = record
        self.size = 0
        self.texts: dict[str, int] = {}
        self._found: list[ToolResult] = []
        self._omitted = 0
        self._calls: dict[str, ToolCall] = {}

    @property
    def long(self) -> list[Place]:
        """The places of the arguments that the results lack."""
        return [place_of(one.tool_call.long_arguments) for one in self._found if is_long(one)]

    def add(self, events: Sequence[Event]) -> None:
        """Take the next events."""
        for event in events:
            if event.sequence > self.record.latest:
                break
            if event.run_id != self.record.run_id:
                continue
            if event.step_start.HasField("tool_call"):
                self._calls[event.step_start.step_key] = event.step_start.tool_call
            elif event.step_finish.HasField("tool_call"):
                self._finish(event.step_finish)
            elif event.step_finish.HasField("long_answer"):
                finish = event.step_finish
                self.texts[finish.step_key] = finish.long_answer.text_bytes

    def whole(self, parts: Parts) -> tuple[list[ToolResult], int]:
        """Return the results with their arguments, RESULTS_LIMIT bytes at most, and how many lack.

        Args:
            parts: has the arguments that are `long`.

        """
        found: list[ToolResult] = []
        for result in self._found:
            if is_long(result):
                arguments = parts.arguments(result.tool_call.long_arguments)
                if arguments is None:
                    continue
                result.tool_call.ClearField("long_arguments")
                result.tool_call.arguments_json = arguments
            found.append(result)
        return found, self._omitted + len(self._found) - len(found)

    def _finish(self, finish: StepFinish) -> None:
        call = self._calls.pop(finish.step_key, finish.tool_call)
        result = ToolResult(tool_call=call, step_key=finish.step_key)
        if finish.HasField("failure"):
            result.failure.CopyFrom(finish.failure)
        else:
            result.result_json = finish.result_json
            result.result_schema = finish.result_schema
        self.size += result.ByteSize()
        if self.size > RESULTS_LIMIT:
            self._omitted += 1
        else:
            self._found.append(result)


def is_long(result: ToolResult) -> bool:
    """Return whether the arguments of a result stand elsewhere."""
    return result.tool_call.HasField("long_arguments")


def details_of_child(
    run_id: str, root: RunRecord, found: Tree, outcome: Event | None, *, tree: bool
) -> RunDetails:
    """Return what a log says of a child, as the fold of its subtree has it."""
    members = found.standing()
    child: Member = found.members[run_id]
    finish = None
    if outcome is not None:
        finish = outcome.create_time.ToNanoseconds()
    begin = child.create_time.ToNanoseconds()
    record = replace(
        root,
        run_id=run_id,
        workflow_id=child.lineage.workflow_id,
        state=state_of(child, root, idle=resting(members)[run_id]),
        streaming=child.streaming,
        create_time=begin,
        start_time=begin,
        finish_time=finish,
        latest=max(one.latest for one in found.members.values()),
    )
    return RunDetails(
        record=record,
        outcome=outcome,
        origin=child.origin,
        root_workflow_id=root.workflow_id,
        runs=frozenset(found.members),
        tree=found.told(root) if tree else None,
    )
