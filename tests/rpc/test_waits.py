"""ResumeRun over a real service: who may answer what, once, and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from time import time_ns
from typing import Any

import grpc.aio
import pytest

from polos.v1 import run_service_pb2 as pb
from polos.v1.event_pb2 import WaitKind
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client.calls.status import to_error
from polos_client.errors import (
    AlreadyAnswered,
    InvalidRequest,
    PermissionDenied,
    RunNotFound,
    WaitExpired,
    WaitNotOpen,
)
from polos_client.wire import ANSWER_LIMIT
from polos_service.caller import SCOPES
from polos_service.runs.frame import SECOND
from tests.support.access import bearer, guarded, refusal
from tests.support.service import Served, answer_of, serving, until
from tests.support.waits import (
    answer,
    ask,
    asking,
    begun,
    listed,
    napping,
    park_soon,
    parked,
    run_of,
)

ALL = [scope for scope in SCOPES if scope not in ("*", "admin")]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path, asking, napping, max_runs=400) as one:
        yield one


async def result_of(served: Served, run_id: str) -> Any:
    """Return what a run has returned."""
    finish = answer_of(await served.events(run_id)).workflow_finish
    return json.loads(finish.result_json)


async def test_an_answer_ends_a_wait_and_is_in_the_log(served: Served) -> None:
    run_id = await ask(served, ok=None)
    event = await begun(served, run_id, "ok")
    (wait,) = (await run_of(served, run_id)).open_waits
    assert (wait.run_id, wait.step_key, wait.wait_id) == (run_id, "ok", event.sequence)
    assert (wait.workflow_id, wait.kind) == ("asking", WaitKind.WAIT_KIND_SUSPEND)
    assert json.loads(wait.data_json) == {"key": "ok"}
    assert not wait.HasField("expire_time")
    assert await listed(served) == [wait]
    answered = await answer(served, run_id, "ok", data_json='{"a": [1]}', request_id="r")
    assert answered.wait == wait
    assert await listed(served) == []
    assert await result_of(served, run_id) == {"ok": {"a": [1]}}
    (resumed,) = [one.resumed for one in await served.events(run_id) if one.HasField("resumed")]
    assert (resumed.step_key, resumed.wait_id, resumed.kind) == ("ok", event.sequence, wait.kind)
    assert (resumed.data_json, resumed.request_id) == ('{"a": [1]}', "r")
    assert resumed.principal == "anonymous"


async def test_of_twenty_racing_answers_one_is_accepted(served: Served) -> None:
    run_id = await ask(served, ok=None)
    await begun(served, run_id, "ok")
    options = (("grpc.use_local_subchannel_pool", 1),)
    address = served.service.address
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stubs = [served.runs, RunServiceStub(channel)]
        requests = [
            pb.ResumeRunRequest(
                run_id=run_id, step_key="ok", data_json=str(number), request_id=f"r{number}"
            )
            for number in range(20)
        ]
        calls = [stubs[number % 2].ResumeRun(one) for number, one in enumerate(requests)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        (winner,) = [number for number, one in enumerate(ended) if not isinstance(one, Exception)]
        assert await result_of(served, run_id) == {"ok": winner}
        for number, one in enumerate(requests):
            again = stubs[number % 2].ResumeRun(one)
            if number == winner:
                await again
            else:
                assert isinstance(await refusal(again), AlreadyAnswered)
    for refused in ended:
        if not isinstance(refused, pb.ResumeRunResponse):
            assert isinstance(refused, grpc.aio.AioRpcError)
            assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert isinstance(to_error(refused, "the service"), AlreadyAnswered)


async def test_an_answer_without_a_request_id_is_accepted_once(served: Served) -> None:
    run_id = await ask(served, first=None, second=None)
    await begun(served, run_id, "first")
    await answer(served, run_id, "first")
    error = await refusal(answer(served, run_id, "first"))
    assert isinstance(error, AlreadyAnswered)
    assert error.metadata == {"run_id": run_id, "step_key": "first"}


class Later:
    """A clock that is a day ahead."""

    def now(self) -> int:
        return time_ns() + 24 * 3600 * SECOND


async def test_a_repeated_answer_is_accepted_though_the_wait_is_over_by_now(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await ask(served, first=3600.0, second=None)
    event = await begun(served, run_id, "first")
    yes: dict[str, Any] = {"request_id": "r", "wait_id": event.sequence}
    await answer(served, run_id, **yes)
    await begun(served, run_id, "second")
    monkeypatch.setattr(served.service._runs.waits, "_clock", Later())
    await answer(served, run_id, **yes)
    await answer(served, run_id, "first", request_id="r")
    assert isinstance(await refusal(answer(served, run_id, "first")), AlreadyAnswered)
    other = answer(served, run_id, **yes | {"data_json": '"no"'})
    assert isinstance(await refusal(other), AlreadyAnswered)
    await answer(served, run_id, "second")
    await served.events(run_id)
    await answer(served, run_id, **yes)
    await answer(served, run_id, "first", request_id="r")


async def until_over(time: int) -> None:
    """Wait until a time has passed."""
    await until(lambda: time_ns() > time, "the wait's time is over")


@pytest.mark.parametrize("then", [{}, {"second": None}], ids=["ended", "goes on"])
async def test_an_answer_after_the_wait_has_expired(served: Served, then: dict[str, Any]) -> None:
    run_id = await ask(served, first=0.05, **then)
    event = await begun(served, run_id, "first")
    passed = event.suspended.expire_time.ToNanoseconds() - event.create_time.ToNanoseconds()
    assert passed <= 50_000_000
    await until_over(event.suspended.expire_time.ToNanoseconds())
    assert "first" not in [one.step_key for one in await listed(served)]
    if then:
        await begun(served, run_id, "second")
    else:
        await served.events(run_id)
    for fields in ({"key": "first"}, {"wait_id": event.sequence}):
        error = await refusal(answer(served, run_id, **fields))
        assert isinstance(error, WaitExpired)
        assert error.metadata == {"run_id": run_id, "step_key": "first"}
        assert "'first'" in str(error)
    assert [one.step_key for one in (await run_of(served, run_id)).open_waits] == list(then)
    for key in then:
        await answer(served, run_id, key)
    resumed = [one.resumed for one in await served.events(run_id) if one.HasField("resumed")]
    assert resumed[0].expired
    assert not resumed[0].principal


async def test_a_run_that_has_ended_takes_no_answer(served: Served) -> None:
    run_id = await ask(served, ok=None)
    event = await begun(served, run_id, "ok")
    await served.runs.CancelRun(pb.CancelRunRequest(run_id=run_id))
    for fields in ({"key": "ok"}, {"wait_id": event.sequence}, {"key": "other"}):
        error = await refusal(answer(served, run_id, **fields))
        assert isinstance(error, WaitNotOpen)
        assert error.metadata["run_id"] == run_id
    assert str(error) == "The run has ended."
    assert await listed(served) == []
    assert not (await run_of(served, run_id)).open_waits


async def test_a_timer_cannot_be_answered(served: Served) -> None:
    create = pb.CreateRunRequest(agent_id="napping")
    run_id = (await served.runs.CreateRun(create)).run.run_id
    event = await begun(served, run_id, "nap")
    for fields in ({"key": "nap"}, {"wait_id": event.sequence}):
        error = await refusal(answer(served, run_id, **fields))
        assert isinstance(error, WaitNotOpen)
        assert str(error) == "A timer cannot be answered."
    assert await listed(served) == []
    assert not (await run_of(served, run_id)).open_waits


async def test_an_answer_before_its_wait_is_kept_until_the_run_comes_to_it(
    served: Served,
) -> None:
    run_id = await ask(served, first=None, second=None, third=None)
    await begun(served, run_id, "first")
    early = await answer(served, run_id, "second", request_id="r")
    assert not early.HasField("wait")
    assert (await run_of(served, run_id)).early_answers == ["second"]
    await answer(served, run_id, "second", request_id="r")
    assert isinstance(await refusal(answer(served, run_id, "second")), AlreadyAnswered)
    await answer(served, run_id, "first")
    await begun(served, run_id, "third")
    assert not (await run_of(served, run_id)).early_answers
    await answer(served, run_id, "third")
    assert await result_of(served, run_id) == dict.fromkeys(("first", "second", "third"), "yes")


async def test_an_approval_is_not_answered_before_it_is_open(served: Served) -> None:
    run_id = await ask(served, ok=None)
    await begun(served, run_id, "ok")
    approval = answer(served, run_id, "pay/approve", data_json='{"approved": true}')
    error = await refusal(approval)
    assert isinstance(error, WaitNotOpen)
    assert "wait_id" in str(error)
    assert not (await run_of(served, run_id)).early_answers


async def test_a_wait_that_a_reader_sees_can_be_answered_though_the_index_is_behind(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, behind = served.store, asyncio.Event()
    open_wait = store.open_wait

    async def later(*arguments: Any) -> None:
        await behind.wait()
        await open_wait(*arguments)

    monkeypatch.setattr(store, "open_wait", later)
    for named in ("key", "id"):
        behind.clear()
        run_id = await ask(served, ok=1000.0)
        event = await begun(served, run_id, "ok")
        assert await listed(served) == []
        fields = {"key": "ok"} if named == "key" else {"wait_id": event.sequence}
        wait = (await answer(served, run_id, **fields)).wait
        assert (wait.step_key, wait.wait_id) == ("ok", event.sequence)
        assert wait.expire_time == event.suspended.expire_time
        behind.set()
        assert await result_of(served, run_id) == {"ok": "yes"}
    assert await listed(served) == []


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no run": ({"run_id": ""}, "run_id", "is empty"),
    "no name": ({"step_key": ""}, "step_key", "is empty"),
    "a negative id": ({"wait_id": -1}, "wait_id", "is -1"),
    "a long key": ({"step_key": "é" * 513}, "step_key", "has 1026 bytes, the limit is 1024"),
    "a long request id": ({"request_id": "x" * 129}, "request_id", "has 129 characters"),
    "no answer": ({"data_json": ""}, "data_json", "is not valid JSON"),
    "half an answer": ({"data_json": '{"a": '}, "data_json", "is not valid JSON"),
    "not a number": ({"data_json": '{"a": NaN}'}, "data_json", "NaN is not a JSON value"),
    "half a character": ({"data_json": '{"a": "\\ud800"}'}, "data_json.a", "without its other"),
    "too deep": ({"data_json": "[" * 200 + "]" * 200}, "data_json", "deeper than 100 levels"),
    "too large": (
        {"data_json": f'"{"x" * (ANSWER_LIMIT - 1)}"'},
        "data_json",
        f"has {ANSWER_LIMIT + 1} bytes, the limit is {ANSWER_LIMIT}",
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_an_answer_that_is_wrong_leaves_the_wait_open(served: Served, name: str) -> None:
    fields, field, what = WRONG[name]
    run_id = await ask(served, ok=None)
    await begun(served, run_id, "ok")
    error = await refusal(answer(served, **{"run_id": run_id, "key": "ok"} | renamed(fields)))
    assert isinstance(error, InvalidRequest)
    assert list(error.violations) == [field]
    assert what in error.violations[field]
    assert [one.step_key for one in await listed(served)] == ["ok"]


def renamed(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields as `answer` calls them."""
    return {"key" if name == "step_key" else name: value for name, value in fields.items()}


