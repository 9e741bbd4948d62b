"""Run tokens: whoever has one reads one run, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from polos_client.calls import events
from polos_client.calls.client import PolosClient
from polos_client.define.scripted import turn
from polos_client.errors import InvalidRequest, PermissionDenied, RunNotFound
from tests.support.family import DEFINITIONS
from tests.support.issuer import AUDIENCE, Issuer
from tests.support.service import scripted, serving, until

FINE = scripted(turn("Hello."), id="fine")


async def test_token_reads_its_run_and_nothing_else(tmp_path: Path) -> None:
    async with (
        Issuer() as issuer,
        serving(tmp_path, FINE, jwt_issuer=issuer.url, jwt_audience=AUDIENCE) as served,
    ):
        address = f"127.0.0.1:{served.service.port}"
        owner = PolosClient(address, issuer.token(scope="runs:read runs:write agents:read"))
        first, second = [await FINE.run(owner, "Go.") for _ in range(2)]
        token = await owner.run_token(first.agent_run_id, seconds=60)
        reader = PolosClient(address, token)
        run = await reader.get_execution(first.agent_run_id)
        assert run["status"] == "completed"
        read = events.stream_workflow(reader, workflow_run_id=first.agent_run_id)
        assert [event async for event in read][-1].event_type == "agent_finish"
        with pytest.raises(RunNotFound):
            await reader.get_execution(second.agent_run_id)
        for call in (
            reader.cancel_execution(first.agent_run_id),
            reader.delete_run(first.agent_run_id),
            reader.run_token(first.agent_run_id),
            reader.list_agents(),
            FINE.run(reader, "Go."),
            anext(reader.list_runs()),
        ):
            with pytest.raises(PermissionDenied):
                await call
        with pytest.raises(RunNotFound):
            await owner.run_token("01890000-0000-7000-8000-000000000000")
        for client in (owner, reader):
            await client.close()


@pytest.mark.parametrize("seconds", [0, -1, 86_401, float("nan"), float("inf")])
async def test_time_is_bounded(seconds: float) -> None:
    with pytest.raises(InvalidRequest, match="must be from 1 to 86400"):
        await PolosClient("127.0.0.1:1").run_token("run", seconds)


async def test_token_of_a_root_reads_its_children_and_that_of_a_child_only_itself(
    tmp_path: Path,
) -> None:
    async with (
        Issuer() as issuer,
        serving(tmp_path, *DEFINITIONS, jwt_issuer=issuer.url, jwt_audience=AUDIENCE) as served,
    ):
        address = f"127.0.0.1:{served.service.port}"
        owner = PolosClient(address, issuer.token(scope="runs:read runs:write runs:resume"))
        handle = await owner.invoke("top")
        waits: dict[int, str] = {}

        async def both() -> bool:
            waits.update({one.data["n"]: one.run_id async for one in owner.list_waits()})
            return len(waits) == 2

        await until(both, "both children ask")
        child, other = waits[0], waits[1]
        of_root = PolosClient(address, await owner.run_token(handle.id))
        of_child = PolosClient(address, await owner.run_token(child))
        for reader in (of_root, of_child):
            assert (await reader.get_execution(child))["status"] == "waiting"
            first = await anext(events.stream_workflow(reader, workflow_run_id=child))
            assert first.event_type == "workflow_start"
            with pytest.raises(PermissionDenied):
                await reader.cancel_execution(child)
        assert (await of_root.get_execution(other))["status"] == "waiting"
        for hidden in (other, handle.id, f"{handle.id}x:3"):
            with pytest.raises(RunNotFound):
                await of_child.get_execution(hidden)
        for client in (owner, of_root, of_child):
            await client.close()
