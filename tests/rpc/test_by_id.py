"""Starts by id, and runs looked after by id, as programs for the original SDK do it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from polos_client.calls.handle import ExecutionHandle
from polos_client.define.scripted import call, fail, pause, turn
from polos_client.define.tool import tool
from polos_client.errors import AgentNotFound, DefinitionError, InvalidRequest, RunNotFound
from polos_client.result import AgentResult
from tests.support.service import scripted, serving

KEYS = [
    *("assigned_to_worker", "batch_id", "cancelled_at", "cancelled_by", "completed_at"),
    *("concurrency_key", "created_at", "deployment_id", "error", "id", "output_schema_name"),
    *("parent_execution_id", "payload", "queue_name", "result", "retry_count"),
    *("root_execution_id", "run_timeout_seconds", "session_id", "spent", "spent_cost"),
    *("started_at", "status", "step_key", "user_id", "workflow_id"),
]


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


SUMS = scripted(turn(call("add", a=1, b=2)), "3", tools=(add,), id="sums")
BROKEN = scripted(fail(retryable=False), id="broken")
FOREVER = scripted(turn("half", pause()), id="forever")


async def test_a_run_is_started_by_id_and_its_record_is_read_as_json(tmp_path: Path) -> None:
    async with serving(tmp_path, SUMS) as served:
        client = served.client
        handle = await client.invoke("sums", {"input": "Go."}, session_id="s", user_id="u")
        assert isinstance(handle, ExecutionHandle)
        assert (handle.workflow_id, handle.session_id, handle.user_id) == ("sums", "s", "u")
        await served.events(handle.id)
        got = await client.get_execution(handle.id)
        standing = await handle.get(client)
        assert await client.cancel_execution(handle.id) is False
    assert sorted(got) == KEYS
    assert (got["id"], got["workflow_id"], got["status"]) == (handle.id, "sums", "completed")
    assert (got["result"]["result"], got["session_id"], got["user_id"]) == ("3", "s", "u")
    assert got["result"]["tool_results"][0]["result"] == 3
    assert got["created_at"] == handle.created_at
    assert got["created_at"] <= got["started_at"] <= got["completed_at"]
    assert (got["error"], got["cancelled_at"]) == (None, None)
    assert got["payload"] == {"input": "Go.", "streaming": False}
    assert isinstance(standing["result"], AgentResult)
    assert standing["result"].model_dump(mode="json") == got["result"]
    assert standing["root_execution_id"] == standing["result"].agent_run_id == handle.id


async def test_an_id_alone_makes_a_handle(tmp_path: Path) -> None:
    async with serving(tmp_path, SUMS) as served:
        run_id = await served.start(SUMS)
        await served.events(run_id)
        assert (await ExecutionHandle(id=run_id).get(served.client))["status"] == "completed"


async def test_a_payload_says_whether_to_stream_and_the_models_options(tmp_path: Path) -> None:
    async with serving(tmp_path, SUMS) as served:
        payload = {"input": "Go.", "streaming": True, "provider_kwargs": {"seed": 7}}
        handle = await served.client.invoke("sums", payload, request_id="once")
        again = await served.client.invoke("sums", payload, request_id="once")
        kinds = {event.WhichOneof("payload") for event in await served.events(handle.id)}
    assert again.id == handle.id
    assert "text_delta" in kinds


async def test_a_failed_and_a_cancelled_run_say_so(tmp_path: Path) -> None:
    async with serving(tmp_path, BROKEN, FOREVER) as served:
        broken = await served.client.invoke("broken", {"input": "Go."})
        await served.events(broken.id)
        failed = await served.client.get_execution(broken.id)
        forever = await served.client.invoke("forever", {"input": "Go."})
        assert await served.client.cancel_execution(forever.id) is True
        await served.events(forever.id)
        cancelled = await served.client.get_execution(forever.id)
    assert (failed["status"], failed["result"]) == ("failed", None)
    assert failed["error"]
    assert (cancelled["status"], cancelled["error"]) == ("cancelled", None)
    assert cancelled["cancelled_at"] == cancelled["completed_at"] is not None


@pytest.mark.parametrize(
    "options",
    [{"queue_name": "q"}, {"queue_concurrency_limit": 1}, {"concurrency_key": "k"}],
    ids=str,
)
async def test_what_is_not_built_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    async with serving(tmp_path, SUMS) as served:
        with pytest.raises(DefinitionError, match=f"client.invoke.{next(iter(options))}"):
            await served.client.invoke("sums", {"input": "Go."}, **options)
        assert [run async for run in served.client.list_runs()] == []


async def test_what_cannot_be_started_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, SUMS) as served:
        with pytest.raises(InvalidRequest, match=r"payload\.input is missing"):
            await served.client.invoke("sums")
        with pytest.raises(InvalidRequest, match="workflow_id must be a text, not None"):
            await served.client.invoke(None, {"input": "Go."})  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="request_id has 129 characters; at most 128"):
            await served.client.invoke("sums", {"input": "Go."}, request_id="x" * 129)
        with pytest.raises(AgentNotFound):
            await served.client.invoke("nobody", {"input": "Go."})
        with pytest.raises(RunNotFound):
            await served.client.get_execution("nobody")


async def test_runs_are_listed_page_by_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_client.calls.listing.PAGE_LIMIT", 2)
    async with serving(tmp_path, SUMS, BROKEN) as served:
        ids = [await served.start(SUMS) for _ in range(5)]
        broken = await served.client.invoke("broken", {"input": "Go."}, session_id="s", user_id="u")
        for run_id in [*ids, broken.id]:
            await served.events(run_id)
        made = (await served.client.get_run(ids[1])).create_time.ToDatetime()

        async def listed(**options: Any) -> list[str]:
            return [run.run_id async for run in served.client.list_runs(**options)]

        assert await listed() == [broken.id, *ids[::-1]]
        assert await listed(workflow_id="sums", limit=3) == ids[:1:-1]
        assert await listed(limit=0) == []
        with pytest.raises(InvalidRequest, match="limit is -1; it cannot be negative"):
            await listed(limit=-1)
        assert await listed(state="completed") == ids[::-1]
        for filters in ({"state": "failed"}, {"session_id": "s"}, {"user_id": "u"}):
            assert await listed(**filters) == [broken.id]
        assert await listed(created_before=made - timedelta(microseconds=1)) == ids[:1]
        assert await listed(created_from=made, workflow_id="sums") == ids[:0:-1]
        with pytest.raises(InvalidRequest, match="state is 'done'; it must be queued, running"):
            await listed(state="done")
