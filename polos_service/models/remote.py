"""A provider that is asked over HTTP: one call of a model.

Whether to try again is the step's to decide.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import httpx2

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Cost, Usage
from polos_service.errors import StepError
from polos_service.models import ModelAnswer, ModelRequest, Output, connection, exchange
from polos_service.models.access import Access, lower
from polos_service.models.connection import LostError, RefusedError
from polos_service.models.cost import cost
from polos_service.models.draft import Draft
from polos_service.models.failures import Failures
from polos_service.models.preset import Account, Api, Check, Preset
from polos_service.models.silence import Silence, SilentError

__all__ = ["Account", "Api", "Check", "Preset", "Remote"]


class Remote:
    """A provider over HTTP."""

    def __init__(self, preset: Preset, account: Account) -> None:
        """Keep the configuration; nothing is connected before the first call of `answer`."""
        self._preset = preset
        self._access = Access(preset, account)
        self._prices = account.prices
        self._clients: dict[str, httpx2.AsyncClient] = {}
        # One for all addresses: reading the certificates takes a tenth of a second.
        self._tls = httpx2.create_ssl_context()

    @property
    def apis(self) -> Collection[str]:
        """The APIs that an agent may choose."""
        return self._preset.apis.keys()

    def lacks(self, base_url: str | None) -> str:
        """Return what calls of an agent with this base URL lack; empty if nothing is known to."""
        return self._access.lacks(base_url)

    def check(self, options: Mapping[str, Any], api: str | None = None) -> Mapping[str, str]:
        """Return what is wrong with a run's model options, by name; empty if nothing is."""
        name = api or next(iter(self._preset.apis))
        return self._preset.checks.get(name, self._preset.check)(options)

    async def answer(self, request: ModelRequest, output: Output) -> ModelAnswer:
        """Ask the model once, passing text and reasoning to `output` as they come.

        Cancelling closes the connection to the provider.

        Raises:
            StepError: the call failed; reason, message and retryable say how.

        """
        there = self._access.to(request.base_url)
        address = there.address
        api = self._api(request.api)
        request, extra = _apart(request)
        failures = Failures(address.host, request.model, (*there.secrets, *extra.values()))
        draft = Draft(failures, self._preset.name)
        reader = api.reader(draft, failures, request)
        headers = {**lower(api.headers(there.key)), **there.headers, **extra}
        if address.authorization and not there.key:
            headers.setdefault("authorization", address.authorization)
        body = api.body(request, address, self._preset.name)
        failure: StepError | None = None
        try:
            async with Silence(request, failures.of) as silence:
                client = self._client(there.base_url)
                response = await connection.send(client, address.url + api.path, headers, body)
                try:
                    await exchange.read(response, reader, draft, output, failures, silence)
                finally:
                    await response.aclose()
        except RefusedError as refused:
            failure = failures.status(refused.status, refused.body, refused.headers)
        except LostError:
            failure = failures.lost(after_output=draft.begun)
        except SilentError as error:
            failure = failures.silent(error)
        if failure is not None and not draft.whole:
            # Raised out here so that the package's error, which holds the request with its
            # key and the provider's text, does not travel along as its context.
            raise failure
        return draft.answer(self._cost(draft.usage, request.model, address.url))

    async def close(self) -> None:
        """Close every connection."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.aclose()

    def _api(self, name: str | None) -> Api:
        apis = self._preset.apis
        if name is not None and name not in apis:
            raise StepError(
                FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST,
                f"The provider {self._preset.name} has no API {name!r}; it has {', '.join(apis)}.",
            )
        return apis[name] if name is not None else next(iter(apis.values()))

    def _client(self, base_url: str) -> httpx2.AsyncClient:
        if base_url not in self._clients:
            self._clients[base_url] = connection.connect(self._tls)
        return self._clients[base_url]

    def _cost(self, usage: Usage | None, model: str, base_url: str) -> Cost | None:
        if usage is None:
            return None
        own = self._prices.cost(usage, model, self._preset.name, base_url)
        return own or cost(usage, model, base_url, self._preset.price_list)


def _apart(request: ModelRequest) -> tuple[ModelRequest, Mapping[str, str]]:
    """Return the request whose settings are all for the body, and those that are headers."""
    if not request.settings:
        return request, {}
    body = {**request.settings}
    headers = body.pop("extra_headers", {})
    body |= body.pop("extra_body", {})
    return replace(request, settings=body), lower(headers)
