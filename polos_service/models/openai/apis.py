"""The APIs of OpenAI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polos_service.models import ModelRequest
from polos_service.models.address import Address
from polos_service.models.draft import Draft
from polos_service.models.failures import Failures
from polos_service.models.openai import chat_request, responses_options, responses_request
from polos_service.models.openai import options as chat_options
from polos_service.models.openai.chat_answer import Chunks
from polos_service.models.openai.dialect import PLAIN, Dialect
from polos_service.models.openai.responses_answer import Events

OPENAI_HOST = "api.openai.com"
"""OpenAI's host; those of its regions are below it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Keyed:
    key_header: str | None = None

    def headers(self, key: str) -> Mapping[str, str]:
        """Return the header with the key, if there is one."""
        if not key:
            return {}
        return {self.key_header: key} if self.key_header else {"Authorization": f"Bearer {key}"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatCompletions(_Keyed):
    """The chat completions API.

    Attributes:
        dialect: what the provider's servers expect.
        dialect_of_openai: what OpenAI's own servers expect, if an agent's address is one of them.
        key_header: the header in which the key goes as it is; None: as a bearer token.
        path: where requests go, behind the base URL.

    """

    dialect: Dialect = PLAIN
    dialect_of_openai: Dialect | None = None
    path: str = chat_request.PATH

    def check(self, options: Mapping[str, Any]) -> Mapping[str, str]:
        """Return what is wrong with a run's model options, by name; empty if nothing is."""
        return chat_options.check(options)

    def body(self, request: ModelRequest, address: Address, provider: str) -> dict[str, Any]:
        """Return the parameters of a call."""
        own = self.dialect_of_openai if address.is_at(OPENAI_HOST) else None
        return chat_request.body(request, own or self.dialect, provider)

    def reader(self, draft: Draft, failures: Failures, request: ModelRequest) -> Chunks:
        """Return what reads the answer to the request into the draft."""
        return Chunks(draft, failures, request.tools)


@dataclass(frozen=True, kw_only=True, slots=True)
class Responses(_Keyed):
    """The Responses API.

    Attributes:
        key_header: the header in which the key goes as it is; None: as a bearer token.
        path: where requests go, behind the base URL.

    """

    path: str = responses_request.PATH

    def check(self, options: Mapping[str, Any]) -> Mapping[str, str]:
        """Return what is wrong with a run's model options, by name; empty if nothing is."""
        return responses_options.check(options)

    def body(self, request: ModelRequest, address: Address, provider: str) -> dict[str, Any]:  # noqa: ARG002 - the same for all addresses
        """Return the parameters of a call."""
        return responses_request.body(request, provider)

    def reader(self, draft: Draft, failures: Failures, request: ModelRequest) -> Events:  # noqa: ARG002
        """Return what reads the answer to any request into the draft."""
        return Events(draft, failures)
