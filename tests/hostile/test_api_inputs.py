"""Every field of every call, filled with what nobody sends: never INTERNAL, never UNKNOWN."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from polos.v1 import run_service_pb2 as pb
from polos.v1.run_pb2 import RunOptions
from polos_client.calls.status import to_error
from polos_client.define.agent import Agent
from polos_client.define.scripted import pause, turn
from polos_client.define.tool import tool
from polos_client.errors import DefinitionError, InvalidRequest
from polos_service.api.grpc.server import AGENT_SERVICE, RUN_SERVICE
from polos_service.api.parsing import DEPTH_LIMIT, ParseError, parse
from polos_service.config import Settings
from polos_service.server import Service
from tests.support.nats import NatsServer
from tests.support.service import Served, query, reaching, scripted, serving, settings_for

Code = grpc.StatusCode
FINE = scripted("fine")
FOREVER = scripted(turn("So far", pause(None)), id="forever")

MILLION = "x" * 1_000_000

HOSTILE = "a\nb\r\n\t\x00\x1b[2J\x9b\u202eb\u2028"
"""Line ends, and what steers a terminal or turns the direction of a text."""

TEXTS = [
    "\x00",
    HOSTILE,
    f"none:3{HOSTILE}",
    MILLION,
    "é" * 300,
    "../..",
    "a.b.*.>",
    "' OR 1=1",
    "\ufffe",
    " ",
]
INTEGERS = [-1, 1, 2**31 - 1, -(2**31), 77]
WIDE = [*INTEGERS, 2**63 - 1, -(2**63)]

VALUES: dict[int, list[Any]] = {
    FieldDescriptor.TYPE_STRING: TEXTS,
    FieldDescriptor.TYPE_INT32: INTEGERS,
    FieldDescriptor.TYPE_INT64: WIDE,
    FieldDescriptor.TYPE_ENUM: INTEGERS,
    FieldDescriptor.TYPE_BOOL: [True],
}

JSON = [
    '"\\ud800"',
    '{"\\udfff": 1}',
    "NaN",
    "[Infinity]",
    '{"a": -Infinity}',
    "1e999",
    "[" * 100_000,
    "9" * 5000,
    '{"a": 1, "a": 2}',
    "-0",
    '"\\u0000"',
    "",
    "null",
    "\x00",
    "[[]]",
    '[{"role": "\\ud800"}]',
    '[{"role": "user", "content": "\\udc00"}]',
    '[{"role": "user", "content": NaN}]',
    '{"temperature": 1e999}',
    '{"seed": ' + "9" * 4000 + "}",
]


def wrong(message: Any) -> Iterator[tuple[str, Any]]:
    """Yield path and value of everything that a field of a message can be set to."""
    for field in message.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for path, value in wrong(GetMessageClass(field.message_type)()):
                yield f"{field.name}.{path}", value
            continue
        values = VALUES[field.type] + (JSON if field.name.endswith("_json") else [])
        for value in values:
            yield field.name, value


def filled(message: Message, path: str, value: Any) -> Message:
    """Return the message with a field set."""
    *outer, name = path.split(".")
    inner: Any = message
    for one in outer:
        inner = getattr(inner, one)
        inner.SetInParent()
    setattr(inner, name, value)
    return message


def usual(method: MethodDescriptor, run_id: str) -> Message:
    """Return a request of the method that is fine."""
    fine = {"agent_id": "demo", "input": "Go.", "run_id": run_id, "workflow_run_id": run_id}
    fine |= {"step_key": "ok", "data_json": "1"}
    message = GetMessageClass(method.input_type)()
    for field in method.input_type.fields:
        if field.name in fine:
            setattr(message, field.name, fine[field.name])
    return message


@pytest.fixture(params=["sqlite", "nats"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    if request.param == "sqlite":
        async with serving(tmp_path, FINE, FOREVER) as served:
            yield served
        return
    with NatsServer(tmp_path) as server:
        settings: Settings = settings_for(tmp_path, store=server.url)
        service = await Service.start(settings, [FINE, FOREVER])
        try:
            async with reaching(service, tmp_path / "none") as served:
                yield served
        finally:
            await service.stop(0)


async def code_of(served: Served, method: MethodDescriptor, request: Message) -> Code:
    """Make a call and return how it ended; a stream is read to its end.

    What an error says is one line that a terminal shows, whatever it quotes.
    """
    stubs: Any = served.runs if method.containing_service is RUN_SERVICE else served.agents
    call = getattr(stubs, method.name)(request, timeout=30)
    said = ""
    try:
        if method.server_streaming:
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        said = f"{to_error(error, 'the service')} {error.details()}"
    assert said.isprintable(), repr(said)
    code: Code = await call.code()
    return code


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "method", [*RUN_SERVICE.methods, *AGENT_SERVICE.methods], ids=lambda one: str(one.name)
)
async def test_no_value_of_a_field_is_a_defect(served: Served, method: MethodDescriptor) -> None:
    answers = method.name == "ResumeRun"
    run_id = await served.start(FOREVER if answers else FINE)
    if not answers:
        await served.events(run_id)
    allowed = {
        Code.OK,
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.OUT_OF_RANGE,
        Code.ALREADY_EXISTS,
        *({Code.FAILED_PRECONDITION} if answers else ()),
    }
    for path, value in wrong(GetMessageClass(method.input_type)()):
        request = filled(usual(method, run_id), path, value)
        if path == "input_messages_json":
            request.ClearField("input")
        code = await code_of(served, method, request)
        assert code in allowed, f"{path} = {str(value)[:40]!r}: {code}"


async def test_a_run_that_is_not_there_is_named_with_what_does_not_print(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        run_id = await served.start(FINE)
        await served.events(run_id)
        for asked in ("none\n", f"{run_id}:1\x1b[2J", f"{run_id}:3\n"):
            for call in (
                served.runs.GetRun(pb.GetRunRequest(run_id=asked)),
                served.runs.CancelRun(pb.CancelRunRequest(run_id=asked)),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.details() == f"There is no run {asked!r}."
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            options = RunOptions(provider_options_json=json.dumps({HOSTILE: 1}))
            await served.runs.CreateRun(
                pb.CreateRunRequest(agent_id="demo", input="Go.", options=options)
            )
        assert r"a\nb\r\n\t\x00\x1b[2J\x9b\u202eb\u2028" in str(caught.value.details())


REFUSED: dict[str, tuple[str, str]] = {
    "half a character": ('[{"role": "user", "content": "\\ud800"}]', "[0].content"),
    "half a character in a list": ('[{"role": "u", "c": ["a", "\\udfffb"]}]', "[0].c[1]"),
    "half a character as key": ('[{"role": "user", "\\ud800": 1}]', "[0]"),
    "not a number": ('[{"role": "user", "content": NaN}]', ""),
    "infinity": ('[{"role": "user", "content": -Infinity}]', ""),
    "beyond a double": ('[{"role": "user", "content": 1e999}]', ""),
    "a key twice": ('[{"role": "user", "role": "system"}]', ""),
    "too many digits": (f'[{{"role": "user", "content": {"9" * 5000}}}]', ""),
    "too deep": ("[" * 110 + "]" * 110, ""),
    "far too deep": ("[" * 200_000, ""),
}


@pytest.mark.parametrize("field", ["input_messages_json", "options.initial_state_json"])
@pytest.mark.parametrize("name", REFUSED)
async def test_json_that_cannot_be_kept_is_refused_by_its_field(
    tmp_path: Path, name: str, field: str
) -> None:
    text, path = REFUSED[name]
    request = pb.CreateRunRequest(agent_id="demo")
    if field.startswith("options"):
        text, path = f'{{"a": {text}}}', f".a{path}" if path else ""
        request.input = "Go."
    filled(request, field, text)
    async with serving(tmp_path, FINE) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.runs.CreateRun(request)
        assert query(served.path, "SELECT count(*) FROM runs") == [(0,)]
    error = to_error(caught.value, "the service")
    assert isinstance(error, InvalidRequest)
    assert list(error.violations) == [f"{field}{path}"]


async def test_half_a_character_in_a_model_option_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        for text in ('{"\\ud800": 1}', '{"user": "\\ud800"}'):
            request = pb.CreateRunRequest(agent_id="demo", input="Go.")
            request.options.provider_options_json = text
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await served.runs.CreateRun(request)
            assert caught.value.code() is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ("-0", 0),
        ("1e308", 1e308),
        ("12345678901234567890123", 12345678901234567890123),
        ('"\\u0000"', "\x00"),
        ('{"": {"a": [1.5, true, null]}}', {"": {"a": [1.5, True, None]}}),
        ("[" * DEPTH_LIMIT + "]" * DEPTH_LIMIT, None),
        ('"\\\\ud800"', "\\ud800"),
    ],
)
def test_what_json_can_say_is_taken(text: str, value: Any) -> None:
    assert parse(text) == (json.loads(text) if value is None else value)


def test_an_error_quotes_a_long_number_or_key_in_short() -> None:
    for text in ("1" * 4000 + "e9999", f'{{"{MILLION}": 1, "{MILLION}": 1}}'):
        with pytest.raises(ParseError) as caught:
            parse(text)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {"\ud800": 1}, {1}])
async def test_an_agent_that_cannot_be_stored_is_refused_when_it_is_loaded(
    tmp_path: Path, value: Any
) -> None:
    @tool(parameters={"type": "object", "default": value})
    async def odd() -> str:
        return ""

    agents = [scripted("fine", tools=(odd,))]
    if isinstance(value, str):
        agents.append(Agent("other", "openai", "mock", system_prompt=value))
    for agent in agents:
        with pytest.raises(DefinitionError, match="cannot be written as JSON"):
            async with serving(tmp_path, agent):
                pass
