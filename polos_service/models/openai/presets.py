"""The providers that speak the APIs of OpenAI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polos_service.models import ModelRequest
from polos_service.models.address import Address
from polos_service.models.draft import Draft
from polos_service.models.failures import Failures
from polos_service.models.openai import chat_answer, chat_request, options
from polos_service.models.remote import Preset

OPENAI_URL = "https://api.openai.com/v1"
"""The base URL of OpenAI itself."""


class ChatCompletions:
    """The chat completions API."""

    path = chat_request.PATH

    def headers(self, key: str) -> Mapping[str, str]:
        """Return the Authorization header, if there is a key."""
        return {"Authorization": f"Bearer {key}"} if key else {}

    def body(self, request: ModelRequest, address: Address, provider: str) -> dict[str, Any]:
        """Return the parameters of a call."""
        return chat_request.body(request, address, provider)

    def reader(self, draft: Draft, failures: Failures, request: ModelRequest) -> chat_answer.Chunks:
        """Return what reads the answer to the request into the draft."""
        return chat_answer.Chunks(draft, failures, request.tools)


OPENAI = Preset(
    name="openai",
    apis={"chat_completions": ChatCompletions()},
    check=options.check,
    base_url=OPENAI_URL,
    key_variable="OPENAI_API_KEY",
    url_variable="OPENAI_BASE_URL",
    needs_key=True,
)
"""OpenAI, and any other server at an address of its own."""
