"""Keys that end: a function returns the next one, and streams go on without loss."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from polos_client.calls import credential, events
from polos_client.calls.client import PolosClient
from polos_client.calls.follow import follow
from polos_client.define.agent import Agent
from polos_client.errors import ConnectionLost, DefinitionError, PermissionDenied, Unauthenticated
from tests.support.fake_service import (
    AGENT,
    RUN,
    UNAUTHENTICATED,
    FakeService,
    Play,
    abort,
    connected,
)

ALL = [1, 2, 3, 4, 5, 6, 7]
DEMO = Agent(AGENT, "scripted", "{}")


class Keys:
    """Returns key-1, key-2 and so on, a new one each time it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        return f"key-{self.asked}"


@asynccontextmanager
async def calling(service: FakeService, **options: Any) -> AsyncIterator[PolosClient]:
    async with asyncio.timeout(30), connected(service, **options) as client:
        yield client


async def sequences(client: PolosClient) -> list[int]:
    async with aclosing(follow(client, RUN)) as batches:
        return [one.sequence async for batch in batches for one in batch]


async def test_a_function_is_asked_once_for_many_calls() -> None:
    keys, service = Keys(), FakeService()
    async with calling(service, api_key=keys) as client:
        await asyncio.gather(*(client.get_run(RUN) for _ in range(20)))
        assert await sequences(client) == ALL
    assert keys.asked == 1
    assert set(service.keys) == {"key-1"}


async def test_a_function_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential, "KEPT", 0.0)
    keys, service = Keys(), FakeService()
    async with calling(service, api_key=keys) as client:
        await client.get_run(RUN)
        await client.get_run(RUN)
    assert service.keys == ["key-1", "key-2"]


async def test_a_plain_function_is_called_in_another_thread() -> None:
    threads = []

    def key() -> str:
        threads.append(threading.current_thread())
        return "plain"

    service = FakeService()
    async with calling(service, api_key=key) as client:
        await client.get_run(RUN)
    assert service.keys == ["plain"]
    assert threads != [threading.main_thread()]


@pytest.mark.parametrize("way", ["call", "delete", "start", "reader"])
async def test_a_refused_key_is_renewed_once(way: str) -> None:
    keys, service = Keys(), FakeService(accepted={"key-2"})
    async with calling(service, api_key=keys) as client:
        match way:
            case "call":
                await client.get_run(RUN)
            case "delete":
                await client.delete_run(RUN)
            case "start":
                assert await (await DEMO.stream(client, "go")).text() == "The sum is 3."
            case "reader":
                assert await sequences(client) == ALL
    assert service.keys == ["key-1", "key-2"]


@pytest.mark.parametrize("way", ["call", "start", "reader"])
async def test_a_renewed_key_that_is_refused_is_an_error(way: str) -> None:
    keys, service = Keys(), FakeService(accepted=set())
    ways: dict[str, Callable[[PolosClient], Awaitable[Any]]] = {
        "call": lambda client: client.get_run(RUN),
        "start": lambda client: DEMO.stream(client, "go"),
        "reader": lambda client: anext(events.stream_workflow(client, workflow_run_id=RUN)),
    }
    async with calling(service, api_key=keys) as client:
        with pytest.raises(Unauthenticated, match="The key has ended"):
            await ways[way](client)
    assert keys.asked == 2


@pytest.mark.parametrize("until", range(7))
async def test_a_stream_whose_key_ends_goes_on_with_the_next(until: int) -> None:
    keys = Keys()
    service = FakeService(plays=[Play(UNAUTHENTICATED, until=until)])
    async with calling(service, api_key=keys) as client:
        assert await sequences(client) == ALL
    assert service.keys == ["key-1", "key-2"]
    assert service.cursors[0] == 0 <= service.cursors[1] <= until


async def test_keys_that_end_again_and_again_lose_nothing() -> None:
    keys = Keys()
    plays = [Play(UNAUTHENTICATED, until=until) for until in (0, 0, 0, 2, 2, 5)]
    service = FakeService(plays=plays, batch=1)
    async with calling(service, api_key=keys) as client:
        assert await (await DEMO.stream(client, "go")).text() == "The sum is 3."
    assert keys.asked == 7


async def test_many_streams_whose_key_ends_ask_for_one_next_key() -> None:
    keys = Keys()
    gate = asyncio.Barrier(20)

    async def end(context: Any) -> None:
        await gate.wait()
        await UNAUTHENTICATED(context)

    service = FakeService(plays=[Play(end, until=2) for _ in range(20)])
    async with calling(service, api_key=keys) as client:
        assert await asyncio.gather(*(sequences(client) for _ in range(20))) == [ALL] * 20
    assert keys.asked == 2


