"""Waits of a run whose store fails for a moment, or whose claim is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from polos_client.errors import StoreUnavailable
from polos_service.errors import Fenced
from polos_service.runs import executor
from polos_service.runs.context import RunContext
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import opened
from tests.unit.runs.test_waits import SUSPEND, YES, answer, ended, is_open, names, running, until

Call = Callable[..., Awaitable[Any]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "RETRY_PAUSE", 0.01)


class Asking:
    """The code of a run that asks a question, and notes what it sees."""

    def __init__(self) -> None:
        self.begun = 0
        self.seen: list[str] = []

    async def run(self, ctx: RunContext) -> None:
        self.begun += 1
        try:
            self.seen.append((await ctx.wait("ask", SUSPEND)).data_json)
        except Exception as error:
            self.seen.append(repr(error))
            raise


def failing_once(monkeypatch: pytest.MonkeyPatch, name: str) -> asyncio.Event:
    """Let the first call of a method of the store fail; return what is set once it has."""
    original: Call = getattr(SqliteStore, name)
    failed = asyncio.Event()

    async def call(*args: Any) -> Any:
        if failed.is_set():
            return await original(*args)
        failed.set()
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(SqliteStore, name, call)
    return failed


def failing_later(monkeypatch: pytest.MonkeyPatch, error: Exception) -> asyncio.Event:
    """Let the store fail to say what has come for a run, when what is returned is set."""
    original: Call = SqliteStore.commands
    fails = asyncio.Event()

    async def commands(*args: Any) -> Any:
        look = asyncio.ensure_future(original(*args))
        failing = asyncio.create_task(fails.wait())
        try:
            await asyncio.wait({look, failing}, return_when=asyncio.FIRST_COMPLETED)
            if not failing.done():
                return look.result()
            fails.clear()
            raise error
        finally:
            look.cancel()
            failing.cancel()

    monkeypatch.setattr(SqliteStore, "commands", commands)
    return fails


@pytest.mark.parametrize("error", [StoreUnavailable("away"), Fenced("lost")], ids=repr)
async def test_a_claim_that_ends_early_leaves_the_waits_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    code, fails = Asking(), failing_later(monkeypatch, error)
    async with opened(tmp_path) as store, running(store, code.run) as run_id:
        await until(lambda: is_open(store, run_id, ["ask"]))
        fails.set()
        if isinstance(error, StoreUnavailable):  # else somebody else holds the claim

            async def again() -> bool:
                return code.begun == 2

            await until(again)
        assert await is_open(store, run_id, ["ask"])
        assert await answer(store, run_id, "ask") == YES.to(run_id, "ask")
        if isinstance(error, StoreUnavailable):
            events = await ended(store, run_id)
            assert names(events) == ["suspended", "resumed", "workflow_finish"]
            assert events[1].resumed.data_json == YES.data_json


@pytest.mark.parametrize("name", ["open_wait", "close_wait"])
async def test_the_code_does_not_see_that_the_store_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    code, failed = Asking(), failing_once(monkeypatch, name)
    async with opened(tmp_path) as store, running(store, code.run) as run_id:
        await answer(store, run_id, "ask")
        events = await ended(store, run_id)
    assert failed.is_set()
    assert names(events) == ["suspended", "resumed", "workflow_finish"]
    assert code.seen == [YES.data_json]
