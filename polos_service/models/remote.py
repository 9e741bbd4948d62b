"""A provider that is asked over HTTP: its addresses, their keys, and one call of a model.

Whether to try again is the step's to decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx2
from pydantic import SecretStr

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models import ModelAnswer, ModelRequest, Output, exchange, sending, switches
from polos_service.models.address import Address
from polos_service.models.connection import Client, RefusedError, Response
from polos_service.models.cost import cost
from polos_service.models.draft import Draft, Reader
from polos_service.models.failures import Failures
from polos_service.models.lost import LostError
from polos_service.models.silence import Silence, SilentError
from polos_service.models.told import told_in

Check = Callable[[Mapping[str, Any]], Mapping[str, str]]
"""Returns what is wrong with a run's model options, by name; empty if nothing is."""


STRICT = (400, 422)
"""Statuses with which a server refuses a field that it does not know."""


class Api(Protocol):
    """One API of a provider: what a request looks like, and how an answer is read."""

    @property
    def path(self) -> str:
        """Where requests go, behind the base URL."""
        ...

    def headers(self, key: str) -> Mapping[str, str]:
        """Return what the API wants in the headers; `key` is empty if there is none."""
        ...

    def body(self, request: ModelRequest, address: Address, provider: str) -> dict[str, Any]:
        """Return the parameters of a call; a run's options override the agent's definition."""
        ...

    def reader(self, draft: Draft, failures: Failures) -> Reader:
        """Return what reads one answer into the draft."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """What is known of a provider.

    Attributes:
        name: what agents call it.
        apis: by name; the first is its default.
        check: which options a run may choose.
        base_url: its address; None if every installation has its own.
        key_variable: the environment variable with its key; None if it wants none.
        url_variable: the environment variable with another address; None if there is none.
        needs_key: whether the default address refuses calls without a key.

    """

    name: str
    apis: Mapping[str, Api]
    check: Check
    base_url: str | None
    key_variable: str | None = None
    url_variable: str | None = None
    needs_key: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """What an operator configured for a provider.

    Attributes:
        base_url: where the calls of agents without a base URL of their own go; None: the
            provider's default.
        key: for that address, and for no other.
        headers: sent to that address alone.
        keys: further keys, by the base URL that each is meant for.
        switches: what is turned off, by base URL: names of `polos_service.models.switches`.

    """

    base_url: str | None = None
    key: SecretStr | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, SecretStr] = field(default_factory=dict)
    switches: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Place:
    """What is kept for a base URL.

    Attributes:
        address: the base URL, taken apart.
        client: the connections to it.
        off: what is turned off there, by the operator, or since the server refused it.

    """

    address: Address
    client: Client
    off: set[str]


class Remote:
    """A provider over HTTP. Each key goes to the one address that it was configured for."""

    def __init__(self, preset: Preset, account: Account) -> None:
        """Keep the configuration; nothing is connected before the first call of `answer`."""
        self._preset = preset
        self._base_url = _normal(account.base_url or preset.base_url or "")
        self._headers = account.headers
        self._keys = {_normal(url): key for url, key in account.keys.items()}
        if account.key is not None:
            self._keys[self._base_url] = account.key
        self._switches = {_normal(url): names for url, names in account.switches.items()}
        self._places: dict[str, _Place] = {}
        # One for all addresses: reading the certificates takes a tenth of a second.
        self._tls = httpx2.create_ssl_context()

    def check(self, options: Mapping[str, Any]) -> Mapping[str, str]:
        """Return what is wrong with a run's model options, by name; empty if nothing is."""
        return self._preset.check(options)

    async def answer(self, request: ModelRequest, output: Output) -> ModelAnswer:
        """Ask the model once, passing text and reasoning to `output` as they come.

        Cancelling closes the connection to the provider.

        Raises:
            StepError: the call failed; reason, message and retryable say how.

        """
        base_url = _normal(request.base_url or self._base_url)
        place = self._place(base_url)
        address = place.address
        key = self._key(address, base_url)
        api = self._api(request.api)
        own = self._headers if base_url == self._base_url else {}
        secrets = (key, *address.secrets, *place.client.secrets, *own.values())
        failures = Failures(address.host, request.model, filter(None, secrets))
        failures.proxy = place.client.proxy
        draft = Draft(failures, self._preset.name)
        reader = api.reader(draft, failures)
        headers = {**api.headers(key), **own}
        if not key and address.authorization:
            headers["Authorization"] = address.authorization
        failure: StepError | None = None
        try:
            async with Silence(request, failures.of) as silence:
                response = await self._send(request, api, headers, place)
                try:
                    await exchange.read(response, reader, output, failures, silence)
                finally:
                    response.close()
        except RefusedError as refused:
            failure = failures.status(refused.status, refused.body, refused.headers)
        except LostError as lost:
            failure = failures.lost(lost, after_output=draft.begun)
        except SilentError as error:
            failure = failures.silent(error)
        if failure is not None and draft.finish is None:
            # Raised out here so that the package's error, which holds the request with its
            # key and the provider's text, does not travel along as its context.
            raise failure
        usage = draft.usage
        price = None if usage is None else cost(usage, request.model, address.url)
        return draft.answer(price)

    async def close(self) -> None:
        """Close every connection."""
        while self._places:
            _, place = self._places.popitem()
            await place.client.close()

    async def _send(
        self, request: ModelRequest, api: Api, headers: Mapping[str, str], place: _Place
    ) -> Response:
        """Send a request; once more without each field of ours that the server refuses.

        Raises:
            LostError: no answer came.
            RefusedError: the provider answered with another status than success.

        """
        chosen = {*request.options, *request.settings}
        refusals = 0
        off = frozenset(place.off)

        def build() -> dict[str, Any]:
            body = api.body(request, place.address, self._preset.name)
            switches.apply(body, off, chosen)
            return body

        while True:
            body, data = await sending.encode(request, build)
            try:
                return await place.client.send(place.address.url + api.path, headers, data)
            except RefusedError as error:
                refusals += 1
                if error.status not in STRICT or refusals > switches.MAX_REFUSALS:
                    raise
                told = told_in(error.body)
                name = await asyncio.to_thread(switches.refused, told, body, off, chosen)
                if name is None:
                    raise
                place.off.add(name)
                off |= {name}

    def _api(self, name: str | None) -> Api:
        apis = self._preset.apis
        return apis[name] if name is not None else next(iter(apis.values()))

    def _place(self, base_url: str) -> _Place:
        if base_url not in self._places:
            address = Address.of(base_url)
            off = set(self._switches.get(base_url, ()))
            self._places[base_url] = _Place(address, Client(address.url, self._tls), off)
        return self._places[base_url]

    def _key(self, address: Address, base_url: str) -> str:
        """Return the key for an address; empty if none is configured, and none is needed.

        Raises:
            StepError: the key is missing, or is not plain text.

        """
        secret = self._keys.get(base_url)
        key = secret.get_secret_value().strip() if secret is not None else ""
        if not key and address.is_openai and not address.authorization:
            raise _unauthenticated(
                f"There is no key for {address.host}: set OPENAI_API_KEY, "
                "or OPENAI_BASE_URL for another server,"
            )
        if not (key.isascii() and key.isprintable()):
            raise _unauthenticated(f"The key for {address.host} is not plain text: set it again")
        return key


def _unauthenticated(what: str) -> StepError:
    return StepError(
        FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION,
        f"{what} in the environment of the service, which sends it to the configured address only.",
    )


def _normal(base_url: str) -> str:
    return base_url.strip().rstrip("/")
