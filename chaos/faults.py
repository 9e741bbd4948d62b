"""Fault points inside the service: it kills itself at a chosen passage of a chosen place.

Nothing of this is part of the product: `chaos.launch` puts it around the product's functions.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chaos.places import Place
from polos.v1.event_pb2 import TextDelta
from polos_service.agents import body
from polos_service.agents.people import UNASKED, Decision, People
from polos_service.runs.answers import EXPIRED, UNSETTLED, Answer
from polos_service.runs.attempt import StepOutput
from polos_service.runs.child_runs import ChildRuns
from polos_service.runs.context import RunContext
from polos_service.runs.inbox import Inbox
from polos_service.runs.journals import Journals
from polos_service.runs.stepping import Stepping
from polos_service.runs.waiting import Waiting
from polos_service.runs.writer import Writer
from polos_service.service import OtherRuns
from polos_service.store import Claim, Frame
from polos_service.store.sqlite import SqliteStore, claims, runs
from polos_service.store.sqlite.committer import Committer
from polos_service.store.sqlite.spool import Spool
from polos_service.workflows.children import Children

Original = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug: what is wrong then, what plants it, and a place at which it shows."""

    what: str
    plant: Callable[[], None]
    place: Place


class Faults:
    """What strikes in this process, and where."""

    def __init__(self, passages: Mapping[Place, int], marks: str) -> None:
        """Strike at the passages of places that are given; `marks` is a file to tell it in."""
        self._passages = passages
        self._marks = marks
        self._passed: dict[Place, int] = {}
        self._armed: Place | None = None

    @classmethod
    def from_environment(cls) -> Faults:
        """Return what CHAOS_FAULTS asks for: `place:passage,...`."""
        told = [one.split(":") for one in os.environ["CHAOS_FAULTS"].split(",") if one]
        return cls(
            {Place(place): int(passage) for place, passage in told}, os.environ["CHAOS_MARKS"]
        )

    def at(self, place: Place) -> None:
        """Pass a place; die there if it is the time."""
        if self._count(place) == self._passages.get(place):
            self._die(place)

    def arm(self, place: Place) -> None:
        """Pass a place inside a transaction; if it is the time, die when that is committed."""
        if self._count(place) == self._passages.get(place):
            self._armed = place

    def committed(self) -> None:
        """Pass the place right behind a commit."""
        if self._armed is not None:
            self._die(self._armed)
        self.at(Place.APPEND_ACK)

    def every(self, place: Place) -> bool:
        """Pass a place; return whether it is one of the times."""
        period = self._passages.get(place)
        return period is not None and self._count(place) % period == 0

    def mark(self, place: Place, run_id: str = "") -> None:
        """Write down that a fault has struck."""
        with open(self._marks, "a", encoding="ascii") as marks:  # noqa: PTH123
            marks.write(f"{place} {run_id}\n")

    def _count(self, place: Place) -> int:
        self._passed[place] = self._passed.get(place, 0) + 1
        return self._passed[place]

    def _die(self, place: Place) -> None:
        self.mark(place)
        os.kill(os.getpid(), signal.SIGKILL)


class WatchedConnection:
    """The store's writing connection, with a place before and behind each commit."""

    def __init__(self, db: Any, faults: Faults) -> None:
        self._db = db
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, statement: str, *values: Any) -> Any:
        """Execute a statement."""
        alone = statement.startswith("INSERT") and not self._db.in_transaction
        if statement != "COMMIT" and not alone:
            return self._db.execute(statement, *values)
        self._faults.at(Place.COMMIT)
        cursor = self._db.execute(statement, *values)
        self._faults.committed()
        return cursor


def around(owner: Any, name: str) -> Callable[[Original], Original]:
    """Put the decorated function, which is given the original first, in a function's place."""

    def put(function: Original) -> Original:
        original = getattr(owner, name)

        @functools.wraps(original)
        def replaced(*args: Any, **kwargs: Any) -> Any:
            return function(original, *args, **kwargs)

        setattr(owner, name, replaced)
        return function

    return put


def install(faults: Faults) -> None:
    """Put every place into the product's functions."""
    if faults.every(Place.MUTE):
        faults.mark(Place.MUTE)
        lose_stderr()
    watch_store(faults)
    watch_appends(faults)
    watch_recovery(faults)
    watch_steps(faults)
    watch_waits(faults, SqliteStore)
    watch_people(faults)
    watch_children(faults)
    watch_apart(faults)


