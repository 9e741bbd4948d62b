"""Credentials at several replicas on one NATS."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from polos.v1 import agent_service_pb2 as agents_pb
from polos.v1 import run_service_pb2 as pb
from polos_client.calls.status import to_error
from polos_client.define.scripted import pause, say, turn
from polos_client.errors import StoreUnavailable, Unauthenticated
from polos_service.access import keyring, open_streams
from polos_service.access.keys import ENTRY, Key, encode, new_text
from polos_service.store.access import AccessEntry
from tests.support.access import OPERATOR, Header, bearer, guarded
from tests.support.nats import NatsServer
from tests.support.service import BOUND, Served, scripted, until

WAITS = scripted(turn(say("Wait."), pause(), say("Done.")))

LIST = agents_pb.ListAgentsRequest()


async def answer(served: Served, header: Header) -> Exception | None:
    """Return the error of a call that does not need the store; None if it succeeds."""
    try:
        await served.agents.ListAgents(LIST, metadata=header)
    except grpc.aio.AioRpcError as error:
        return to_error(error, "the service")
    return None


def test_two_looks_find_a_revocation_in_time() -> None:
    assert keyring.PERIOD + open_streams.PERIOD <= 2.5, "half of the 5 s that are promised"


async def test_a_revocation_reaches_the_other_replica_and_its_streams(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with (
        guarded(tmp_path, WAITS, store=nats_server.url) as (one, admin),
        guarded(tmp_path, WAITS, store=nats_server.url) as (other, _),
    ):
        key = await admin.key()
        header = bearer(key.api_key)

        async def known() -> bool:
            return await answer(other, header) is None

        await until(known, "the other replica has the key")
        create = pb.CreateRunRequest(agent_id=WAITS.id, input="Go.", streaming=True)
        run_id = (await one.runs.CreateRun(create, metadata=header)).run.run_id
        stream = other.runs.StreamWorkflow(
            pb.StreamWorkflowRequest(workflow_run_id=run_id), metadata=header
        )
        assert await stream.read()
        await admin.revoke(key)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(drained(stream), BOUND)
        refused = to_error(caught.value, "the service")
        assert isinstance(refused, Unauthenticated)
        assert (refused.metadata["cause"], refused.metadata["run_id"]) == ("revoked", run_id)
        for served in (one, other):
            refusal = await answer(served, header)
            assert isinstance(refusal, Unauthenticated)
            assert refusal.metadata == {"cause": "revoked"}


async def test_a_replica_that_writes_misses_nothing_that_another_one_wrote(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with (
        guarded(tmp_path, WAITS, store=nats_server.url) as (_, admin),
        guarded(tmp_path, WAITS, store=nats_server.url) as (other, _),
    ):
        key = await admin.key()
        ring = other.service._access.keys
        await ring.refresh()
        await admin.revoke(key)
        text = new_text()
        made = Key(id=text.id, name="", project="p", scopes=frozenset(), hash=text.hash, created=1)
        name, value = ENTRY + made.id, encode(made)
        revision = await other.service._store.access.put(name, value, 0)
        ring.take(AccessEntry(name=name, value=value, revision=revision))
        await ring.refresh()
        refused = await answer(other, bearer(key.api_key))
        assert isinstance(refused, Unauthenticated)
        assert refused.metadata == {"cause": "revoked"}


async def drained(stream: Any) -> None:
    """Read a stream to its end."""
    while await stream.read() is not grpc.aio.EOF:
        pass


async def test_a_run_token_is_good_at_every_replica(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with (
        guarded(tmp_path, WAITS, store=nats_server.url) as (one, _),
        guarded(tmp_path, WAITS, store=nats_server.url) as (other, _),
    ):
        create = pb.CreateRunRequest(agent_id=WAITS.id, input="Go.")
        run_id = (await one.runs.CreateRun(create, metadata=OPERATOR)).run.run_id
        ask = pb.CreateRunTokenRequest(run_id=run_id)
        tokens = await asyncio.gather(
            *(served.runs.CreateRunToken(ask, metadata=OPERATOR) for served in (one, other))
        )
        for made in tokens:
            for served in (one, other):
                get = pb.GetRunRequest(run_id=run_id)
                found = await served.runs.GetRun(get, metadata=bearer(made.token))
                assert found.run.run_id == run_id


async def test_known_keys_are_good_for_a_while_when_nats_is_away(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(tmp_path, WAITS, store=nats_server.url) as (served, admin):
        header = await admin.header()
        nats_server.tell(signal.SIGSTOP)
        assert await answer(served, header) is None
        monkeypatch.setattr(keyring, "STALE", 0.1)

        async def stale() -> bool:
            return isinstance(await answer(served, header), StoreUnavailable)

        async def good() -> bool:
            return await answer(served, header) is None

        await until(stale, "the key is no longer verified")
        assert await answer(served, OPERATOR) is None, "the bootstrap key is not in the store"
        monkeypatch.setattr(keyring, "STALE", 30.0)
        nats_server.tell(signal.SIGCONT)
        await until(good, "the key is good again")
