"""The provider that speaks the Messages API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polos_service.models import ModelRequest
from polos_service.models.address import Address
from polos_service.models.anthropic import options
from polos_service.models.anthropic.answer import MessageEvents
from polos_service.models.anthropic.request import PATH, VERSION, body
from polos_service.models.draft import Draft
from polos_service.models.failures import Failures
from polos_service.models.preset import Preset

ANTHROPIC_URL = "https://api.anthropic.com"
"""The base URL of Anthropic itself."""


class Messages:
    """The Messages API."""

    path = PATH

    def check(self, chosen: Mapping[str, Any]) -> Mapping[str, str]:
        """Return what is wrong with a run's model options, by name; empty if nothing is."""
        return options.check(chosen)

    def headers(self, key: str) -> Mapping[str, str]:
        """Return the version of the API, and the key if there is one."""
        return {"anthropic-version": VERSION} | ({"x-api-key": key} if key else {})

    def body(
        self,
        request: ModelRequest,
        address: Address,  # noqa: ARG002 - the same for each
        provider: str,
    ) -> dict[str, Any]:
        """Return the parameters of a call."""
        return body(request, provider)

    def reader(
        self,
        draft: Draft,
        failures: Failures,
        request: ModelRequest,  # noqa: ARG002 - the same for each
    ) -> MessageEvents:
        """Return what reads the answer to a request into the draft."""
        return MessageEvents(draft, failures)


ANTHROPIC = Preset(
    name="anthropic",
    apis={"messages": Messages()},
    base_url=ANTHROPIC_URL,
    surplus_path="/v1",
    key_variable="ANTHROPIC_API_KEY",
    url_variable="ANTHROPIC_BASE_URL",
    headers_variable="ANTHROPIC_CUSTOM_HEADERS",
    needs_key=True,
    price_list="anthropic",
)
"""Anthropic, and any other server of its API at an address of its own."""
