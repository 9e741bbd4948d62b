"""A server that answers in another API than the agent names, or with what is no answer at all."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from polos.v1.error_pb2 import FailureReason
from polos_service.models.built_in import BUILT_IN
from polos_service.models.configured import ProviderConfig
from tests.support import mock_answers, mock_anthropic, mock_responses
from tests.support.mock_answers import finish, status
from tests.support.mock_provider import MockProvider
from tests.support.models import REQUEST, failure

APIS = {
    "chat_completions": "a chat completion",
    "responses": "an answer of the Responses API",
    "messages": "an answer of the Messages API",
}
"""What the failure calls the answer of each API."""

SAID = {
    "chat_completions": [mock_answers.say("Hi"), finish("stop")],
    "responses": [mock_responses.responses(mock_responses.say("Hi"))],
    "messages": mock_anthropic.answer(mock_anthropic.start(), mock_anthropic.say("Hi")),
}
"""The same in each API, as a stream."""

WHOLE = {
    "chat_completions": {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]},
    "responses": mock_responses.response("completed", [mock_responses.say("Hi").done]),
    "messages": {"type": "message", "content": [], "stop_reason": "end_turn"},
}
"""The same, not as a stream."""


async def fails(provider: MockProvider, api: str) -> tuple[FailureReason.ValueType, bool, str]:
    """Return how a call of a server that is said to have this API fails."""
    name = "anthropic" if api == "messages" else "openai"
    model = BUILT_IN[name](ProviderConfig())
    url = provider.url.removesuffix("/v1") if api == "messages" else provider.url
    error = await failure(model, request=replace(REQUEST, base_url=url, api=api))
    await model.close()
    return error.reason, error.retryable, error.message


@pytest.mark.parametrize("whole", [False, True], ids=["stream", "whole"])
@pytest.mark.parametrize(("asked", "said"), list(permutations(APIS, 2)))
async def test_an_answer_of_another_api_is_named_and_not_asked_for_again(
    provider: MockProvider, asked: str, said: str, *, whole: bool
) -> None:
    provider.reply(*([status(200, WHOLE[said])] if whole else SAID[said]))
    reason, retryable, message = await fails(provider, asked)
    assert (reason, retryable) == (FailureReason.FAILURE_REASON_MODEL_MALFORMED, False)
    assert f"it is {APIS[said]}; check the provider" in message


@pytest.mark.parametrize("api", APIS)
async def test_an_error_in_a_form_of_its_own_with_status_200_is_told(
    provider: MockProvider, api: str
) -> None:
    provider.reply(status(200, {"success": False, "code": 1113, "msg": "Your balance is low."}))
    _, _, message = await fails(provider, api)
    assert "(error in the answer): Your balance is low." in message


@pytest.mark.parametrize("api", APIS)
async def test_json_that_says_nothing_is_not_an_answer(provider: MockProvider, api: str) -> None:
    provider.reply(status(200, {"status": "ok"}))
    _, retryable, message = await fails(provider, api)
    assert not retryable
    assert "neither an event stream nor an answer" in message