async def test_every_wrong_field_is_told_at_once_and_the_largest_answer_is_taken(
    served: Served,
) -> None:
    run_id = await ask(served, ok=None)
    await begun(served, run_id, "ok")
    wrong = pb.ResumeRunRequest(wait_id=-1, request_id="x" * 129, data_json="{")
    error = await refusal(served.runs.ResumeRun(wrong))
    assert isinstance(error, InvalidRequest)
    assert set(error.violations) == {"run_id", "wait_id", "request_id", "data_json"}
    await answer(served, run_id, "ok", data_json=f'"{"x" * (ANSWER_LIMIT - 2)}"')
    assert await result_of(served, run_id) == {"ok": "x" * (ANSWER_LIMIT - 2)}


async def test_an_id_that_is_of_no_such_wait_is_refused(served: Served) -> None:
    run_id = await ask(served, ok=None)
    event = await begun(served, run_id, "ok")
    for fields in (
        {"wait_id": event.sequence + 1},
        {"wait_id": 1},
        {"wait_id": 2**63 - 1},
        {"wait_id": event.sequence, "key": "another"},
    ):
        assert isinstance(await refusal(answer(served, run_id, **fields)), WaitNotOpen)
    assert [one.step_key for one in await listed(served)] == ["ok"]


@pytest.mark.parametrize(
    "child", ["", ":", ":1", ":2", ":99", ":x", ":-1", ":1 ok", ":" + "9" * 40, ":²"]
)
async def test_a_run_or_child_that_there_is_not_is_not_found(served: Served, child: str) -> None:
    run_id = await ask(served, ok=None)
    await begun(served, run_id, "ok")
    named = f"{run_id}{child}" if child else "nobody"
    error = await refusal(answer(served, named, "ok"))
    assert isinstance(error, RunNotFound)
    assert [one.step_key for one in await listed(served)] == ["ok"]


