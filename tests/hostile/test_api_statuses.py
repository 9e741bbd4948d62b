"""Whatever is raised, wherever: the right status, at once, and not a word of the exception."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog.testing
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from polos.v1 import run_service_pb2 as pb
from polos_client import errors
from polos_client.calls.status import to_error
from polos_service.api.grpc.errors import CODES, status_of, to_status
from polos_service.store.nats.jetstream import Refused
from tests.support.service import BOUND, Served, scripted, serving

Code = grpc.StatusCode
FINE = scripted("fine")
SECRET = "planted-secret"


def derived(cls: type[errors.CallError]) -> Iterator[type[errors.CallError]]:
    """Yield all classes that derive from a class."""
    for one in cls.__subclasses__():
        yield one
        yield from derived(one)


def test_every_error_of_a_call_has_a_status_and_a_reason() -> None:
    classes = set(derived(errors.CallError))
    assert Refused in classes
    for cls in classes:
        error = cls.__new__(cls, "It is so.")
        error.retry_after, error.metadata, error.violations = None, {}, {}  # type: ignore[attr-defined]
        base = next(one for one in cls.__mro__ if one in CODES)
        assert to_status(error).code == CODES[base], cls
        assert error.reason == base.reason


class Odd(Exception):
    """An exception that cannot be told."""

    def __str__(self) -> str:
        raise SystemExit(SECRET)


def with_metadata(value: Any) -> errors.CallError:
    """Return an error with that value in its metadata."""
    error = errors.RunNotFound("No run.")
    error.metadata = {"run_id": value}
    return error


UNTELLABLE: dict[str, BaseException] = {
    "half a character": errors.RunNotFound("No run \ud800.", run_id="\udfff"),
    "a number as metadata": with_metadata(5),
    "nothing as metadata": with_metadata(None),
    "no row": errors.CallError(SECRET),
    "negative time": errors.TooManyRuns("Many.", retry_after=float("nan")),
    "endless time": errors.TooManyRuns("Many.", retry_after=float("inf")),
    "cannot be formatted": Odd(),
    "syntax": SyntaxError(SECRET, ("f", 1, 1, 5)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", UNTELLABLE)
def test_an_error_that_cannot_be_told_has_a_status_all_the_same(name: str) -> None:
    with structlog.testing.capture_logs():
        status = status_of("/a/B", UNTELLABLE[name])
    assert status.code in (5, 13)
    assert SECRET not in str(status)


RAISED = [
    RuntimeError(SECRET),
    StopAsyncIteration(SECRET),
    GeneratorExit(SECRET),
    SystemExit(SECRET),
    KeyboardInterrupt(SECRET),
    BaseException(SECRET),
    grpc.RpcError(SECRET),
    TimeoutError(SECRET),
]


async def told(call: Any) -> grpc.aio.AioRpcError:
    """Return what a call fails with, unary or streaming."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if hasattr(call, "read"):
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    return caught.value


def assert_internal(error: grpc.aio.AioRpcError) -> None:
    assert error.code() is Code.INTERNAL
    assert isinstance(to_error(error, "the service"), errors.InternalError)
    assert SECRET not in f"{error!r}{error.trailing_metadata()!r}"


@pytest.mark.parametrize("error", RAISED, ids=lambda one: type(one).__name__)
async def test_whatever_a_handler_raises_ends_its_call_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    async def fails(*_: object) -> Any:
        raise error

    async with serving(tmp_path, FINE) as served:
        run_id = await served.start(FINE)
        await served.events(run_id)
        monkeypatch.setattr(served.service._store, "read", fails)
        with structlog.testing.capture_logs():
            asked = pb.GetRunRequest(run_id=run_id)
            assert_internal(await told(served.runs.GetRun(asked, timeout=BOUND)))
            read = pb.StreamWorkflowRequest(workflow_run_id=run_id)
            assert_internal(await told(served.runs.StreamWorkflow(read, timeout=BOUND)))
        monkeypatch.undo()
        assert (await served.runs.GetRun(asked)).run.run_id == run_id


async def test_methods_of_other_packages_are_guarded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(SECRET)

    async with serving(tmp_path, FINE) as served:
        asked = health_pb2.HealthCheckRequest(service="nobody")
        error = await told(served.health().Check(asked))
        assert error.code() is Code.NOT_FOUND  # its own status
        health = served.service._server._health
        monkeypatch.setattr(health, "_server_status", Broken())
        with structlog.testing.capture_logs():
            assert_internal(await told(served.health().Check(asked, timeout=BOUND)))
            assert_internal(await told(served.health().Watch(asked, timeout=BOUND)))
        monkeypatch.undo()


async def reflected(served: Served, request: reflection_pb2.ServerReflectionRequest) -> Any:
    """Return the answer of reflection to one request."""
    call = served.reflection().ServerReflectionInfo(timeout=BOUND)
    await call.write(request)
    await call.done_writing()
    return await call.read()


@pytest.mark.parametrize(
    "request_",
    [
        reflection_pb2.ServerReflectionRequest(),
        reflection_pb2.ServerReflectionRequest(file_by_filename="\x00" * 5000),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="polos.v1." * 5000),
        reflection_pb2.ServerReflectionRequest(all_extension_numbers_of_type="no.such"),
    ],
    ids=["nothing", "file", "symbol", "extensions"],
)
async def test_reflection_answers_whatever_it_is_asked(tmp_path: Path, request_: Any) -> None:
    async with serving(tmp_path, FINE) as served:
        assert (await reflected(served, request_)).HasField("error_response")


@pytest.mark.parametrize("method", ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"])
async def test_bytes_that_are_not_a_message_are_refused_everywhere(
    tmp_path: Path, method: str
) -> None:
    async with serving(tmp_path, FINE) as served:
        kind = served.channel.unary_stream if "Watch" in method else served.channel.unary_unary
        call: Any = kind(method)
        error = await told(call(b"\xff\xff\xff"))
    assert error.code() is Code.INVALID_ARGUMENT
    assert "is not a message of this method" in str(error.details())


async def test_a_method_that_cannot_be_looked_up_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            raise TypeError(SECRET)

    monkeypatch.setattr("polos_service.api.grpc.server.generic_handler", lambda *_: Broken())
    async with serving(tmp_path, FINE) as served:
        with structlog.testing.capture_logs():
            list_runs: Any = served.runs.ListRuns
            assert_internal(await told(list_runs(pb.ListRunsRequest(), timeout=BOUND)))


async def test_a_response_that_cannot_be_written_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def numbers(*_: object) -> AsyncIterator[Any]:
        yield 5  # which is not bytes

    async with serving(tmp_path, FINE) as served:
        run_id = await served.start(FINE)
        monkeypatch.setattr("polos_service.api.grpc.run_service.page_of", lambda *_: None)
        monkeypatch.setattr(served.readers, "tail", numbers)
        with structlog.testing.capture_logs():
            list_runs: Any = served.runs.ListRuns
            assert_internal(await told(list_runs(pb.ListRunsRequest(), timeout=BOUND)))
            read = pb.StreamWorkflowRequest(workflow_run_id=run_id)
            assert_internal(await told(served.runs.StreamWorkflow(read, timeout=BOUND)))
