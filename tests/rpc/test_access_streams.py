"""Streams whose credentials end, and what a caller without any can make the service spend."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from polos.v1 import admin_service_pb2 as admin_pb
from polos.v1 import run_service_pb2 as pb
from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import RunState
from polos_client.calls.status import to_error
from polos_client.define.scripted import pause, say, turn
from polos_client.errors import CallError, StoreUnavailable, Unauthenticated
from polos_service.access import keyring
from polos_service.access.keys import new_text
from polos_service.store.access import AccessEntry
from polos_service.store.sqlite.access import Access
from tests.support.access import OPERATOR, Header, bearer, guarded, refusal
from tests.support.service import BOUND, Served, scripted, until

WAITS = scripted(turn(say("Wait."), pause(), say("Done.")))

FINE = scripted("fine", id="fine")


class Reader:
    """Reads a run in a task, until the stream ends."""

    def __init__(self, served: Served, run_id: str, header: Header) -> None:
        self.events: list[Event] = []
        request = pb.StreamWorkflowRequest(workflow_run_id=run_id)
        self._call = served.runs.StreamWorkflow(request, metadata=header)
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for response in self._call:
            self.events += response.events

    async def attached(self) -> None:
        """Wait until the text before the pause is there."""
        await until(lambda: len(self.events) >= 3, "the run says something")

    async def refused(self) -> CallError:
        """Return the error that ends the stream."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(self._task, BOUND)
        error = to_error(caught.value, "the service")
        assert isinstance(error, CallError)
        return error

    def open(self) -> bool:
        """Return whether the stream goes on."""
        return not self._task.done()

    def close(self) -> None:
        """Hang up."""
        self._call.cancel()


async def start(served: Served, header: Header) -> str:
    """Start the run that waits."""
    request = pb.CreateRunRequest(agent_id=WAITS.id, input="Go.", streaming=True)
    return (await served.runs.CreateRun(request, metadata=header)).run.run_id


async def state(served: Served, run_id: str) -> int:
    """Return the state of a run."""
    answer = await served.runs.GetRun(pb.GetRunRequest(run_id=run_id), metadata=OPERATOR)
    return answer.run.state


async def test_a_revoked_key_ends_its_streams_and_no_others(tmp_path: Path) -> None:
    async with guarded(tmp_path, WAITS) as (served, admin):
        first, second = await admin.key(), await admin.key()
        run_id = await start(served, bearer(first.api_key))
        reader = Reader(served, run_id, bearer(first.api_key))
        other = Reader(served, run_id, bearer(second.api_key))
        await reader.attached()
        await other.attached()
        await admin.revoke(first)
        refused = await reader.refused()
        assert isinstance(refused, Unauthenticated)
        assert refused.metadata == {
            "cause": "revoked",
            "run_id": run_id,
            "last_sequence": str(reader.events[-1].sequence),
        }
        assert other.open()
        assert await state(served, run_id) == RunState.RUN_STATE_RUNNING
        other.close()


async def test_an_expired_key_ends_its_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = 0.0
    clock = SimpleNamespace(time=lambda: time.time() + later, monotonic=time.monotonic)
    monkeypatch.setattr(keyring, "time", clock)
    async with guarded(tmp_path, WAITS) as (served, admin):
        ends = Timestamp()
        ends.FromSeconds(int(time.time()) + 3600)
        key = await admin.key(expire_time=ends)
        run_id = await start(served, bearer(key.api_key))
        reader = Reader(served, run_id, bearer(key.api_key))
        await reader.attached()
        later = 3600.0
        refused = await reader.refused()
        assert refused.metadata["cause"] == "expired"
        assert refused.metadata["last_sequence"] == str(reader.events[-1].sequence)
        assert await state(served, run_id) == RunState.RUN_STATE_RUNNING


async def test_a_run_token_reads_one_run_until_its_creator_is_revoked(tmp_path: Path) -> None:
    async with guarded(tmp_path, WAITS) as (served, admin):
        key = await admin.key()
        run_id = await start(served, bearer(key.api_key))
        ask = pb.CreateRunTokenRequest(run_id=run_id)
        made = await served.runs.CreateRunToken(ask, metadata=bearer(key.api_key))
        token = bearer(made.token)
        reader = Reader(served, run_id, token)
        await reader.attached()
        await served.runs.GetRun(pb.GetRunRequest(run_id=run_id), metadata=token)
        other = pb.GetRunRequest(run_id=await start(served, OPERATOR))
        hidden = await refusal(served.runs.GetRun(other, metadata=token))
        missing = await refusal(served.runs.GetRun(pb.GetRunRequest(run_id="none"), metadata=token))
        assert str(hidden).replace(other.run_id, "none") == str(missing)
        await admin.revoke(key)
        assert (await reader.refused()).metadata["cause"] == "revoked"
        again = await refusal(served.runs.GetRun(pb.GetRunRequest(run_id=run_id), metadata=token))
        assert again.metadata == {"cause": "revoked"}