async def test_only_a_caller_of_the_project_with_the_scope_answers(tmp_path: Path) -> None:
    async with guarded(tmp_path, asking) as (served, admin):
        mine, theirs = await admin.header("mine", ALL), await admin.header("theirs", ALL)
        run_id = await ask(served, mine, ok=None)
        event = await begun(served, run_id, "ok", mine)
        for fields in ({"key": "ok"}, {"wait_id": event.sequence}, {"key": "early"}):
            error = await refusal(answer(served, run_id, who=theirs, **fields))
            assert isinstance(error, RunNotFound)
        assert await listed(served, theirs) == []
        token = await served.runs.CreateRunToken(
            pb.CreateRunTokenRequest(run_id=run_id), metadata=mine
        )
        without = await admin.header("mine", [one for one in ALL if one != "runs:resume"])
        for who in (bearer(token.token), without):
            error = await refusal(answer(served, run_id, "ok", who))
            assert isinstance(error, PermissionDenied)
        assert isinstance(await refusal(listed(served, bearer(token.token))), PermissionDenied)
        assert (await run_of(served, run_id, bearer(token.token))).open_waits
        key = await admin.key("mine", ["runs:resume"])
        answered = await answer(served, run_id, "ok", bearer(key.api_key))
        assert (answered.wait.step_key, answered.wait.data_json) == ("ok", "")
        stream = pb.StreamWorkflowRequest(workflow_run_id=run_id)
        events = [
            event
            async for one in served.runs.StreamWorkflow(stream, metadata=mine)
            for event in one.events
        ]
        (resumed,) = [one.resumed for one in events if one.HasField("resumed")]
        assert resumed.principal == f"key:{key.key.key_id}"


async def test_a_parked_run_is_answered_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    park_soon(monkeypatch)
    async with serving(tmp_path, asking) as served:
        run_id = await ask(served, ok=None, again=None)
        await parked(served, run_id)
        (wait,) = await listed(served)
        assert (await answer(served, run_id, "ok")).wait == wait
        await begun(served, run_id, "again")
        await parked(served, run_id)
        await served.runs.CancelRun(pb.CancelRunRequest(run_id=run_id))
        assert isinstance(await refusal(answer(served, run_id, "again")), WaitNotOpen)


async def test_a_wait_outlives_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    park_soon(monkeypatch)
    async with serving(tmp_path, asking) as served:
        run_id = await ask(served, ok=None)
        await parked(served, run_id)
        before = await listed(served)
        await answer(served, run_id, "later")
    async with serving(tmp_path, asking) as served:
        assert await listed(served) == before
        run = await run_of(served, run_id)
        assert list(run.open_waits) == before
        assert list(run.early_answers) == ["later"]
        await answer(served, run_id, wait_id=before[0].wait_id, data_json="[1]")
        assert await result_of(served, run_id) == {"ok": [1]}
