"""What servers of chat completions really send, and what is read: a table, over a real socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from polos.v1.event_pb2 import FinishReason
from polos_service.models.arguments import Nesting
from polos_service.models.remote import Remote
from tests.support.mock_answers import EndOfBody, Part, chunk, cut, event, hold, raw, status
from tests.support.mock_provider import MockProvider
from tests.support.models import ask, failure

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"name": name, "description": "", "parameters": CITY} for name in ("weather", "time")]
STOP, DONE = chunk({}, "stop"), b"data: [DONE]\n\n"
OSLO, LIMA = '{"city": "Oslo"}', '{"city": "Lima"}'
HI = chunk({"content": "Hi"}) + chunk({"content": " there"})


def part(index: Any = 0, **fields: Any) -> dict[str, Any]:
    function = {name: fields.pop(name) for name in ("name", "arguments") if name in fields}
    return {"index": index, **fields, "function": function}


def calls(*fragments: Any) -> bytes:
    return b"".join(chunk({"tool_calls": [one]}) for one in fragments)


def messages(*texts: str, **more: Any) -> bytes:
    told = ({"index": 0, "message": {"content": text}, **more} for text in texts)
    return b"".join(event({"choices": [one]}) for one in told)


def last(**message: Any) -> bytes:
    """A message that repeats all of the answer at its end."""
    return event({"choices": [{"index": 0, "delta": {}, "message": message}]}) + STOP


WHOLE = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": OSLO}}
OTHER = {"id": "b", "type": "function", "function": {"name": "weather", "arguments": LIMA}}

TEXTS = [
    pytest.param(messages("H", "Hi", "Hi there", "Hi there") + STOP, id="messages that grow"),
    pytest.param(messages("H", "Hi there", delta={"content": ""}) + STOP, id="beside empty deltas"),
    pytest.param(messages("Hi", " the", "re") + STOP, id="messages that are pieces"),
    pytest.param(chunk({"content": "Hi"}) + last(content="Hi there"), id="rest in the last one"),
    pytest.param(
        event({"output": {"choices": [{"message": {"content": "Hi there"}}]}}) + STOP, id="output"
    ),
    pytest.param(
        event({"code": 200, "message": "success", "data": json.loads(HI[6:].split(b"\n")[0])})
        + chunk({"content": " there"})
        + STOP,
        id="data in an envelope",
    ),
    pytest.param(
        event({"response": "Hi"}) + event({"response": " there", "p": "x"}) + DONE, id="response"
    ),
    pytest.param(event({"status": "queued", "message": "place 3"}) + HI + STOP, id="queue"),
    pytest.param(event({"code": 200, "message": "ok"}) + HI + STOP, id="all is well"),
    pytest.param(
        chunk({"content": "Hi there"}, error={"message": "", "code": None}) + STOP, id="blank error"
    ),
    pytest.param(chunk({"text": "Hi there"}) + STOP, id="text in the delta"),
    pytest.param(
        event({"choices": [{"index": 1, "delta": {"role": "assistant"}}]}) + HI + STOP,
        id="another choice first",
    ),
    pytest.param(chunk({"content": [[{"text": "Hi there"}]]}) + STOP, id="list in a list"),
    pytest.param(b"\0\0" + HI + STOP, id="NUL in front"),
    pytest.param(b"".join(b"\xef\xbb\xbf" + one for one in (HI, STOP)), id="marks in between"),
    pytest.param(HI.replace(b"\n\n", b"") + b"\n\n" + STOP, id="events on one line"),
    pytest.param(HI + b"data: [done]\n\n", id="[done]"),
    pytest.param(
        b"".join(
            chunk({"content": text, "tool_calls": [part(id="x", name="", arguments="")]})
            for text in ("Hi", " there")
        )
        + DONE,
        id="empty calls",
    ),
]


@pytest.mark.parametrize("sent", TEXTS)
async def test_text_is_read_whole_and_once(
    provider: MockProvider, model: Remote, sent: bytes
) -> None:
    provider.reply(raw(sent), cut())
    answer, heard = await ask(model, tools=TOOLS)
    assert (answer.text, answer.calls) == ("Hi there", [])
    assert "".join(heard) == answer.text


ONE, TWO = ("weather", "Oslo"), ("weather", "Lima")
CALLS = [
    pytest.param(
        calls(part(id="a", name="weather", arguments="{}"), *(part(arguments=one) for one in OSLO)),
        [ONE],
        id="{} first",
    ),
    pytest.param(
        calls(
            part(id="a", name="weather", arguments="null"),
            part(id="a", name="weather", arguments=OSLO[:4]),
            part(id="a", name="weather", arguments=OSLO[4:]),
        ),
        [ONE],
        id="null first",
    ),
    pytest.param(
        calls(part(id="a", arguments=OSLO), part(name="weather")), [ONE], id="name at the end"
    ),
    pytest.param(
        calls(
            part(0, id="a", name="weather"),
            part(1, arguments=OSLO[:4]),
            part(2, arguments=OSLO[4:]),
        ),
        [ONE],
        id="fragments are counted",
    ),
    pytest.param(
        calls(part(1, id="a", name="weather"), part(0, arguments=OSLO)), [ONE], id="another index"
    ),
    pytest.param(
        calls(part(id="x", name="weather", arguments=OSLO))
        + calls(*(part(id="x", name="weather", arguments=one) for one in (LIMA[:4], LIMA[4:]))),
        [ONE, TWO],
        id="the same id again",
    ),
    pytest.param(
        chunk(
            {
                "tool_calls": [part(id="a", name="weather", arguments=OSLO)],
                "function_call": {"name": "weather", "arguments": OSLO},
            }
        ),
        [ONE],
        id="legacy form as well",
    ),
    pytest.param(chunk({"tool_calls": {"0": WHOLE, "1": OTHER}}), [ONE, TWO], id="object by index"),
    pytest.param(chunk({"tool_calls": json.dumps([WHOLE])}), [ONE], id="list in a text"),
    pytest.param(calls({"function": json.dumps(WHOLE["function"])}), [ONE], id="function a text"),
    pytest.param(chunk({"tool_call": WHOLE}), [ONE], id="tool_call"),
    pytest.param(
        calls(part(id="a", name="weather", arguments=[{"city": "Oslo"}])), [ONE], id="in a list"
    ),
    pytest.param(
        calls(part(id="a", name="weather", arguments='{"city": "Oslo",}')), [ONE], id="comma"
    ),
    pytest.param(
        calls(part(id="a", name="weather", arguments='{"city": "Os\nlo"}')),
        [("weather", "Os\nlo")],
        id="line end in a text",
    ),
    pytest.param(
        calls(part(id="a", name="weather", arguments="[]")), [("weather", None)], id="empty list"
    ),
    pytest.param(
        calls(part(id="a", name="weather", arguments="")) + last(tool_calls=[WHOLE]),
        [ONE],
        id="arguments at the end",
    ),
    pytest.param(
        calls(part(id="a", name="weather", arguments=OSLO)) + last(tool_calls=[WHOLE, OTHER]),
        [ONE, TWO],
        id="second call at the end",
    ),
    pytest.param(
        calls(part(id="a", name="weather", arguments=OSLO))
        + last(tool_calls=[{**WHOLE, "id": "z"}]),
        [ONE],
        id="told again with another id",
    ),
]


@pytest.mark.parametrize(("sent", "expected"), CALLS)
async def test_calls_are_read_whole_and_once(
    provider: MockProvider, model: Remote, sent: bytes, expected: list[tuple[str, str | None]]
) -> None:
    provider.reply(raw(sent, chunk({}, "tool_calls"), DONE), cut())
    answer, _ = await ask(model, tools=TOOLS)
    made = [(one.name, json.loads(one.arguments_json).get("city")) for one in answer.calls]
    assert made == expected


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("content_filter: SAFETY", "CONTENT_FILTER"),
        ("ERROR_TOXIC", "CONTENT_FILTER"),
        ("max_new_tokens", "LENGTH"),
        ("ERROR_LIMIT", "LENGTH"),
        ("incomplete", "LENGTH"),
        ("FINISH_REASON_STOP", "STOP"),
    ],
)
async def test_a_finish_reason_is_known_by_its_parts(
    provider: MockProvider, model: Remote, word: str, reason: str
) -> None:
    provider.reply(raw(HI, chunk({}, word), DONE), cut())
    answer, _ = await ask(model)
    assert FinishReason.Name(answer.finish_reason) == f"FINISH_REASON_{reason}"


@pytest.mark.parametrize("word", ["length", "content_filter"])
async def test_a_second_finish_reason_does_not_hide_that_the_answer_was_cut(
    provider: MockProvider, model: Remote, word: str
) -> None:
    sent = calls(part(id="a", name="weather", arguments=OSLO[:5]))
    provider.reply(raw(sent, chunk({}, word), STOP, DONE), cut())
    answer, _ = await ask(model, tools=TOOLS)
    assert answer.calls == []
    assert FinishReason.Name(answer.finish_reason).lower().endswith(word)


@pytest.mark.parametrize(
    ("word", "retryable"),
    [
        ("function_call_filter: MALFORMED_FUNCTION_CALL", True),
        ("ERROR", True),
        ("TIMEOUT", True),
        ("USER_CANCEL", True),
        ({"type": "abort", "message": "too long", "status_code": 400}, False),
    ],
    ids=str,
)
async def test_an_answer_that_failed_says_so_in_its_finish_reason(
    provider: MockProvider,
    model: Remote,
    word: Any,
    retryable: bool,  # noqa: FBT001
) -> None:
    provider.reply(raw(HI, chunk({}, word), DONE), cut())
    assert (await failure(model)).retryable is retryable


ERRORS: list[tuple[Any, str, bool]] = [
    ({"choices": None, "base_resp": {"status_code": 1004, "status_msg": "no key"}}, "no key", True),
    ({"base_resp": {"status_code": 1, "status_msg": "insufficient balance"}}, "balance", False),
    ({"error_code": 17, "error_msg": "request limit reached"}, "limit reached", True),
    ({"success": False, "msg": "no luck"}, "no luck", True),
    ({"internalServerException": {"message": "crashed"}}, "crashed", True),
    ({"Message": "not yours", "__type": "AccessDeniedException"}, "not yours", False),
    ({"title": "Gateway timeout", "status": 504}, "Gateway timeout", True),
    ({"error": True, "message": "no GPU"}, "no GPU", True),
    ({"error": {"code": "data_inspection_failed", "message": "improper"}}, "improper", False),
    ({"detail": [{"loc": ["body", "x"], "msg": "wanted", "type": "missing"}]}, "wanted", False),
    ({"error": {"message": "no call", "type": "invalid_request_error", "code": "tool_use_failed"}},
     "no call", True),
]  # fmt: skip


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize(("told", "message", "retryable"), ERRORS, ids=str)
async def test_an_error_is_told_whatever_holds_it(  # noqa: PLR0917
    provider: MockProvider,
    model: Remote,
    told: Any,
    message: str,
    retryable: bool,  # noqa: FBT001
    streams: bool,  # noqa: FBT001
) -> None:
    provider.reply(*([raw(event(told)), cut()] if streams else [status(200, told)]))
    error = await failure(model)
    assert message in error.message
    assert error.retryable is retryable


async def test_an_error_in_a_field_of_its_own_is_told(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(raw(HI, b'error: {"code":400,"message":"too long"}\n\n'), cut())
    error = await failure(model)
    assert ("too long" in error.message, error.retryable) == (True, False)


@pytest.mark.parametrize(
    ("body", "message", "retryable"),
    [
        (b"", "empty or breaks off", True),
        (b'{"choices":[{"message":{"content":"Hi', "empty or breaks off", True),
        (b"no healthy upstream", "no healthy upstream", True),
        (b"Nothing to see", "base URL. It says: Nothing to see.", False),
        (b"<html><title>Log in</title></html>", "base URL. It says: Log in.", False),
        (b'{"message": "Forbidden"}', "Forbidden", False),
    ],
)
async def test_a_body_that_is_not_an_answer_is_quoted(
    provider: MockProvider,
    model: Remote,
    body: bytes,
    message: str,
    retryable: bool,  # noqa: FBT001
) -> None:
    provider.reply(status(200, body or b" "))
    error = await failure(model)
    assert message in error.message
    assert error.retryable is retryable


@pytest.mark.parametrize(
    "told",
    [
        {"choices": [{"message": {"content": "Hi there"}}]},
        {"result": {"response": "Hi there"}, "success": True, "errors": [], "messages": []},
    ],
    ids=str,
)
async def test_one_json_text_is_an_answer_even_if_it_does_not_say_that_it_has_ended(
    provider: MockProvider, model: Remote, told: Any
) -> None:
    provider.reply(status(200, told))
    assert (await ask(model))[0].text == "Hi there"


@pytest.mark.parametrize(
    ("used", "total"),
    [
        ({"prompt_tokens": "7", "completion_tokens": "3"}, 10),
        ({"promptTokens": 7, "completionTokens": 3}, 10),
        ({"prompt_tokens": 0, "completion_tokens": 0}, 5),
    ],
    ids=str,
)
async def test_tokens_that_were_counted_are_taken(
    provider: MockProvider, model: Remote, used: Any, total: int
) -> None:
    early = chunk({}, "stop", usage={"prompt_tokens": 4, "completion_tokens": 1})
    provider.reply(raw(HI, early, event({"choices": [], "usage": used}), DONE), cut())
    usage = (await ask(model))[0].usage
    assert usage is not None
    assert usage.total_tokens == total


@pytest.mark.parametrize(
    "sent",
    [
        [chunk({"content": text}, "stop", usage={"prompt_tokens": 1}) for text in "abc"],
        [
            event(
                {
                    "object": "chat.completion",
                    "usage": {"prompt_tokens": 7, "completion_tokens": 1},
                    "choices": [{"index": 0, "delta": {"content": text, "tool_calls": None}}],
                }
            )
            for text in "abc"
        ],
    ],
    ids=["finish reason", "object"],
)
async def test_an_answer_that_seems_to_end_in_each_chunk_is_read_on(
    provider: MockProvider, model: Remote, monkeypatch: pytest.MonkeyPatch, sent: list[bytes]
) -> None:
    for name in ("USAGE_SECONDS", "LAST_SECONDS"):
        monkeypatch.setattr(f"polos_service.models.exchange.{name}", 0.5)
    waits = [asyncio.Event() for _ in sent]
    pieces = [
        one for data, wait in zip(sent, waits, strict=True) for one in (raw(data), hold(wait))
    ]
    provider.reply(*pieces, Part((STOP, DONE, EndOfBody()), ends=True))
    asked = asyncio.ensure_future(ask(model))
    for wait in waits:
        await asyncio.sleep(0.3)
        wait.set()
    assert (await asked)[0].text == "abc"


@pytest.mark.parametrize(
    "text", ['{"a\\\\":"}\\"{"}', '[{},{"":[]}]', '{"a":"\\', "}{", '"{}"', ""]
)
def test_nesting_is_the_same_however_a_text_is_cut(text: str) -> None:
    whole = Nesting()
    whole.read(text)
    assert whole.closed == (text in ('{"a\\\\":"}\\"{"}', '[{},{"":[]}]', "}{"))
    for cut_at in range(len(text) + 1):
        pieces = Nesting()
        for piece in (text[:cut_at], "", text[cut_at:]):
            pieces.read(piece)
        assert pieces.closed == whole.closed
