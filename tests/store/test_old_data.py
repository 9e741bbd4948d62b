"""Stores written by earlier versions open today, and their runs continue."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import tarfile
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from polos import Agent, Tool, WorkflowContext, scripted, tool
from polos.v1 import run_service_pb2 as pb
from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import Run, RunState
from polos_service.runs.clock import SystemClock
from tests.data import write_old_store
from tests.data.app import Told, told_enough
from tests.support.nats import CLAIM_TIMEOUT, NatsServer
from tests.support.service import Served, serving
from tests.support.wire import event_bytes

DATA = Path(write_old_store.__file__).parent
CHANGELOG = DATA.parents[1] / "CHANGELOG.md"

KINDS = tuple(write_old_store.KINDS)
"""The kinds of stores."""

STORES = sorted(path.stem for kind in KINDS for path in DATA.glob(f"{kind}-*.json"))
"""Kind and version of each store, for example `jetstream-0.1.0`."""

LATER = timedelta(days=10)
"""Age of a store by the clock of the tests. The real age comes to exceed 30 days, the timeout of
the runs."""

ENDED = ("finished", "failed", "cancelled")


@dataclass(frozen=True)
class Old:
    """A copy of a store.

    Attributes:
        folder: holds the copy.
        settings: lead a service to the copy; see `polos_service.config`.
        written: when the store was written.
        runs: the description of each run, by name.
        calls: the tools that were called by services of today, in order.

    """

    folder: Path
    settings: dict[str, Any]
    written: datetime
    runs: dict[str, Any]
    calls: list[str] = field(default_factory=list)

    def run_id(self, name: str) -> str:
        """Return the id of the run of this name."""
        return str(self.runs[name]["run"]["runId"])

    def serving(self, *names: str) -> AbstractAsyncContextManager[Served]:
        """Run a service of today with the agents of these names."""
        return serving(self.folder, *(self._agent(name) for name in names), **self.settings)

    def _agent(self, name: str) -> Agent:
        """Return an agent as a newer app defines it, with another script."""
        model = scripted.script("No old run says this.")
        stops = [told_enough(Told(times=1000))]
        return Agent(name, "scripted", model, tools=self._tools(), stop_conditions=stops)

    def _tools(self) -> list[Tool]:
        @tool
        async def jot(text: str) -> str:
            self.calls.append("jot")
            return f"{text} is noted"

        @tool
        async def recall(ctx: WorkflowContext) -> dict[str, Any]:
            self.calls.append("recall")
            return {"session": ctx.session_id, "user": ctx.user_id, "state": ctx.initial_state}

        @tool
        async def hold() -> str:
            self.calls.append("hold")
            return ""

        return [jot, recall, hold]


@pytest.fixture(params=STORES)
def old(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Old]:
    """Yield a copy of a store; the services' clock starts LATER than it was written."""
    with copied(request.param, DATA, tmp_path) as old:
        shift = round((old.written + LATER).timestamp() * 1e9) - time.time_ns()
        monkeypatch.setattr(SystemClock, "now", lambda _: time.time_ns() + shift)
        yield old