async def test_all_run_tokens_end_together(tmp_path: Path) -> None:
    async with guarded(tmp_path, WAITS) as (served, admin):
        run_id = await start(served, OPERATOR)
        ask = pb.CreateRunTokenRequest(run_id=run_id)
        made = await served.runs.CreateRunToken(ask, metadata=OPERATOR)
        reader = Reader(served, run_id, bearer(made.token))
        await reader.attached()
        await admin.stub.RevokeRunTokens(admin_pb.RevokeRunTokensRequest(), metadata=OPERATOR)
        assert (await reader.refused()).metadata["cause"] == "revoked"
        get = served.runs.GetRun(pb.GetRunRequest(run_id=run_id), metadata=bearer(made.token))
        assert (await refusal(get)).metadata == {"cause": "unknown"}
        made = await served.runs.CreateRunToken(ask, metadata=OPERATOR)
        await served.runs.GetRun(pb.GetRunRequest(run_id=run_id), metadata=bearer(made.token))


@pytest.mark.parametrize("seconds", [0, 86_401])
async def test_a_run_token_lasts_from_a_second_to_a_day(tmp_path: Path, seconds: int) -> None:
    async with guarded(tmp_path, WAITS) as (served, _):
        ask = pb.CreateRunTokenRequest(run_id=await start(served, OPERATOR))
        ask.lifetime.FromSeconds(seconds)
        refused = await refusal(served.runs.CreateRunToken(ask, metadata=OPERATOR))
        assert str(refused) == f"lifetime is {seconds} s, not from 1 s to 24 h"


async def test_a_run_token_ends_with_the_key_that_created_it(tmp_path: Path) -> None:
    async with guarded(tmp_path, WAITS) as (served, admin):
        ends = Timestamp()
        ends.FromSeconds(int(time.time()) + 600)
        key = await admin.key(expire_time=ends)
        header = bearer(key.api_key)
        ask = pb.CreateRunTokenRequest(run_id=await start(served, header))
        made = await served.runs.CreateRunToken(ask, metadata=header)
        assert made.expire_time == ends


async def test_bad_keys_cost_the_store_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    async def entries(*_: Any) -> list[AccessEntry]:
        nonlocal looks
        looks += 1
        return []

    monkeypatch.setattr(keyring, "PERIOD", 3600)
    async with guarded(tmp_path, FINE) as (served, _):
        monkeypatch.setattr(Access, "entries", entries)
        for _ in range(5):
            calls: list[Any] = [
                served.runs.GetRun(pb.GetRunRequest(run_id="x"), metadata=bearer(new_text().full()))
                for _ in range(20)
            ]
            for call in calls:
                assert (await refusal(call)).metadata == {"cause": "unknown"}
        assert not looks


async def test_a_caller_without_credentials_is_refused_before_the_request_is_sent(
    tmp_path: Path,
) -> None:
    async with guarded(tmp_path, FINE, max_streams=1) as (served, _):
        channel: Any = served.channel
        for path in ("StreamRun", "CreateRun"):
            call = channel.stream_stream(f"/polos.v1.RunService/{path}")(metadata=bearer("polos_x"))
            assert await call.code() == grpc.StatusCode.UNAUTHENTICATED  # nothing was written
        stream = served.runs.StreamRun(
            pb.StreamRunRequest(agent_id=FINE.id, input="Go."), metadata=OPERATOR
        )
        assert [one async for one in stream], "the only place for a stream is free again"


async def test_known_keys_are_good_for_a_while_without_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> Any:
        raise StoreUnavailable("It is away.")

    monkeypatch.setattr(keyring, "PERIOD", 0.01)
    async with guarded(tmp_path, FINE) as (served, admin):
        header = await admin.header()
        monkeypatch.setattr(Access, "entries", away)
        list_runs = pb.ListRunsRequest()
        assert not (await served.runs.ListRuns(list_runs, metadata=header)).runs
        monkeypatch.setattr(keyring, "STALE", 0.05)
        refused: list[CallError] = []

        async def stale() -> bool:
            try:
                await served.runs.ListRuns(list_runs, metadata=header)
            except grpc.aio.AioRpcError as error:
                found = to_error(error, "the service")
                assert isinstance(found, CallError)
                refused.append(found)
            return bool(refused)

        await until(stale, "keys are no longer verified")
        assert isinstance(refused[0], StoreUnavailable)
        assert refused[0].retry_after == 1.0
        unknown = await refusal(served.runs.ListRuns(list_runs, metadata=bearer(new_text().full())))
        assert isinstance(unknown, StoreUnavailable)
        assert not (await served.runs.ListRuns(list_runs, metadata=OPERATOR)).runs
