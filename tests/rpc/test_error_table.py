"""The table of errors and its inverse: what a handler raises is what a caller catches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status import rpc_status

from polos.v1 import agent_service_pb2 as agents_pb
from polos.v1 import run_service_pb2 as pb
from polos.v1.error_pb2 import ErrorReason
from polos.v1.run_pb2 import RunOptions
from polos_client import errors
from polos_client.calls.status import to_error
from polos_service.api.grpc.errors import CODES
from tests.support.service import scripted, serving

RAISED: list[errors.CallError] = [
    errors.AgentNotFound("No agent.", agent_id="a", known="b,c"),
    errors.RunNotFound("No run.", run_id="r"),
    errors.RunExpired("It is gone.", run_id="r"),
    errors.InvalidRequest({"input": "is empty", "options.timeout": "is too long"}),
    errors.RequestIdReused("Used before.", request_id="q", run_id="r"),
    errors.RunNotFinished("Not ended.", run_id="r"),
    errors.CursorAhead("Too far.", run_id="r", after_sequence="9", latest_sequence="3"),
    errors.TooManyRuns("Too many.", retry_after=2.5),
    errors.QuotaExceeded("Too many.", retry_after=7.0, limit="queued", value="5", project="p"),
    errors.TooManyCalls("Too many.", retry_after=1.0, kind="stream", limit="5"),
    errors.TooManyCommands("Too many.", run_id="r"),
    errors.TooLarge("Too large.", size="5", limit="4"),
    errors.Draining("It stops.", retry_after=0.25),
    errors.StoreUnavailable("No store."),
    errors.Unauthenticated("Who are you?"),
    errors.PermissionDenied("Not you."),
    errors.KeyNotFound("No key.", key_id="k"),
    errors.TooManyKeys("Too many.", limit="5"),
    errors.AlreadyAnswered("Too late.", run_id="r", step_key="k"),
    errors.WaitExpired("Too late.", run_id="r", step_key="k"),
    errors.WaitNotOpen("Not open.", run_id="r", step_key="k"),
    errors.AmbiguousWait("Which one?", run_id="r", step_key="k", waits="3 r:1\n5 r:2"),
    errors.InternalError("It failed.", error_id="e"),
]

STATUSES = {
    "AGENT_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "RUN_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "RUN_EXPIRED": grpc.StatusCode.NOT_FOUND,
    "INVALID_REQUEST": grpc.StatusCode.INVALID_ARGUMENT,
    "REQUEST_ID_REUSED": grpc.StatusCode.ALREADY_EXISTS,
    "RUN_NOT_FINISHED": grpc.StatusCode.FAILED_PRECONDITION,
    "CURSOR_AHEAD": grpc.StatusCode.OUT_OF_RANGE,
    "TOO_MANY_RUNS": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "QUOTA_EXCEEDED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "TOO_MANY_CALLS": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "TOO_MANY_COMMANDS": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "TOO_LARGE": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "DRAINING": grpc.StatusCode.UNAVAILABLE,
    "UNAUTHENTICATED": grpc.StatusCode.UNAUTHENTICATED,
    "PERMISSION_DENIED": grpc.StatusCode.PERMISSION_DENIED,
    "KEY_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "TOO_MANY_KEYS": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "ALREADY_ANSWERED": grpc.StatusCode.FAILED_PRECONDITION,
    "WAIT_EXPIRED": grpc.StatusCode.FAILED_PRECONDITION,
    "WAIT_NOT_OPEN": grpc.StatusCode.FAILED_PRECONDITION,
    "AMBIGUOUS_WAIT": grpc.StatusCode.FAILED_PRECONDITION,
    "INTERNAL": grpc.StatusCode.INTERNAL,
    "STORE_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
}


def test_every_error_and_every_reason_has_its_place() -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118
    assert reasons - {"UNSPECIFIED"} == set(STATUSES) == set(errors.CALL_ERRORS)
    assert {type(error) for error in RAISED} == set(CODES) == set(errors.CALL_ERRORS.values())


@pytest.mark.parametrize("raised", RAISED, ids=lambda error: error.reason)
async def test_what_a_handler_raises_is_what_a_caller_catches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: errors.CallError
) -> None:
    async def fails(*_: object) -> Any:
        raise raised

    async with serving(tmp_path) as served:
        monkeypatch.setattr(served.service._store, "get", fails)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.runs.GetRun(pb.GetRunRequest(run_id="r"))
        with pytest.raises(grpc.aio.AioRpcError) as streamed:
            await served.events("r")
        monkeypatch.undo()
    for error in (caught.value, streamed.value):
        assert error.code() is STATUSES[raised.reason]
        rebuilt = to_error(error, "the service")
        assert isinstance(rebuilt, errors.CallError)
        assert (type(rebuilt), str(rebuilt)) == (type(raised), str(raised))
        assert rebuilt.metadata == raised.metadata
        store_says_when = isinstance(raised, errors.StoreUnavailable)
        assert rebuilt.retry_after == (1.0 if store_says_when else raised.retry_after)
        assert getattr(rebuilt, "violations", None) == getattr(raised, "violations", None)


async def test_a_status_has_the_standard_details(tmp_path: Path) -> None:
    async with serving(tmp_path, scripted("fine")) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.runs.CreateRun(pb.CreateRunRequest(agent_id="demo"))
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # of grpc.aio, too
    assert status is not None
    info, request = ErrorInfo(), BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(request)
    assert (info.domain, info.reason) == ("polos.v1", "INVALID_REQUEST")
    assert [(one.field, one.description) for one in request.field_violations] == [
        ("input", "is empty")
    ]
    assert not any(detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details)


MANY = ",".join(["1"] * 5000)

LARGE: dict[str, tuple[str, Any, type[errors.CallError]]] = {
    "agent id": (
        "GetAgent",
        agents_pb.GetAgentRequest(agent_id="x" * 20_000),
        errors.AgentNotFound,
    ),
    "run id": ("GetRun", pb.GetRunRequest(run_id="x" * 20_000), errors.RunNotFound),
    "violations": (
        "CreateRun",
        pb.CreateRunRequest(agent_id="demo", input_messages_json=f"[{MANY}]"),
        errors.InvalidRequest,
    ),
    "name of an option": (
        "CreateRun",
        pb.CreateRunRequest(
            agent_id="demo",
            input="Go.",
            options=RunOptions(provider_options_json=f'{{"{"é" * 20_000}": 1}}'),
        ),
        errors.InvalidRequest,
    ),
}


@pytest.mark.parametrize("case", LARGE)
async def test_a_status_stays_small_whatever_it_quotes(tmp_path: Path, case: str) -> None:
    # grpc takes 8 KiB of metadata for sure; a status beyond that reaches nobody.
    method, request, cls = LARGE[case]
    async with serving(tmp_path, scripted("fine")) as served:
        stubs: Any = served.agents if method == "GetAgent" else served.runs
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(stubs, method)(request)
        assert type(to_error(caught.value, "the service")) is cls, caught.value.details()


async def test_a_status_stays_small_however_many_agents_are_loaded(tmp_path: Path) -> None:
    agents = [scripted("fine", id=f"an-agent-with-a-long-name-{number}") for number in range(500)]
    async with serving(tmp_path, *agents) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.agents.GetAgent(agents_pb.GetAgentRequest(agent_id="nobody"))
        error = to_error(caught.value, "the service")
        assert type(error) is errors.AgentNotFound, caught.value.details()
        assert error.metadata["known"].startswith("an-agent-with-a-long-name-0,")
