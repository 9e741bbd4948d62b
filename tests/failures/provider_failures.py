"""The ways in which a provider fails, and what each of them makes of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from polos import AgentStream, Deadlines, Event, RunFailed
from polos_service.agents.loop import MODEL_TRIES
from tests.failures.scene import IMPATIENT, KEY
from tests.support.mock_answers import Part, call, chunk, cut, finish, hold, raw, reset, say, status

QUOTES = {"error": {"message": f"Incorrect API key provided: {KEY}."}}
QUOTA = {"error": {"message": f"No credit for {KEY}.", "code": "insufficient_quota"}}
MALFORMED = raw(b'data: {"choices": "' + KEY.encode() + b'"}\n\n')
BROKEN = raw(b"data: {" + KEY.encode() + b"\n\n")

SAID = "Incorrect API key provided: [hidden]."
REFUSED = f"{SAID} Check OPENAI_API_KEY in the environment of the service."
NOT_FOUND = (
    f"{SAID} Either the model does not exist, this key cannot access it, "
    "or the provider's base URL is wrong."
)
UNREADABLE = "it contains no text and no call, and choices is a string, which cannot be read."
NO_JSON = f"an event of {1 + len(KEY)} bytes is not valid JSON."
NO_FINISH = "the stream ended without a finish reason."


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A provider that fails in every try, and how the run ends.

    `says` is the text that comes before each failure. `message` is the whole message, with
    {of} for the model and its address.
    """

    reply: Callable[[], Sequence[Part]]
    reason: str
    message: str
    retryable: bool = True
    says: str = ""
    deadlines: Deadlines | None = None

    @property
    def tries(self) -> int:
        return MODEL_TRIES if self.retryable else 1

    @property
    def kinds(self) -> list[str]:
        if not self.says:
            return ["agent_start", "step_start", "step_finish", "error"]
        again = ["text_delta", "step_retry"] * (self.tries - 1)
        return ["agent_start", "step_start", *again, "text_delta", "step_finish", "error"]


FAILURES = {
    "401": Failure(
        reply=lambda: [status(401, QUOTES)],
        reason="model_authentication",
        message=f"Access to {{lower}} was refused (HTTP 401): {REFUSED}",
        retryable=False,
    ),
    "403": Failure(
        reply=lambda: [status(403, QUOTES)],
        reason="model_authentication",
        message=f"Access to {{lower}} was refused (HTTP 403): {REFUSED}",
        retryable=False,
    ),
    "404": Failure(
        reply=lambda: [status(404, QUOTES)],
        reason="model_not_found",
        message=f"{{of}} was not found (HTTP 404): {NOT_FOUND}",
        retryable=False,
    ),
    "400": Failure(
        reply=lambda: [status(400, QUOTES)],
        reason="model_bad_request",
        message="{of} refused the request (HTTP 400): " + SAID,
        retryable=False,
    ),
    "429 of a used up quota": Failure(
        reply=lambda: [status(429, QUOTA)],
        reason="model_rate_limited",
        message="The quota for {lower} is used up (HTTP 429): No credit for [hidden]. "
        "Add credit at the provider.",
        retryable=False,
    ),
    "429": Failure(
        reply=lambda: [status(429, QUOTES)],
        reason="model_rate_limited",
        message=f"{{of}} is rate limited (HTTP 429): {SAID}",
    ),
    "429 with Retry-After": Failure(
        reply=lambda: [status(429, QUOTES, retry_after="0.2")],
        reason="model_rate_limited",
        message=f"{{of}} is rate limited (HTTP 429): {SAID} The provider asks to wait 0.2 s.",
    ),
    "500": Failure(
        reply=lambda: [status(500, QUOTES)],
        reason="model_unavailable",
        message=f"{{of}} is unavailable (HTTP 500): {SAID}",
    ),
    "500 that asks to try again": Failure(
        reply=lambda: [status(500, QUOTES, x_should_retry="true")],
        reason="model_unavailable",
        message=f"{{of}} is unavailable (HTTP 500): {SAID}",
    ),
    "reset before the first token": Failure(
        reply=lambda: [raw(b":\n"), reset()],
        reason="model_unavailable",
        message="{of} could not be reached: the connection failed.",
    ),
    "reset in the middle": Failure(
        reply=lambda: [say("Half"), reset()],
        reason="model_cut_short",
        message="The answer of {lower} ended before it was complete: the connection failed.",
        says="Half",
    ),
    "cut before the first token": Failure(
        reply=lambda: [cut()],
        reason="model_cut_short",
        message=f"The answer of {{lower}} ended before it was complete: {NO_FINISH}",
    ),
    "cut after a token": Failure(
        reply=lambda: [say("Half"), cut()],
        reason="model_cut_short",
        message=f"The answer of {{lower}} ended before it was complete: {NO_FINISH}",
        says="Half",
    ),
    "cut in the middle of a chunk": Failure(
        reply=lambda: [say("Half"), raw(chunk({"content": "way"})[:-9]), cut()],
        reason="model_cut_short",
        message=f"The answer of {{lower}} ended before it was complete: {NO_FINISH}",
        says="Half",
    ),
    "cut in the middle of a tool call": Failure(
        reply=lambda: [call("add", '{"a": 1'), cut()],
        reason="model_cut_short",
        message=f"The answer of {{lower}} ended before it was complete: {NO_FINISH}",
    ),
    "malformed first chunk": Failure(
        reply=lambda: [MALFORMED, finish()],
        reason="model_malformed",
        message=f"The answer of {{lower}} violates the protocol: {UNREADABLE}",
        retryable=False,
    ),
    "malformed chunk after a token": Failure(
        reply=lambda: [say("Half"), BROKEN, finish()],
        reason="model_malformed",
        message=f"The answer of {{lower}} violates the protocol: {NO_JSON}",
        says="Half",
    ),
    "stall after the head": Failure(
        reply=lambda: [hold(asyncio.Event())],
        reason="model_first_token_timeout",
        message="{of} sent nothing for 0.8 s.",
        deadlines=IMPATIENT,
    ),
    "stall before the first token": Failure(
        reply=lambda: [raw(b":\n"), hold(asyncio.Event())],
        reason="model_stalled",
        message="{of} sent nothing in the middle of its answer for 0.4 s.",
        deadlines=IMPATIENT,
    ),
    "stall after a token": Failure(
        reply=lambda: [say("Half"), hold(asyncio.Event())],
        reason="model_stalled",
        message="{of} sent nothing in the middle of its answer for 0.4 s.",
        deadlines=IMPATIENT,
        says="Half",
    ),
}


def assert_told(end: Event, failure: Failure, url: str, request_id: str | None) -> None:
    """Assert what the run's last event says."""
    of = "model 'mock' at " + url.split("/")[2]
    assert end.data["error"] == failure.message.format(of=of.capitalize(), lower=of)
    assert end.data["reason"] == failure.reason
    assert end.data["retryable"] is failure.retryable
    assert end.data.get("provider_request_id") == request_id


async def assert_raises(stream: AgentStream, failure: Failure, end: Event) -> None:
    """Assert that both ways to the result raise what the last event says."""
    for outcome in (stream.text, stream.result):
        with pytest.raises(RunFailed) as failed:
            await outcome()
        error = failed.value
        assert (str(error), error.reason) == (end.data["error"], failure.reason)
        assert (error.retryable, error.run_id) == (failure.retryable, stream.id)
        assert (error.text, error.usage.total_tokens) == (failure.says, 0)
