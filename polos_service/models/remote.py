"""A provider that is asked over HTTP: one call of a model.

Whether to try again is the step's to decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Cost, Usage
from polos_service.errors import StepError
from polos_service.models import ModelAnswer, ModelRequest, Output, exchange, sending, switches
from polos_service.models.access import Access, Destination, lower
from polos_service.models.connection import Client, RefusedError, Response
from polos_service.models.cost import cost as listed_cost
from polos_service.models.draft import Draft
from polos_service.models.failures import Failures
from polos_service.models.lost import LostError
from polos_service.models.preset import Account, Api, Preset
from polos_service.models.silence import Silence, SilentError
from polos_service.models.told import told_in

STRICT = (400, 422)
"""Statuses with which a server refuses a field that it does not know."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What is kept for a base URL.

    Attributes:
        client: the connections to it.
        off: what is turned off there, by the operator, or since the server refused it.
        told: the models and forms of answers for which the server refused a schema.

    """

    client: Client
    off: set[str]
    told: set[tuple[str, str]] = field(default_factory=set)


class Remote:
    """A provider over HTTP."""

    def __init__(self, preset: Preset, account: Account) -> None:
        """Keep the configuration; nothing is connected before the first call of `answer`."""
        self._preset = preset
        self._access = Access(preset, account)
        self._prices = account.prices
        self._switches = {preset.complete(url): names for url, names in account.switches.items()}
        self._places: dict[str, _Place] = {}
        # One for all addresses: reading the certificates takes a tenth of a second.
        self._tls = httpx2.create_ssl_context()

    @property
    def apis(self) -> Collection[str]:
        """The APIs that an agent may choose."""
        return self._preset.apis.keys()

    def lacks(self, base_url: str | None) -> str:
        """Return what calls of an agent with this base URL lack; empty if nothing is known to."""
        return self._access.lacks(base_url)

    def refuses(self, base_url: str | None) -> str:
        """Return why an agent with this base URL cannot be loaded; empty if it can."""
        return self._access.refuses(base_url)

    def priced(self, model: str, base_url: str | None) -> bool:
        """Return whether the price of a model is known at the agent's base URL."""
        one = Usage(input_tokens=1, output_tokens=1, total_tokens=2)
        return self._cost(one, model, self._access.to(base_url).address.url) is not None

    def check(self, options: Mapping[str, Any], api: str | None = None) -> Mapping[str, str]:
        """Return what is wrong with a run's model options, by name; empty if nothing is."""
        return self._api(api).check(options)

    async def answer(self, request: ModelRequest, output: Output) -> ModelAnswer:
        """Ask the model once, passing text and reasoning to `output` as they come.

        Cancelling closes the connection to the provider.

        Raises:
            StepError: the call failed; reason, message and retryable say how.

        """
        api = self._api(request.api)
        there = self._access.to(request.base_url)
        address, place = there.address, self._place(there)
        request, extra = _apart(request)
        secrets = (*there.secrets, *extra.values(), *place.client.secrets)
        failures = Failures(address.host, request.model, secrets)
        draft = Draft(failures, self._preset.name)
        reader = api.reader(draft, failures, request)
        headers = {**lower(api.headers(there.key)), **there.headers, **extra}
        if address.authorization and not there.key:
            headers.setdefault("authorization", address.authorization)
        failures.proxy = place.client.proxy
        failures.advice = there.advice
        with self._counting(draft, request.model, address.url):
            failure: StepError | None = None
            try:
                async with Silence(request, failures.of) as silence:
                    response = await self._send(request, api, headers, there)
                    try:
                        await exchange.read(response, reader, draft, output, failures, silence)
                    finally:
                        response.close()
            except RefusedError as refused:
                failure = failures.status(refused.status, refused.body, refused.headers)
            except LostError as lost:
                failure = failures.lost(lost, after_output=draft.begun)
            except SilentError as error:
                failure = failures.silent(error)
            if failure is not None and not draft.whole:
                # Raised out here so that the package's error, which holds the request with its
                # key and the provider's text, does not travel along as its context.
                raise failure
            cost = self._cost(draft.usage, request.model, address.url)
            if draft.long:
                return await asyncio.to_thread(draft.answer, cost)
            return draft.answer(cost)

    async def close(self) -> None:
        """Close every connection."""
        while self._places:
            _, place = self._places.popitem()
            await place.client.close()

    async def _send(
        self, request: ModelRequest, api: Api, headers: Mapping[str, str], there: Destination
    ) -> Response:
        """Send a request; once more without each field of ours that the server refuses.

        Raises:
            LostError: no answer came.
            RefusedError: the provider answered with another status than success.

        """
        chosen = {*request.options, *request.settings}
        place = self._place(there)
        refusals = 0
        form = (request.model, request.output.name if request.output else "")
        off = frozenset(place.off | (switches.FORMATS.keys() if form in place.told else set()))

        def build() -> dict[str, Any]:
            body = api.body(request, there.address, self._preset.name)
            switches.apply(body, off, chosen)
            return body

        while True:
            body, data = await sending.encode(request, build)
            try:
                return await place.client.send(there.address.url + api.path, headers, data)
            except RefusedError as error:
                refusals += 1
                if error.status not in STRICT or refusals > switches.MAX_REFUSALS:
                    raise
                told = told_in(error.body)
                name = await asyncio.to_thread(switches.refused, told, body, off, chosen)
                if name is None:
                    raise
                if name in switches.FORMATS:
                    place.told.add(form)
                else:
                    place.off.add(name)
                off |= {name}

    def _api(self, name: str | None) -> Api:
        apis = self._preset.apis
        if name is not None and name not in apis:
            raise StepError(
                FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST,
                f"The provider {self._preset.name} has no API {name!r}; it has {', '.join(apis)}.",
            )
        return apis[name] if name is not None else next(iter(apis.values()))

    def _place(self, there: Destination) -> _Place:
        url = there.base_url
        if url not in self._places:
            off = set(self._switches.get(url, ()))
            self._places[url] = _Place(Client(there.address.url, self._tls), off)
        return self._places[url]

    @contextmanager
    def _counting(self, draft: Draft, model: str, base_url: str) -> Iterator[None]:
        """Let a failure of the call tell the tokens that the provider has reported by then."""
        try:
            yield
        except StepError as error:
            error.used(draft.usage, self._cost(draft.usage, model, base_url))
            raise

    def _cost(self, usage: Usage | None, model: str, base_url: str) -> Cost | None:
        if usage is None:
            return None
        own = self._prices.cost(usage, model, self._preset.name, base_url)
        if own is not None:
            return own
        return listed_cost(usage, model, base_url, self._preset.price_list)


def _apart(request: ModelRequest) -> tuple[ModelRequest, Mapping[str, str]]:
    """Return the request whose settings are all for the body, and those that are headers."""
    if not request.settings:
        return request, {}
    body = {**request.settings}
    headers = body.pop("extra_headers", {})
    body |= body.pop("extra_body", {})
    return replace(request, settings=body), lower(headers)
