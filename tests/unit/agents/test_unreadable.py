"""Runs whose definition this process cannot read or serve: left to others, and still ended."""

from __future__ import annotations

import json
import time

import pytest
from structlog.testing import capture_logs

from polos.v1.error_pb2 import FailureReason
from polos.v1.run_service_pb2 import CreateRunRequest
from polos_client.errors import RunNotFound
from polos_service.agents.definition import VERSION
from polos_service.api.grpc.requests import run_request
from polos_service.caller import ANONYMOUS
from polos_service.runs import executor as module
from polos_service.runs.context import RunContext
from polos_service.runs.endings import MAX_CLAIMS
from polos_service.store.sqlite import SqliteStore
from tests.support.agents import catalog
from tests.support.runs import Code, FakeClock, done, executing, kinds
from tests.support.service import scripted
from tests.support.stores import all_events, new_run, until

AGENT = scripted("fine")

UNREADABLE = {
    "a kind of a later version": ({"kind": "workflow", "v": 1}, "workflow", "1"),
    "a newer version": (
        {"kind": "agent", "v": VERSION + 1, "agent_id": "demo"},
        "agent",
        str(VERSION + 1),
    ),
    "a version of another form": ({"kind": "agent", "v": "2026-01"}, "agent", "2026-01"),
    "a kind of 600 KB": ({"kind": "k" * 600_000}, "k" * 80, "1"),
    "a version that is a list": ({"v": [1] * 200_000}, "agent", str([1] * 200)[:80]),
}


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pauses so long that a run only ends in time if they are cut short."""
    monkeypatch.setattr(module, "RETRY_PAUSE", 1000.0)
    monkeypatch.setattr(module, "RETRY_PAUSE_LIMIT", 1000.0)


async def queued(store: SqliteStore, definition: object, deadline: int | None = None) -> str:
    """Return a run of the agent with this definition."""
    pinned = json.dumps(definition).encode()
    run = new_run(workflow_id=AGENT.id, definition=pinned, deadline=deadline)
    return await store.create(run)


@pytest.mark.parametrize("case", UNREADABLE)
async def test_it_is_refused_by_name_and_another_process_goes_on(
    store: SqliteStore, patient: None, case: str
) -> None:
    definition, kind, version = UNREADABLE[case]
    with capture_logs() as logs:
        async with executing(store, catalog(AGENT)):
            run_id = await queued(store, definition)
            await until(lambda: bool(logs))
    (line,) = logs
    told = {name: line[name] for name in ("event", "run_id", "kind", "version", "reads")}
    assert told == {
        "event": "run_left",
        "run_id": run_id,
        "kind": kind,
        "version": version,
        "reads": f"agent {VERSION}",
    }
    assert len(line["reason"]) < 500

    async def newer(ctx: RunContext) -> None:
        await ctx.step("a", "tool", done)

    async with executing(store, {AGENT.id: Code(newer)}):
        events = await all_events(store, run_id)
    assert kinds(events) == ["step_start a/1", "step_finish a/1", "workflow_finish"]


async def test_a_provider_that_this_process_lacks_leaves_the_run_to_others(
    store: SqliteStore, patient: None
) -> None:
    request = run_request(ANONYMOUS, CreateRunRequest(agent_id=AGENT.id, input="Hello"))
    definition = json.loads(catalog(AGENT).find(AGENT.id, "default").pin(request))
    with capture_logs() as logs:
        async with executing(store, catalog(AGENT)) as executor:
            run_id = await queued(store, {**definition, "provider": "newer"})
            await until(lambda: bool(logs))
            await executor.cancel("default", run_id)
            assert kinds(await all_events(store, run_id)) == ["run_cancelled"]
    (line,) = logs
    told = {name: line[name] for name in ("event", "run_id", "provider")}
    assert told == {"event": "run_left", "run_id": run_id, "provider": "newer"}
    assert "'newer'" in line["reason"]


async def test_it_is_never_given_up(store: SqliteStore) -> None:
    tries = MAX_CLAIMS * 2
    with capture_logs() as logs:
        async with executing(store, catalog(AGENT), clock=FakeClock()) as executor:
            run_id = await queued(store, {"kind": "agent", "v": VERSION + 1})
            await until(lambda: [line["event"] for line in logs].count("run_left") >= tries)
            await executor.cancel("default", run_id)
            assert kinds(await all_events(store, run_id)) == ["run_cancelled"]


async def test_it_is_cancelled_and_deleted(store: SqliteStore, patient: None) -> None:
    with capture_logs() as logs:
        async with executing(store, catalog(AGENT)) as executor:
            run_id = await queued(store, {"kind": "workflow", "v": 1})
            await until(lambda: bool(logs))
            await executor.cancel("default", run_id)
            assert kinds(await all_events(store, run_id)) == ["run_cancelled"]
    await store.delete("default", run_id)
    with pytest.raises(RunNotFound):
        await store.get("default", run_id)


async def test_it_ends_at_its_deadline(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_PAUSE", 0.01)
    deadline = time.time_ns() + 300_000_000
    with capture_logs():
        async with executing(store, catalog(AGENT)):
            run_id = await queued(store, {"kind": "agent", "v": VERSION + 1}, deadline)
            (end,) = await all_events(store, run_id)
    assert end.error.reason == FailureReason.FAILURE_REASON_RUN_TIMEOUT


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b"[]", b"null", b'{"kind": "agent", "v": 1}', b"[" * 600_000, b"\xff" * 600_000],
    ids=range(7),
)
async def test_a_damaged_definition_ends_its_run(store: SqliteStore, damaged: bytes) -> None:
    with capture_logs() as logs:
        async with executing(store, catalog(AGENT)):
            run_id = await store.create(new_run(workflow_id=AGENT.id, definition=damaged))
            (end,) = await all_events(store, run_id)
    assert end.error.reason == FailureReason.FAILURE_REASON_INTERNAL
    assert [line["event"] for line in logs] == ["run_failed"]
