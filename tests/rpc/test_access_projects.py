"""Projects: what belongs to one does not exist for another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polos.v1 import agent_service_pb2 as agents_pb
from polos.v1 import run_service_pb2 as pb
from polos_client.define.tool import Tool, tool
from polos_client.errors import AgentNotFound, RunNotFound
from tests.support.access import Admin, Header, guarded, refusal
from tests.support.service import Served, scripted

SHARED = scripted("shared", id="shared")


def secret_tool() -> Tool:
    """Return a tool of the agent that is for one project."""

    @tool(description="Pays")
    async def pay() -> str:
        return "paid"

    return pay


HR = scripted("hr", id="hr", tools=(secret_tool(),))

LIMITED = {"agent_projects": {"hr": ["people"]}}


async def started(served: Served, header: Header, **fields: Any) -> str:
    """Run the shared agent to its end; return the id of the run."""
    request = pb.StreamRunRequest(agent_id=SHARED.id, input="Go.", **fields)
    stream = served.runs.StreamRun(request, metadata=header)
    events = [event async for response in stream for event in response.events]
    return events[0].run_id


async def two(admin: Admin) -> tuple[Header, Header]:
    """Return the metadata of callers of two projects."""
    return await admin.header("mine"), await admin.header("theirs")


async def test_a_run_of_another_project_looks_like_none(tmp_path: Path) -> None:
    async with guarded(tmp_path, SHARED) as (served, admin):
        mine, theirs = await two(admin)
        run_id = await started(served, mine)
        for hidden, missing in zip(
            calls(served, run_id, theirs), calls(served, "0", theirs), strict=True
        ):
            found, none = await refusal(hidden), await refusal(missing)
            assert isinstance(found, RunNotFound)
            assert str(found).replace(run_id, "0") == str(none)
            assert found.metadata == {"run_id": run_id}
        assert await started(served, mine), "nothing was deleted"
        await served.runs.GetRun(pb.GetRunRequest(run_id=run_id), metadata=mine)


def calls(served: Served, run_id: str, header: Header) -> list[Any]:
    """Return a call of every method that names a run."""
    runs = served.runs
    return [
        runs.GetRun(pb.GetRunRequest(run_id=run_id), metadata=header),
        runs.CancelRun(pb.CancelRunRequest(run_id=run_id), metadata=header),
        runs.DeleteRun(pb.DeleteRunRequest(run_id=run_id), metadata=header),
        runs.CreateRunToken(pb.CreateRunTokenRequest(run_id=run_id), metadata=header),
        runs.StreamWorkflow(
            pb.StreamWorkflowRequest(workflow_run_id=run_id, after_sequence=999), metadata=header
        ).read(),
    ]


async def test_request_ids_and_sessions_are_those_of_a_project(tmp_path: Path) -> None:
    async with guarded(tmp_path, SHARED) as (served, admin):
        mine, theirs = await two(admin)
        fields: dict[str, Any] = {
            "request_id": "same",
            "options": {"session_id": "s", "user_id": "u"},
        }
        first, second = [await started(served, one, **fields) for one in (mine, theirs)]
        assert first != second
        assert await started(served, mine, **fields) == first
        for header, run_id in ((mine, first), (theirs, second)):
            for listing in (
                pb.ListRunsRequest(session_id="s"),
                pb.ListRunsRequest(user_id="u"),
                pb.ListRunsRequest(workflow_id=SHARED.id),
            ):
                page = await served.runs.ListRuns(listing, metadata=header)
                assert [run.run_id for run in page.runs] == [run_id]


async def test_a_page_token_of_another_project_shows_nothing_of_it(tmp_path: Path) -> None:
    async with guarded(tmp_path, SHARED) as (served, admin):
        mine, theirs = await two(admin)
        own = [await started(served, theirs)]
        for _ in range(2):
            await started(served, mine)
        listing = pb.ListRunsRequest(page_size=1)
        page = await served.runs.ListRuns(listing, metadata=mine)
        listing.page_token = page.next_page_token
        found = await served.runs.ListRuns(listing, metadata=theirs)
        assert [run.run_id for run in found.runs] == own


@pytest.mark.parametrize("agent_id", ["hr", "pay", "nobody"])
async def test_an_agent_of_another_project_does_not_exist(tmp_path: Path, agent_id: str) -> None:
    async with guarded(tmp_path, SHARED, HR, **LIMITED) as (served, admin):
        header = await admin.header("sales")
        asked = (
            served.runs.CreateRun(
                pb.CreateRunRequest(agent_id=agent_id, input="Go."), metadata=header
            ),
            served.runs.StreamRun(
                pb.StreamRunRequest(agent_id=agent_id, input="Go."), metadata=header
            ).read(),
            served.agents.GetAgent(agents_pb.GetAgentRequest(agent_id=agent_id), metadata=header),
        )
        for call in asked:
            refused = await refusal(call)
            assert isinstance(refused, AgentNotFound)
            assert refused.metadata == {"agent_id": agent_id, "known": "shared"}
            assert str(refused) == f"There is no agent or workflow {agent_id!r}. Loaded: shared."
        listed = await served.agents.ListAgents(agents_pb.ListAgentsRequest(), metadata=header)
        assert [agent.agent_id for agent in listed.agents] == ["shared"]


async def test_an_agent_of_a_project_is_there_for_it(tmp_path: Path) -> None:
    async with guarded(tmp_path, SHARED, HR, **LIMITED) as (served, admin):
        header = await admin.header("people")
        listed = await served.agents.ListAgents(agents_pb.ListAgentsRequest(), metadata=header)
        assert [agent.agent_id for agent in listed.agents] == ["hr", "shared"]
        create = pb.CreateRunRequest(agent_id="hr", input="Go.")
        assert (await served.runs.CreateRun(create, metadata=header)).run.run_id
        missing = await refusal(
            served.agents.GetAgent(agents_pb.GetAgentRequest(agent_id="pay"), metadata=header)
        )
        assert str(missing).startswith("'pay' is a tool")


async def test_a_limited_agent_that_is_not_loaded_is_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with guarded(tmp_path, SHARED, agent_projects={"sharde": ["mine"]}):
        pass
    logged = capsys.readouterr().err
    assert "limited_agent_is_not_loaded" in logged
    assert "sharde" in logged
