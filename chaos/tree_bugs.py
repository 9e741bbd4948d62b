"""Bugs seeded on purpose into how runs start others, and what becomes of these."""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from chaos.faults import Bug, Original, around
from chaos.places import Place
from polos_service import waits
from polos_service.runs import answers, child_runs, inbox
from polos_service.runs.context import RunContext
from polos_service.runs.journals import Journals
from polos_service.runs.lineage import Lineage, Origin
from polos_service.runs.totals import Totals
from polos_service.service import OtherRuns
from polos_service.store.sqlite import watching
from polos_service.workflows.children import Children
from polos_service.workflows.independent import Independent
from polos_service.workflows.outcome import deleted_json

EACH = 3
"""A bug that does not show each time shows each so-manieth time."""

Async = Callable[..., Awaitable[Any]]


def lost_child_end() -> None:
    """Forget to record the end of some children."""
    count = itertools.count(1)

    @around(RunContext, "finish")
    async def _(original: Async, ctx: RunContext, payload: Any) -> None:
        if next(count) % EACH:
            await original(ctx, payload)
        else:
            ctx.end_payload = payload


def child_again() -> None:
    """Forget, on recovery, some of the children that the log has."""
    count = itertools.count(1)

    @around(Journals, "child")
    def _(original: Original, *args: Any) -> Any:
        return original(*args) if next(count) % EACH else None


def entry_twice() -> None:
    """Run some entries of batches twice."""
    count = itertools.count(1)

    @around(Children, "call")
    async def _(original: Async, children: Children, key: str, *more: Any) -> Any:
        if "/" in key and next(count) % EACH == 0:
            await original(children, f"{key}/0", *more)
        return await original(children, key, *more)


def guessed_child_id() -> None:
    """Number a child before its first event has its own number."""
    count = itertools.count(1)

    @around(child_runs, "Lineage")
    def _(original: Original, run_id: str, workflow_id: str, origin: Origin | None = None) -> Any:
        if origin is not None and next(count) % EACH == 0:
            root, _, number = run_id.partition(":")
            run_id = f"{root}:{int(number) + 1}"
        lineage: Lineage = original(run_id, workflow_id, origin)
        return lineage


def shared_answer() -> None:
    """Take an answer for each child that waits with the same key."""

    def slot(original: Original, run_id: str, step_key: str) -> str:
        shared: str = original(run_id.partition(":")[0], step_key)
        return shared

    for module in (answers, inbox, waits):
        around(module, "slot")(slot)


def uncounted_child() -> None:
    """Leave out what children used."""

    @around(Totals, "child")
    def _(_original: Original, *_args: Any) -> Totals:
        return Totals()


def orphan() -> None:
    """Leave a child to itself that its parent's code has given up."""

    @around(RunContext, "cancel")
    def _(_original: Original, *_args: Any) -> None:
        pass


def run_again() -> None:
    """Start a run beside the one that the step has started before a crash."""
    count = itertools.count(1)

    @around(Independent, "_run")
    async def _(original: Async, *args: Any) -> Any:
        run = await original(*args)
        step_key = f"{run.parent.step_key}-{os.getpid()}-{next(count)}"
        return replace(run, parent=replace(run.parent, step_key=step_key))


def unheard_end() -> None:
    """Tell nobody that a run has ended."""

    @around(watching, "tell")
    def _(_original: Original, *_args: Any) -> list[str]:
        return []


def other_end() -> None:
    """Tell those who wait for a run what the run before it has come to."""
    ends = [deleted_json("none")]

    @around(OtherRuns, "outcome")
    async def _(original: Async, *args: Any) -> str:
        ends.append(await original(*args))
        return ends[-2]


TREE_BUGS: Mapping[str, Bug] = {
    "lost-child-end": Bug("the end of a child is lost", lost_child_end, Place.KILL),
    "child-again": Bug("a child is started a second time", child_again, Place.CHILD),
    "entry-twice": Bug("an entry of a batch runs twice", entry_twice, Place.ENTRY),
    "guessed-child-id": Bug("a child has another's number", guessed_child_id, Place.KILL),
    "shared-answer": Bug("an answer goes to another child", shared_answer, Place.KILL),
    "uncounted-child": Bug("what a child used is not counted", uncounted_child, Place.KILL),
    "orphan": Bug("a child that was given up does not end", orphan, Place.KILL),
    "run-again": Bug("a step starts a second run", run_again, Place.INVOKED),
    "unheard-end": Bug("the end of an awaited run is lost", unheard_end, Place.KILL),
    "other-end": Bug("another run's end is told", other_end, Place.KILL),
}
"""The bugs by name."""
