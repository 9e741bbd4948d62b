"""What callers can do with runs, whatever protocol they speak."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TypeVar

from polos.v1.run_pb2 import RunInput
from polos_client.errors import (
    Draining,
    InvalidRequest,
    RunExpired,
    RunNotFound,
    StoreUnavailable,
)
from polos_client.wire import root_of
from polos_service.caller import Caller
from polos_service.catalog import Catalog
from polos_service.limits import OUTPUT_LIMIT
from polos_service.pacer import Pacer
from polos_service.quotas import UNLIMITED, Quotas, exceeded
from polos_service.reading.details import Details, RunDetails
from polos_service.reading.given import input_of
from polos_service.reading.tail import Readers, Tail
from polos_service.runs.answers import cancelling
from polos_service.runs.clock import Clock
from polos_service.runs.executor import Executor
from polos_service.runs.runnable import RunRequest, new_run
from polos_service.sidethread import SMALL, SideThread
from polos_service.store import ENDED, NewRun, RunQuery, RunRecord, RunStore
from polos_service.store.refusals import needed
from polos_service.waits import Waits
from polos_service.workflows.outcome import circle_json, deleted_json, outcome_json
from polos_service.workflows.room import Room

T = TypeVar("T", NewRun, RunRecord)

CANCEL_WAIT = 5.0
"""Seconds that `cancel` waits for the terminal event."""

CIRCLE = 100
"""Runs at most that are looked at to find out whether they wait for each other."""

DRAIN_RETRY = 1.0
"""Seconds after which a start that was refused at the end may find the next process."""


class Runs:
    """The use cases. A caller sees the runs of their own project only.

    Every one of them may raise StoreUnavailable.

    Attributes:
        waits: the use cases of waits.

    """

    def __init__(
        self,
        store: RunStore,
        catalog: Catalog,
        executor: Executor,
        clock: Clock,
        side_thread: SideThread,
        *,
        quotas: Quotas = UNLIMITED,
        show_inputs: bool = True,
    ) -> None:
        self._quotas = quotas
        self._show_inputs = show_inputs
        self._store = store
        self._catalog = catalog
        self._executor = executor
        self._clock = clock
        self._side_thread = side_thread
        self._readers = Readers(store)
        self._details = Details(store, self._readers.pacer)
        self.waits = Waits(store, self._details, clock, catalog.wrong_edit)
        self._draining = False

    def drain(self) -> None:
        """Refuse every start from now on."""
        self._draining = True

    def close(self) -> None:
        """Send all readers away, to come back to the next process."""
        self._readers.close()

    async def start(self, request: RunRequest) -> str:
        """Put a run on disk and return its id; a repeated request id returns its run's.

        Raises:
            AgentNotFound: nothing of that id is loaded.
            Draining: the service is about to stop.
            InvalidRequest: the runnable cannot be started with this.
            QuotaExceeded: the project has reached a limit.
            RequestIdReused: the request id started a run with other arguments.
            TooManyRuns: as many runs wait as may.

        """
        if self._draining:
            raise Draining("The service is shutting down. Try again.", retry_after=DRAIN_RETRY)
        self._check_input(request)
        runnable = self._catalog.find(request.runnable_id, request.caller.project)
        definition = await self._side_thread.call(request.size, runnable.pin, request)
        run = new_run(runnable, request, definition, self._clock.now())
        return await self._store.create(run if self._show_inputs else without_preview(run))

    def kind(self, caller: Caller, runnable_id: str) -> str:
        """Return the kind of what a start names; empty if the caller cannot start it."""
        return self._catalog.kind(runnable_id, caller.project)

    async def require(self, caller: Caller, run_id: str) -> None:
        """Check that there is such a run, or such a child of a run.

        Raises:
            RunNotFound: there is not.

        """
        if root_of(run_id) == run_id:
            await self._store.get(caller.project, run_id)
        else:
            await self._details.first(caller.project, run_id)

    async def record(self, caller: Caller, run_id: str) -> RunRecord:
        """Return what is known of a root run without its log.

        Raises:
            RunNotFound: there is no such run.

        """
        return await self._store.get(caller.project, run_id)

    async def get(
        self, caller: Caller, run_id: str, max_result: int, *, tree: bool = False
    ) -> RunDetails:
        """Return a run or a child with its outcome, and the results of its tools.

        Its result may have up to `max_result` bytes. The details are released by the caller.

        Raises:
            RunNotFound: there is no such run.

        """
        return await self._details.whole(caller.project, run_id, max_result, tree=tree)

    async def input(self, caller: Caller, run_id: str) -> RunInput | None:
        """Return what a run or a child was started with.

        None if there is nothing, or the caller may not see it: whoever has a run token sees what
        the run does, and no more.

        Raises:
            RunNotFound: there is no such run.

        """
        if caller.run_id or not self._show_inputs:
            return None
        pinned = await self._details.definition(caller.project, run_id)
        return await self._side_thread.call(len(pinned), input_of, pinned)

    def tail(self, caller: Caller, run_id: str, after: int) -> AbstractContextManager[Tail]:
        """Give a run's log to one reader: encoded responses, from a cursor on.

        A child is one that `require` has found.
        """
        return self._readers.tail(caller.project, run_id, after)

    async def list(self, caller: Caller, query: RunQuery) -> Sequence[RunRecord]:
        """Return the runs that the query asks for, the newest first.

        A root run as the parent stands for its children, too.
        """
        if query.parent_run_id is not None:
            root, _, child = query.parent_run_id.partition(":")
            parent = query.parent_run_id if child else None
            query = replace(query, parent_root=root, parent_run_id=parent)
        found = await self._store.list(caller.project, query)
        return found if self._show_inputs else [without_preview(one) for one in found]

    async def cancel(self, caller: Caller, run_id: str) -> RunDetails:
        """Cancel a run, wait up to CANCEL_WAIT for its end, and return it with its outcome.

        Raises:
            RunNotFound: there is no such run.
            TooManyCommands: as many commands wait for the root of a child as may.

        """
        if root_of(run_id) != run_id:
            return await self._cancel_child(caller, run_id)
        await self._executor.cancel(caller.project, run_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_WAIT):
                await self._ended(caller, run_id)
        return await self._details.ended(caller.project, run_id)

    async def delete(self, caller: Caller, run_id: str) -> None:
        """Remove an ended root run, whole.

        Raises:
            InvalidRequest: it is a child.
            RunNotFinished: it has not ended, or the run whose step has started it has not.
            RunNotFound: there is no such run.

        """
        if (root := root_of(run_id)) != run_id:
            what = f"is a child, which is deleted with its root run {root!r:.80} only"
            raise InvalidRequest({"run_id": what})
        record = await self._store.get(caller.project, run_id)
        if record.state in ENDED and record.parent is not None:
            await self._require_ended(caller.project, record.parent.root, run_id)
        await self._store.delete(caller.project, run_id)

    async def _require_ended(self, project: str, parent: str, run_id: str) -> None:
        """Refuse to delete a run that the code of another one may still ask for.

        Raises:
            RunNotFinished: that other one is open.

        """
        with contextlib.suppress(RunExpired, RunNotFound):
            if (await self._store.get(project, parent)).state not in ENDED:
                raise needed(run_id, parent)

    async def _cancel_child(self, caller: Caller, run_id: str) -> RunDetails:
        details = await self._details.ended(caller.project, run_id)
        if details.outcome is not None:
            return details
        await self._store.command(caller.project, root_of(run_id), cancelling(run_id))
        with contextlib.suppress(TimeoutError, Draining):
            async with asyncio.timeout(CANCEL_WAIT):
                with self.tail(caller, run_id, details.record.latest) as tail:
                    while await tail.next() is not None:
                        pass
        return await self._details.ended(caller.project, run_id)

    def _check_input(self, request: RunRequest) -> None:
        project = request.caller.project
        limit = self._quotas.of(project).input_bytes
        if limit is not None and request.size > limit:
            what = f"The request has {request.size} bytes. Send less, or a reference to it."
            raise exceeded("input_bytes", limit, project, what)

    async def _ended(self, caller: Caller, run_id: str) -> None:
        record = await self.record(caller, run_id)
        while record.state not in ENDED:
            await self._store.wait(caller.project, run_id, record.latest)
            record = await self.record(caller, run_id)


class OtherRuns:
    """The runs with logs of their own, as the code of a run has to do with them.

    Attributes:
        room: the line of those who wait for room in the queue.

    """

    def __init__(self, store: RunStore, *, show_inputs: bool = True) -> None:
        self.room = Room(store)
        self._store = store
        self._show_inputs = show_inputs
        self._details = Details(store, Pacer())

    async def create(self, run: NewRun) -> str:
        """Store a run that the code of another one starts, and return its id.

        Raises:
            QuotaExceeded, RequestIdReused, StoreUnavailable, TooManyRuns: as `RunStore.create`.

        """
        return await self._store.create(run if self._show_inputs else without_preview(run))

    async def refusal(self, project: str, run_id: str, root: str) -> str:
        """Return why a root run must not wait for a run's end, as `outcome` does; or nothing.

        It must not if that run waits for the root run, itself or through others.

        Raises:
            StoreUnavailable: the store is away.

        """
        ahead, seen = {run_id}, set[str]()
        while ahead and len(seen) < CIRCLE:
            seen.add(one := ahead.pop())
            with contextlib.suppress(RunExpired, RunNotFound):
                ahead |= await self._details.awaited(project, one) - seen
            if root in ahead:
                return circle_json(run_id)
        return ""

    async def outcome(self, project: str, run_id: str) -> str:
        """Return what a run has ended with, as a wait for its end tells it.

        Raises:
            StoreUnavailable: the store does not have the end yet, or is away.

        """
        try:
            found = await self._details.ended(project, run_id)
            if found.outcome is not None and found.outcome.HasField("agent_finish"):
                found = await self._details.whole(project, run_id, OUTPUT_LIMIT)
        except (RunExpired, RunNotFound):
            return deleted_json(run_id)
        try:
            if found.outcome is None:
                raise StoreUnavailable(f"The store does not have the end of run {run_id} yet.")
            if found.outcome.ByteSize() <= SMALL and not found.tool_results:
                return outcome_json(found.outcome, ())
            return await asyncio.to_thread(outcome_json, found.outcome, found.tool_results)
        finally:
            found.release()


def without_preview(run: T) -> T:
    """Return a run without the beginning of its input."""
    return replace(run, input_preview="")
