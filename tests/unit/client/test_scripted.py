"""Scripts survive their way as a model's name."""

from __future__ import annotations

import pytest

from polos.v1.error_pb2 import FailureReason
from polos_client.define.scripted import (
    Call,
    Cut,
    Fail,
    Finish,
    Pause,
    Say,
    Tokens,
    call,
    cut,
    fail,
    finish,
    parse,
    pause,
    say,
    script,
    turn,
    usage,
)
from polos_client.errors import DefinitionError


def test_every_part_comes_back_as_it_was_written() -> None:
    text = script(
        turn(
            "Hi there",
            call("add", a=1, name="x"),
            call("add", raw="{no"),
            pause(0.5),
            pause(),
            usage(input_tokens=3, output_tokens=4),
            finish("length"),
        ),
        cut(),
    )
    first, second = parse(text)
    assert first.parts == (
        Say(chunks=("Hi", " there")),
        Call(name="add", arguments_json='{"a": 1, "name": "x"}'),
        Call(name="add", arguments_json="{no"),
        Pause(seconds=0.5),
        Pause(seconds=None),
        Tokens(input_tokens=3, output_tokens=4),
        Finish(reason="length"),
    )
    assert second.parts == (Cut(),)


@pytest.mark.parametrize("text", ["one two", " lead", "trail ", "two\n\n lines\t", "", "   "])
def test_a_text_is_split_into_words_that_join_to_it(text: str) -> None:
    chunks = say(text).chunks
    assert "".join(chunks) == text
    assert all(chunks)


def test_given_pieces_stay_as_they_are() -> None:
    assert say(["a b", "", "c"]).chunks == ("a b", "c")


def test_a_retried_turn_plays_something_else_from_its_second_attempt() -> None:
    (one, same) = parse(script(turn(fail(), retried=["ok"]), "same"))
    assert one.of_attempt(1) == (
        Fail(reason="model_unavailable", message="the script fails here", retryable=True),
    )
    assert one.of_attempt(2) == one.of_attempt(3) == (Say(chunks=("ok",)),)
    assert same.of_attempt(2) == same.of_attempt(1)


def test_a_failure_s_reason_is_one_of_the_protocol() -> None:
    reason = fail("model_rate_limited", "slow down", retryable=False).failure_reason()
    assert reason == FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED
    with pytest.raises(DefinitionError, match="no failure reason 'boredom'"):
        fail("boredom")


@pytest.mark.parametrize("text", ["gpt-4o", "{}", '{"turns": [{"parts": [{"kind": "x"}]}]}'])
def test_what_is_no_script_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError, match="is not a script"):
        parse(text)
