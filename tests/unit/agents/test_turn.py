"""A model's answer is made to fit into events, whichever provider it comes from."""

from __future__ import annotations

import pytest

from polos.v1.event_pb2 import FinishReason
from polos_service.agents.turn import fitting
from polos_service.errors import StepError
from polos_service.limits import CALLS_LIMIT, ID_LIMIT, NAME_LIMIT
from polos_service.models import ModelAnswer
from polos_service.models.messages import Call


def answer(*calls: Call) -> ModelAnswer:
    """Return an answer that asks for these calls."""
    reason = FinishReason.FINISH_REASON_TOOL_CALLS
    return ModelAnswer(parts=calls, finish_reason=reason)


def test_an_id_that_is_too_long_is_replaced_and_a_name_cut() -> None:
    long = Call(id="é" * ID_LIMIT, name="é" * NAME_LIMIT, arguments_json="{}")
    (call,) = fitting(answer(long)).calls
    assert call.id.startswith("call_")
    assert call.name == "é" * (NAME_LIMIT // 2)
    assert call.arguments_json == "{}"


def test_what_fits_stays_as_it_is() -> None:
    call = Call(id="i" * ID_LIMIT, name="n" * NAME_LIMIT, arguments_json='{"a": 1}')
    assert list(fitting(answer(*[call] * CALLS_LIMIT)).calls) == [call] * CALLS_LIMIT


def test_too_many_calls_are_refused() -> None:
    with pytest.raises(StepError, match=f"{CALLS_LIMIT + 1} tool calls; the limit is"):
        fitting(answer(*[Call(id="i", name="n", arguments_json="{}")] * (CALLS_LIMIT + 1)))
