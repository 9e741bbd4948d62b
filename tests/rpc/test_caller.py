"""Who is calling is found out once a call, and passed on to every method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from polos.v1 import agent_service_pb2 as agents_pb
from polos.v1 import run_service_pb2 as pb
from polos_client.calls.status import to_error
from polos_client.errors import RunNotFound, Unauthenticated
from polos_service.access.credentials import Metadata, Peer
from polos_service.access.identities import Identities
from polos_service.caller import Caller
from tests.support.service import events_in, scripted, serving

FINE = scripted("fine")


@pytest.fixture
def identified(monkeypatch: pytest.MonkeyPatch) -> list[Caller]:
    """Let callers name their project; return those that were made."""
    made: list[Caller] = []

    async def by_metadata(_: Identities, metadata: Metadata, __: Peer) -> Caller:
        project = str(dict(metadata).get("x-project", "default"))
        if project == "nobody":
            raise Unauthenticated("There is no such project.")
        made.append(Caller(project=project, principal="me", scopes=frozenset("*")))
        return made[-1]

    monkeypatch.setattr(Identities, "of", by_metadata)
    return made


async def refused(call: Any) -> Exception:
    """Return what a client makes of a refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return to_error(caught.value, "the service")


async def test_runs_are_those_of_the_caller_s_project(
    tmp_path: Path, identified: list[Caller]
) -> None:
    mine, theirs = (("x-project", "mine"),), (("x-project", "theirs"),)
    async with serving(tmp_path, FINE) as served:
        runs = served.runs
        start = pb.StreamRunRequest(agent_id="demo", input="Go.")
        events = [
            event
            async for response in runs.StreamRun(start, metadata=mine)
            for event in response.events
        ]
        run_id = events[0].run_id
        for answer in (
            runs.GetRun(pb.GetRunRequest(run_id=run_id), metadata=theirs),
            runs.CancelRun(pb.CancelRunRequest(run_id=run_id), metadata=theirs),
            runs.DeleteRun(pb.DeleteRunRequest(run_id=run_id), metadata=theirs),
            runs.StreamWorkflow(
                pb.StreamWorkflowRequest(workflow_run_id=run_id), metadata=theirs
            ).read(),
        ):
            assert isinstance(await refused(answer), RunNotFound)
        assert not (await runs.ListRuns(pb.ListRunsRequest(), metadata=theirs)).runs
        (run,) = (await runs.ListRuns(pb.ListRunsRequest(), metadata=mine)).runs
        assert run.run_id == run_id
    assert [one.project for one in identified] == ["mine", *["theirs"] * 5, "mine"]


async def test_agents_are_visible_to_all_projects(tmp_path: Path, identified: list[Caller]) -> None:
    async with serving(tmp_path, FINE) as served:
        for project in ("mine", "theirs"):
            request = agents_pb.ListAgentsRequest()
            page = await served.agents.ListAgents(request, metadata=(("x-project", project),))
            assert [agent.agent_id for agent in page.agents] == ["demo"]


async def test_a_caller_that_is_refused_gets_a_status(
    tmp_path: Path, identified: list[Caller]
) -> None:
    nobody = (("x-project", "nobody"),)
    async with serving(tmp_path, FINE) as served:
        run_id = await served.start(FINE)
        get = served.runs.GetRun(pb.GetRunRequest(run_id=run_id), metadata=nobody)
        assert isinstance(await refused(get), Unauthenticated)
        read = pb.StreamWorkflowRequest(workflow_run_id=run_id)
        stream = served.runs.StreamWorkflow(read, metadata=nobody)
        assert isinstance(await refused(stream.read()), Unauthenticated)


async def test_without_credentials_every_caller_is_of_the_default_project(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        run_id = await served.start(FINE)
        assert events_in(b"".join([data async for data in served.raw(run_id)]))
        assert (await served.store.get("default", run_id)).run_id == run_id