def lose_stderr() -> None:
    """Let standard error be a pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 2)
    os.close(writing)


def watch_store(faults: Faults) -> None:
    """Put places around commits and starts."""

    @around(Committer, "__init__")
    def _(original: Original, committer: Committer, db: Any, *more: Any) -> None:
        original(committer, WatchedConnection(db, faults), *more)

    @around(runs, "insert_run")
    def _(original: Original, *args: Any) -> Any:
        faults.at(Place.START)
        run_id = original(*args)
        faults.arm(Place.START_ACK)
        return run_id


def watch_appends(faults: Faults) -> None:
    """Put places around appends."""

    @around(Spool, "append")
    def _(original: Original, *append: Any) -> None:
        original(*append)
        frame: Frame = append[3]
        if frame.outcome is not None:
            faults.arm(Place.TERMINAL_ACK)

    @around(SqliteStore, "append")
    async def _(
        original: Original, store: SqliteStore, claim: Claim, frame: Frame, private: bytes = b""
    ) -> None:
        if frame.outcome is not None:
            faults.at(Place.TERMINAL)
        elif faults.every(Place.STOLEN):
            faults.mark(Place.STOLEN, claim.run_id)
            await store.release(claim)  # for anyone to claim; the former holder does not know
        await original(store, claim, frame, private)

    @around(Writer, "emit")
    def _(original: Original, writer: Writer, payload: Any, *more: Any, **named: Any) -> None:
        if isinstance(payload, TextDelta):
            faults.at(Place.MID_DELTA)
        original(writer, payload, *more, **named)


def watch_recovery(faults: Faults) -> None:
    """Put places where a process takes up what a former one left."""

    @around(SqliteStore, "__init__")
    def _(original: Original, *args: Any) -> None:
        faults.at(Place.OPEN)  # what a dead process ran is queued again by now
        original(*args)

    @around(claims, "begin_claim")
    def _(original: Original, *args: Any) -> Claim | None:
        claim: Claim | None = original(*args)
        if claim is not None and claim.latest:
            faults.arm(Place.CLAIM)
        return claim

    @around(Journals, "load")
    async def _(original: Original, *args: Any) -> Journals:
        journals: Journals = await original(*args)
        if journals.root.started:
            faults.at(Place.FOLD)
        if journals.root.waits.keys() - journals.root.resumed.keys():
            faults.at(Place.WOKEN)
        return journals


def watch_steps(faults: Faults) -> None:
    """Put places around tools and where steps end."""

    @around(body, "call_tool")
    async def _(original: Callable[..., Awaitable[str]], *args: Any) -> str:
        faults.at(Place.BEFORE_TOOL)
        result = await original(*args)
        faults.at(Place.AFTER_TOOL)
        return result

    @around(Stepping, "_record")
    async def _(original: Original, *args: Any) -> StepOutput:
        output: StepOutput = await original(*args)
        faults.at(Place.STEP_END)
        return output


def watch_waits(faults: Faults, store: type[Any]) -> None:
    """Put places around what a store does for waits."""

    @around(store, "suspend")
    async def _(original: Callable[..., Awaitable[bool]], *args: Any, **named: Any) -> bool:
        faults.at(Place.PARK)
        parked = await original(*args, **named)
        if parked:
            faults.at(Place.PARKED)
        return parked

    @around(store, "command")
    async def _(original: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        if args[-1].kind not in UNSETTLED:
            return await original(*args)
        faults.at(Place.REPLY)
        stands = await original(*args)
        faults.at(Place.ANSWERED)
        return stands


def watch_people(faults: Faults) -> None:
    """Put places around what a run does for its waits, whatever it is stored in."""

    @around(Waiting, "open")
    async def _(original: Callable[..., Awaitable[None]], *args: Any) -> None:
        await original(*args)
        faults.at(Place.ASKED)

    @around(Inbox, "end")
    async def _(original: Callable[..., Awaitable[Answer]], *args: Any) -> Answer:
        if args[-1] == EXPIRED:
            faults.at(Place.EXPIRED)
        return await original(*args)

    @around(People, "decide")
    async def _(original: Callable[..., Awaitable[Decision]], *args: Any) -> Decision:
        decision = await original(*args)
        if decision != UNASKED:
            faults.at(Place.DECIDED)
        return decision

    @around(Waiting, "ending")
    async def _(original: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        answer = await original(*args)
        if answer is None:
            faults.at(Place.TIMER)
        return answer

    @around(RunContext, "wait")
    async def _(original: Callable[..., Awaitable[Any]], *args: Any, **named: Any) -> Any:
        resumed = await original(*args, **named)
        faults.at(Place.RESUMED)
        return resumed


def watch_children(faults: Faults) -> None:
    """Put places around where children begin, continue and end, and where they wait."""

    @around(ChildRuns, "begin")
    async def _(original: Callable[..., Awaitable[Any]], *args: Any, **named: Any) -> Any:
        children, attempt, *_ = args
        recorded = children.recorded(attempt) is not None
        child = await original(*args, **named)
        faults.at(Place.CHILD_AGAIN if recorded else Place.CHILD)
        return child

    @around(RunContext, "finish")
    async def _(original: Callable[..., Awaitable[None]], *args: Any) -> None:
        await original(*args)
        faults.at(Place.CHILD_END)

    @around(Children, "call")
    async def _(original: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        try:
            return await original(*args)
        finally:
            if "/" in args[1]:  # the key of an entry of a batch
                faults.at(Place.ENTRY)

    @around(RunContext, "close")
    def _(original: Original, ctx: RunContext) -> None:
        if ctx._branch.children:  # noqa: SLF001
            faults.at(Place.CHILD_PARK)
        original(ctx)


def watch_apart(faults: Faults) -> None:
    """Put places around runs with logs of their own that other runs start and wait for."""
    for name, place in {"create": Place.INVOKED, "outcome": Place.AWAITED}.items():

        @around(OtherRuns, name)
        async def _(
            original: Callable[..., Awaitable[str]], *args: Any, place: Place = place
        ) -> str:
            found = await original(*args)
            faults.at(place)
            return found