@contextmanager
def copied(name: str, source: Path, folder: Path) -> Iterator[Old]:
    """Copy a store to `folder`; a NATS server runs on the copy of a JetStream store."""
    holds = json.loads((source / f"{name}.json").read_text())
    written = datetime.fromisoformat(holds["written"])
    if name.startswith("store"):
        shutil.copyfile(source / f"{name}.db", folder / "runs.db")
        yield Old(folder, {}, written, holds["runs"])
        return
    with tarfile.open(source / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    with NatsServer(folder) as server:
        settings = {"store": server.url, "claim_timeout": CLAIM_TIMEOUT}
        yield Old(folder, settings, written, holds["runs"])


def test_every_version_in_the_changelog_has_its_stores() -> None:
    released = re.findall(r"^## \[(\d\S*)\]", CHANGELOG.read_text(), re.MULTILINE)
    assert "0.1.0" in released
    assert set(STORES) >= {f"{kind}-{one}" for one in released for kind in KINDS}


async def test_all_runs_are_listed(old: Old) -> None:
    async with old.serving() as served:
        runs = {run["runId"]: run for run in await listed(served)}
        of_session = await listed(served, session_id="session 1", user_id="user 1")
        completed = await listed(served, state=RunState.RUN_STATE_COMPLETED)
    assert runs.keys() == {old.run_id(name) for name in old.runs}
    for name, one in old.runs.items():
        changed = {"outcome", "toolResults"} | (set() if name in ENDED else {"state"})
        run = runs[old.run_id(name)]
        assert run == run | {k: v for k, v in one["run"].items() if k not in changed}
        assert name in ENDED or run["state"] in {"RUN_STATE_QUEUED", "RUN_STATE_RUNNING"}
    assert [run["runId"] for run in of_session] == [old.run_id("configured")]
    assert [run["runId"] for run in completed] == [old.run_id("finished")]


@pytest.mark.parametrize("name", ENDED)
async def test_an_ended_run_is_as_it_was(old: Old, name: str) -> None:
    run_id, then = old.run_id(name), old.runs[name]
    async with old.serving() as served:
        run = MessageToDict(await got(served, run_id))
        log = await read(served, run_id)
        rest = await read(served, run_id, after=2)
    assert run == run | then["run"]
    assert (len(log), digest(log)) == (then["events"], then["sha256"])
    assert rest == log[2:]


async def test_every_run_has_its_input(old: Old) -> None:
    sent = {
        one["request"].get("input") or json.loads(one["request"]["inputMessagesJson"])[0]["content"]
        for one in old.runs.values()
    }
    async with old.serving() as served:
        assert not any("input" in run for run in await listed(served))
        given = {await served.client.get_input(old.run_id(name)) for name in old.runs}
    assert given == sent


@pytest.mark.parametrize("name", ["finished", "configured"])
async def test_a_request_id_returns_the_run_that_it_has_started(old: Old, name: str) -> None:
    request = ParseDict(old.runs[name]["request"], pb.CreateRunRequest())
    async with old.serving(name) as served:
        assert (await served.runs.CreateRun(request)).run.run_id == old.run_id(name)
        request.options.user_id = "another"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await served.runs.CreateRun(request)
    assert refused.value.code() == grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize("name", ["running", "configured", "queued"])
async def test_an_unfinished_run_continues(old: Old, name: str) -> None:
    run_id, then = old.run_id(name), old.runs[name]
    async with old.serving(name) as served:
        log = await read(served, run_id)
        run = await got(served, run_id)
    assert digest(log[: then["events"]]) == then["sha256"]
    events = [Event.FromString(one) for one in log]
    assert [event.sequence for event in events] == list(range(1, len(log) + 1))
    assert [event.WhichOneof("payload") for event in events if event.terminal] == ["agent_finish"]
    assert text_of(events) == then["text"]
    assert [one.tool_call.name for one in run.tool_results] == then["tools"]
    before = [one["toolCall"]["name"] for one in then["run"].get("toolResults", [])]
    assert before + old.calls == then["tools"]
    assert run.state == RunState.RUN_STATE_COMPLETED
    ended = events[-1].create_time.ToSeconds() - old.written.timestamp()
    assert 0 <= ended - LATER.total_seconds() < timedelta(hours=1).total_seconds()


async def test_a_continued_run_has_the_session_user_and_state_it_was_started_with(old: Old) -> None:
    async with old.serving("configured") as served:
        run_id = old.run_id("configured")
        await read(served, run_id)
        results = [one.result_json for one in (await got(served, run_id)).tool_results]
    told = {"session": "session 1", "user": "user 1", "state": {"city": "Tokyo"}}
    assert [json.loads(one) for one in results] == [told, told]


async def test_a_queued_run_waits_until_its_agent_is_loaded(old: Old) -> None:
    run_id = old.run_id("queued")
    async with old.serving("running") as served:
        await read(served, old.run_id("running"))
        assert (await got(served, run_id)).state == RunState.RUN_STATE_QUEUED
    async with old.serving("queued") as served:
        await read(served, run_id)
        assert (await got(served, run_id)).state == RunState.RUN_STATE_COMPLETED


async def test_a_run_that_was_being_cancelled_ends_cancelled(old: Old) -> None:
    run_id, then = old.run_id("cancelling"), old.runs["cancelling"]
    async with old.serving("cancelling") as served:
        log = await read(served, run_id)
        run = await got(served, run_id)
    assert digest(log[: then["events"]]) == then["sha256"]
    assert Event.FromString(log[-1]).WhichOneof("payload") == "run_cancelled"
    assert run.state == RunState.RUN_STATE_CANCELLED
    assert old.calls == []


async def test_a_queued_run_can_be_cancelled(old: Old) -> None:
    run_id = old.run_id("queued")
    async with old.serving() as served:
        await served.runs.CancelRun(pb.CancelRunRequest(run_id=run_id))
        log = await read(served, run_id)
    assert Event.FromString(log[-1]).WhichOneof("payload") == "run_cancelled"


async def test_an_ended_run_can_be_deleted(old: Old) -> None:
    run_id = old.run_id("finished")
    async with old.serving() as served:
        await served.runs.DeleteRun(pb.DeleteRunRequest(run_id=run_id))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await got(served, run_id)
        left = {run["runId"] for run in await listed(served)}
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert left == {old.run_id(name) for name in old.runs} - {run_id}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_next_release_can_write_its_stores(tmp_path: Path, kind: str) -> None:
    await asyncio.to_thread(write_old_store.write, kind, tmp_path)
    with copied(f"{kind}-{version('polos-grpc')}", tmp_path, tmp_path) as old:
        async with old.serving("queued") as served:
            log = await read(served, old.run_id("queued"))
            runs = await listed(served)
    assert text_of([Event.FromString(one) for one in log]) == old.runs["queued"]["text"]
    assert len(runs) == len(old.runs)


async def listed(served: Served, **filters: Any) -> list[dict[str, Any]]:
    """Return the runs that match the filters, as JSON."""
    answer = await served.runs.ListRuns(pb.ListRunsRequest(page_size=1000, **filters))
    return [MessageToDict(run) for run in answer.runs]


async def got(served: Served, run_id: str) -> Run:
    """Return a run."""
    return (await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run


async def read(served: Served, run_id: str, after: int = 0) -> list[bytes]:
    """Return the bytes of each event after a cursor, to the end of the run."""
    return event_bytes(b"".join([piece async for piece in served.raw(run_id, after)]))


def digest(log: list[bytes]) -> str:
    """Return the SHA-256 of a log."""
    return hashlib.sha256(b"".join(log)).hexdigest()


def text_of(events: list[Event]) -> str:
    """Return the text of a run, without what retries took back."""
    valid = {one.step_retry.step_key: one.step_retry.attempt for one in events}
    deltas = [one.text_delta for one in events if one.HasField("text_delta")]
    return "".join(one.content for one in deltas if one.attempt >= valid.get(one.step_key, 0))
