"""The Responses API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polos_service.models import ModelRequest
from polos_service.models.address import Address
from polos_service.models.draft import Draft
from polos_service.models.failures import Failures
from polos_service.models.openai import responses_request
from polos_service.models.openai.responses_answer import Events


@dataclass(frozen=True, kw_only=True, slots=True)
class Responses:
    """The Responses API.

    Attributes:
        key_header: the header in which the key goes as it is; None: as a bearer token.
        path: where requests go, behind the base URL.

    """

    key_header: str | None = None
    path: str = responses_request.PATH

    def headers(self, key: str) -> Mapping[str, str]:
        """Return the header with the key, if there is one."""
        if not key:
            return {}
        return {self.key_header: key} if self.key_header else {"Authorization": f"Bearer {key}"}

    def body(self, request: ModelRequest, address: Address, provider: str) -> dict[str, Any]:  # noqa: ARG002 - the same for all addresses
        """Return the parameters of a call."""
        return responses_request.body(request, provider)

    def reader(self, draft: Draft, failures: Failures, request: ModelRequest) -> Events:  # noqa: ARG002
        """Return what reads the answer to any request into the draft."""
        return Events(draft, failures)
