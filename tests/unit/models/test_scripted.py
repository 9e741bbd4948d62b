"""The provider `scripted`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import FinishReason, Usage
from polos_client.define.scripted import call, cut, fail, finish, pause, say, script, turn, usage
from polos_service.errors import StepError
from polos_service.models import ModelAnswer, ModelRequest
from polos_service.models.messages import Call, Message, Text
from polos_service.models.scripted import Scripted
from tests.support.models import Heard


async def play(text: str, **fields: Any) -> tuple[ModelAnswer, list[str]]:
    heard = Heard()
    messages = [Message(role="user", parts=(Text(text="What is this?"),))]
    request = ModelRequest(model=text, messages=messages, **fields)
    return await Scripted().answer(request, heard), heard


async def refused(text: str, **fields: Any) -> StepError:
    with pytest.raises(StepError) as raised:
        await play(text, **fields)
    return raised.value


async def test_text_is_emitted_in_its_pieces() -> None:
    answer, heard = await play(script(turn(say("Hello world"), say(["a", "b"]))))
    assert heard == ["Hello", " world", "a", "b"]
    assert answer.text == "Hello worldab"
    assert answer.finish_reason == FinishReason.FINISH_REASON_STOP


async def test_each_model_call_of_a_run_plays_its_turn() -> None:
    text = script("one", "two")
    assert [(await play(text, turn=n))[0].text for n in (1, 2)] == ["one", "two"]


async def test_assistant_messages_of_the_input_do_not_move_the_turn() -> None:
    request = ModelRequest(
        model=script("one", "two"), messages=[Message(role="assistant", parts=())] * 3
    )
    assert (await Scripted().answer(request, Heard())).text == "one"


async def test_tool_calls_have_ids_by_turn_and_place() -> None:
    answer, _ = await play(script("x", turn(call("add", a=1), call("sub", raw="{"))), turn=2)
    assert answer.calls == [
        Call(id="call_2_1", name="add", arguments_json='{"a": 1}'),
        Call(id="call_2_2", name="sub", arguments_json="{"),
    ]
    assert answer.finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS


async def test_an_attempt_after_the_first_plays_what_is_given_for_it() -> None:
    text = script(turn("first", fail(), retried=["again"]))
    assert (await refused(text)).retryable
    for attempt in (2, 3):
        assert (await play(text, attempt=attempt))[0].text == "again"


async def test_a_failure_is_that_of_the_script() -> None:
    error = await refused(script(turn(fail("model_rate_limited", "slow down", retryable=False))))
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED
    assert (error.message, error.retryable) == ("slow down", False)


async def test_a_cut_is_an_answer_cut_short() -> None:
    error = await refused(script(turn("Hel", cut())))
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_CUT_SHORT
    assert error.retryable


async def test_a_finish_reason_of_the_script_wins() -> None:
    answer, _ = await play(script(turn(call("f"), finish("length"))))
    assert answer.finish_reason == FinishReason.FINISH_REASON_LENGTH


async def test_words_count_as_tokens() -> None:
    answer, _ = await play(script("It is a test"))
    assert answer.usage == Usage(input_tokens=3, output_tokens=4, total_tokens=7)


async def test_usage_of_the_script_wins() -> None:
    answer, _ = await play(script(turn("x", usage(input_tokens=40, output_tokens=2))))
    assert answer.usage == Usage(input_tokens=40, output_tokens=2, total_tokens=42)


async def test_a_pause_lets_others_work_and_ends() -> None:
    answer, _ = await asyncio.wait_for(play(script(turn("a", pause(0.01), "b"))), 10)
    assert answer.text == "ab"


async def test_a_pause_without_end_can_be_cancelled() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(play(script(turn(pause()))), 0.05)


async def test_one_model_call_too_many_says_so() -> None:
    error = await refused(script("one", "two"), turn=3)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST
    assert not error.retryable
    assert "it has 2" in error.message
    assert "model call 3" in error.message


async def test_a_model_that_is_not_a_script_says_so() -> None:
    error = await refused("gpt-4o")
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST
    assert "'gpt-4o'" in error.message


def test_only_sampling_options_may_be_given() -> None:
    model = Scripted()
    assert model.check({"temperature": 1, "seed": 2, "top_p": 0.5}) == {}
    assert model.check({"temperature": 1, "stop": "x"}).keys() == {"stop"}