async def test_a_stream_without_a_next_key_says_where_it_was() -> None:
    service = FakeService(plays=[Play(UNAUTHENTICATED, until=4)], batch=1)
    async with calling(service, api_key="fixed") as client:
        with pytest.raises(Unauthenticated, match=r"The key has ended.*function as api_key") as e:
            await sequences(client)
        assert e.value.metadata["cause"] == "expired"
        assert e.value.run_id == RUN
        assert f"was read up to event {e.value.cursor}" in str(e.value)
        rest = follow(client, RUN, after=e.value.cursor)
        assert [one.sequence async for batch in rest for one in batch] == ALL[e.value.cursor :]
    assert len(service.cursors) == 2


async def test_a_function_that_fails_later_is_asked_again_for_a_while() -> None:
    answers: Iterator[str | Exception] = iter(
        ["key-1", ValueError("away"), ValueError("away"), "key-2"]
    )

    async def key() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    service = FakeService(plays=[Play(UNAUTHENTICATED, until=4)])
    async with calling(service, api_key=key) as client:
        assert await sequences(client) == ALL


async def test_a_function_that_fails_for_long_ends_the_reader_with_the_cursor() -> None:
    answers = iter(["key-1"])

    async def key() -> str:
        return next(answers)

    service = FakeService(plays=[Play(UNAUTHENTICATED, until=4)], batch=1)
    async with calling(service, api_key=key, reconnect_timeout=0.3) as client:
        with pytest.raises(ConnectionLost, match="given as api_key raised") as caught:
            await sequences(client)
    assert caught.value.run_id == RUN


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (ValueError("secret"), "raised ValueError"),
        ("two words", "returned no key"),
        (None, "returned no key"),
        ("", "returned no key"),
    ],
)
@pytest.mark.parametrize("way", ["call", "start", "reader"])
async def test_a_function_that_returns_no_key_is_told_at_once(
    answer: Any, says: str, way: str
) -> None:
    def key() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    ways: dict[str, Callable[[PolosClient], Awaitable[Any]]] = {
        "call": lambda client: client.get_run(RUN),
        "start": lambda client: DEMO.stream(client, "go"),
        "reader": sequences,
    }
    service = FakeService()
    async with calling(service, api_key=key) as client:
        with pytest.raises(Unauthenticated, match=says) as caught:
            await ways[way](client)
    assert "secret" not in str(caught.value)
    assert service.keys == []


async def test_a_function_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential, "PATIENCE", 0.1)

    async def key() -> str:
        await asyncio.sleep(3600)
        return "never"

    async with calling(FakeService(), api_key=key) as client:
        with pytest.raises(Unauthenticated, match="returned nothing within"):
            await client.get_run(RUN)


async def test_cancelling_a_call_does_not_cancel_the_question_for_others() -> None:
    go = threading.Event()

    def key() -> str:
        go.wait(30)
        return "late"

    service = FakeService()
    async with calling(service, api_key=key) as client:
        one, other = (asyncio.create_task(client.get_run(RUN)) for _ in range(2))
        await asyncio.sleep(0.05)
        one.cancel()
        go.set()
        assert (await other).run_id == RUN
    assert one.cancelled()
    assert service.keys == ["late"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, PermissionDenied),
    ],
)
async def test_a_refusal_of_a_gateway_is_the_same_error(
    code: grpc.StatusCode, kind: type[Exception]
) -> None:
    service = FakeService(refusals=[abort(code, "no entry")])
    async with calling(service, api_key="k") as client:
        with pytest.raises(kind, match=r"something in front of .* refused .*no entry"):
            await client.get_run(RUN)


async def test_a_key_in_a_file_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text("first\n")
    monkeypatch.delenv("POLOS_API_KEY", raising=False)
    monkeypatch.setenv("POLOS_API_KEY_FILE", str(file))
    service = FakeService(accepted={"second"})
    async with calling(service) as client:
        with pytest.raises(Unauthenticated):
            await client.get_run(RUN)
        file.write_text("second")
        await client.get_run(RUN)
    assert service.keys == ["first", "first", "first", "second"]


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff", None])
def test_a_file_without_a_key_is_refused(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POLOS_API_KEY", raising=False)
    monkeypatch.setenv("POLOS_API_KEY_FILE", str(tmp_path / "key"))
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(DefinitionError, match="API key") as caught:
        PolosClient("here:1", tls=True)
    assert "two words" not in str(caught.value)


def test_a_function_does_not_send_its_key_to_another_machine_in_plaintext() -> None:
    with pytest.raises(DefinitionError, match=r"would travel to far:1 in plaintext"):
        PolosClient("far:1", api_key=Keys())
