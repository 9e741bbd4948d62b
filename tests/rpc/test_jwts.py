"""A service that trusts an issuer of JWTs, as callers see it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from polos.v1 import run_service_pb2 as pb
from polos.v1.run_pb2 import RunState
from polos_client.calls.status import to_error
from polos_client.define.scripted import pause, turn
from polos_client.errors import CallError, PermissionDenied, RunNotFound, Unauthenticated
from polos_service.access import issuer_keys
from tests.support.issuer import AUDIENCE, KEY_SET, Issuer
from tests.support.service import Served, answer_of, scripted, serving, until

FINE = scripted(turn("Hello."), id="fine")
ENDLESS = scripted(turn("Hello", pause()), id="endless")


@pytest.fixture
async def issuer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Issuer]:
    monkeypatch.setattr(issuer_keys, "REFETCH_SECONDS", 0.02)
    async with Issuer() as issuer:
        yield issuer


def trusted(issuer: Issuer, **settings: Any) -> dict[str, Any]:
    """Return the settings of a service that trusts an issuer."""
    return {"jwt_issuer": issuer.url, "jwt_audience": AUDIENCE, "jwt_leeway": 0, **settings}


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a caller with a token."""
    return (("authorization", f"Bearer {token}"),)


async def refusal(call: Any) -> CallError:
    """Return why a call was refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = to_error(caught.value, "the service")
    assert isinstance(error, CallError)
    return error


async def started(served: Served, token: str, agent: str = "fine") -> str:
    """Start a run and return its id."""
    request = pb.CreateRunRequest(agent_id=agent, input="Go.")
    return (await served.runs.CreateRun(request, metadata=bearer(token))).run.run_id


async def read(served: Served, token: str, run_id: str) -> list[Any]:
    """Read a run to its end."""
    request = pb.StreamWorkflowRequest(workflow_run_id=run_id)
    responses = served.runs.StreamWorkflow(request, metadata=bearer(token))
    return [event async for response in responses for event in response.events]


async def test_tokens_separate_projects_and_scopes(tmp_path: Path, issuer: Issuer) -> None:
    mine, theirs = issuer.token(project="mine"), issuer.token(project="theirs")
    reader = issuer.token(project="mine", scope="runs:read")
    async with serving(tmp_path, FINE, **trusted(issuer)) as served:
        run_id = await started(served, mine)
        for token in (mine, reader):
            answer_of(await read(served, token, run_id))
        get = pb.GetRunRequest(run_id=run_id)
        assert isinstance(
            await refusal(served.runs.GetRun(get, metadata=bearer(theirs))), RunNotFound
        )
        denied = await refusal(started(served, reader))
        assert isinstance(denied, PermissionDenied)
        assert denied.metadata["scope"] == "runs:write"
        for metadata, cause in (
            ((), "missing"),
            (bearer("x.y"), "malformed"),
            (bearer(issuer.token(exp=1)), "expired"),
            (bearer(issuer.token(aud="other")), "audience"),
            (bearer(issuer.token(iss="https://other.example")), "issuer"),
            (bearer(issuer.token(project=None)), "claims"),
            (bearer(issuer.sign(issuer.claims(), "made-up")), "unknown"),
        ):
            error = await refusal(served.runs.GetRun(get, metadata=metadata))
            assert isinstance(error, Unauthenticated)
            assert error.metadata["cause"] == cause


async def test_stream_ends_with_its_token_and_the_run_goes_on(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with serving(tmp_path, ENDLESS, **trusted(issuer)) as served:
        run_id = await started(served, issuer.token(), "endless")
        short = issuer.token(exp=time.time() + 2)
        error = await refusal(read(served, short, run_id))
        assert isinstance(error, Unauthenticated)
        assert error.metadata["cause"] == "expired"
        assert error.metadata["run_id"] == run_id
        assert int(error.metadata["last_sequence"]) > 0
        request = pb.GetRunRequest(run_id=run_id)
        run = await served.runs.GetRun(request, metadata=bearer(issuer.token()))
        assert run.run.state == RunState.RUN_STATE_RUNNING


async def test_streams_end_when_the_issuer_withdraws_the_key(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with serving(tmp_path, ENDLESS, **trusted(issuer)) as served:
        token = issuer.token()
        run_id = await started(served, token, "endless")
        create = pb.CreateRunTokenRequest(run_id=run_id)
        created = await served.runs.CreateRunToken(create, metadata=bearer(token))
        requests = pb.StreamWorkflowRequest(workflow_run_id=run_id)
        streams = [
            served.runs.StreamWorkflow(requests, metadata=bearer(one))
            for one in (token, created.token)
        ]
        for stream in streams:
            await stream.read()
        issuer.rotate()
        get = pb.GetRunRequest(run_id=run_id)  # with a new key, which has the keys fetched
        await served.runs.GetRun(get, metadata=bearer(issuer.token()))
        for stream in streams:
            error = await refusal(drained(stream))
            assert error.metadata["cause"] == "revoked"


async def drained(stream: Any) -> None:
    """Read a stream to its end."""
    while await stream.read() is not grpc.aio.EOF:
        pass


async def test_service_is_healthy_without_its_issuer(tmp_path: Path, issuer: Issuer) -> None:
    working, issuer.key_set = issuer.key_set, issuer.answer(status=500)
    async with serving(tmp_path, FINE, **trusted(issuer)) as served:
        health = await served.health().Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        await until(lambda: issuer.fetches[KEY_SET] > 0, "a fetch")
        issuer.key_set = working
        assert await started(served, issuer.token())
