"""The limit of a run's log: who is refused, and how the run ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import RunState
from polos_service.errors import LogFull, StepError
from polos_service.quotas import Quota, Quotas
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.budget import Budgets
from polos_service.runs.clock import SystemClock
from polos_service.runs.context import RunContext
from polos_service.runs.executor import Executor
from polos_service.runs.frame import decode
from polos_service.runs.journals import Journals
from polos_service.runs.writer import Writer
from polos_service.store import Claim
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import DONE, Code, opened, text
from tests.support.stores import ALL, claimed, history, new_run, soon


async def events(store: SqliteStore, run_id: str) -> list[Event]:
    found = await store.read("default", run_id, 0, ALL)
    return [event for frame in found.frames for event in decode(frame.data)]


def writer(store: SqliteStore, claim: Claim, **limits: int) -> Writer:
    return Writer(store, claim, SystemClock(), **limits)


async def test_what_waits_counts_and_the_terminal_event_always_fits(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        claim = await claimed(store)
        writing = writer(store, claim, log_limit=1000)
        with pytest.raises(LogFull):
            for _ in range(100):  # in one turn of the loop: nothing is stored meanwhile
                writing.emit(text("x" * 50), b"private")
        await writing.flush()
        with pytest.raises(LogFull):
            writing.emit(text("x" * 50), b"private")
        writing.emit(DONE, outcome=RunState.RUN_STATE_COMPLETED)
        await soon(writing.ended)
        told = await events(store, claim.run_id)
        assert told[-1].terminal
        assert sum(one.ByteSize() for one in told[:-1]) <= 1000


async def test_what_the_log_has_counts_when_it_is_taken_up_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        claim = await claimed(store)
        first = writer(store, claim, log_limit=1000)
        first.emit(text("x" * 600), b"private")
        await first.flush()
        await store.release(claim)
        again = await store.claim_run("default", claim.run_id)
        assert again is not None
        size = (await Journals.load(claim.run_id, store.history(again))).size
        assert size == sum(len(e.data) + len(e.private) for e in await history(store, again)) > 600
        second = writer(store, again, log_limit=1000, size=size)
        with pytest.raises(LogFull):
            second.emit(text("x" * 600))
        second.close()


@pytest.mark.parametrize("limit", [0, 300, 2000])
async def test_code_that_ignores_the_failure_does_not_keep_the_run_from_ending(
    tmp_path: Path, limit: int
) -> None:
    async def speak(attempt: Attempt) -> StepOutput:
        await attempt.emit(text("x" * 100))
        return StepOutput(result_json='"fine"')

    async def ignores(ctx: RunContext) -> None:
        for number in range(100):
            try:
                await ctx.step(f"step:{number}", "tool", speak)
            except StepError:
                continue

    async with opened(tmp_path) as store:
        clock = SystemClock()
        budgets = Budgets(Quotas({"*": Quota(log_bytes=limit)}), store.usage, clock)
        executor = Executor(store, {"agent": Code(ignores)}, clock, 1, budgets)
        executor.start()
        run = new_run()
        await store.create(run)
        while not (told := await events(store, run.run_id)) or not told[-1].terminal:
            await soon(store.wait("default", run.run_id, len(told)))
        await executor.stop(0)
        assert told[-1].error.reason == FailureReason.FAILURE_REASON_LOG_FULL
