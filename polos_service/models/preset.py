"""What is known of a provider, and what an operator configured for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import SecretStr

from polos_service.models import ModelRequest
from polos_service.models.address import Address
from polos_service.models.allowed import Allowed
from polos_service.models.draft import Draft, Reader
from polos_service.models.failures import Failures
from polos_service.models.prices import Prices


class Api(Protocol):
    """One API of a provider: what a request looks like, and how an answer is read."""

    @property
    def path(self) -> str:
        """Where requests go, behind the base URL."""
        ...

    def check(self, options: Mapping[str, Any]) -> Mapping[str, str]:
        """Return what is wrong with a run's model options, by name; empty if nothing is."""
        ...

    def headers(self, key: str) -> Mapping[str, str]:
        """Return what the API wants in the headers; `key` is empty if there is none."""
        ...

    def body(self, request: ModelRequest, address: Address, provider: str) -> dict[str, Any]:
        """Return the parameters of a call; a run's options override the agent's definition."""
        ...

    def reader(self, draft: Draft, failures: Failures, request: ModelRequest) -> Reader:
        """Return what reads the answer to the request into the draft."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """What is known of a provider.

    Attributes:
        name: what agents call it.
        apis: by name; the first is its default.
        base_url: its address; None if every installation has its own.
        base_path: added to an address without a path, with a slash before and none behind it.
        surplus_path: left out at the end of an address: some write it there, some do not.
        hosts: the provider's own beside that of `base_url`; those below them count, too.
        key_variable: the environment variable with its key; None if it wants none.
        url_variable: the environment variable with another address; None if there is none.
        headers: by environment variable, the header in which its value goes to the
            configured address.
        headers_variable: the environment variable with further headers for that address, a line
            `Name: value` for each; None if there is none.
        needs_key: whether the provider's own hosts refuse calls without a key.
        price_list: its id in `genai-prices`, for addresses that are not listed there; None if
            its prices depend on the address.

    """

    name: str
    apis: Mapping[str, Api]
    base_url: str | None
    base_path: str = ""
    surplus_path: str = ""
    hosts: tuple[str, ...] = ()
    key_variable: str | None = None
    url_variable: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    headers_variable: str | None = None
    needs_key: bool = False
    price_list: str | None = None

    def complete(self, base_url: str) -> str:
        """Return a base URL without a slash at its end, and with the path that it should have.

        What is left out is the path of an API: some give the whole address of their requests.
        """
        bare = base_url.strip().rstrip("/")
        for api in self.apis.values():
            bare = bare.removesuffix(api.path)
        bare = bare.removesuffix(self.surplus_path)
        _, _, place = bare.partition("://")
        return bare + self.base_path if place and "/" not in place else bare

    def owns(self, address: Address) -> bool:
        """Return whether it is the provider itself that answers at an address."""
        own = (Address.of(self.base_url).name,) if self.base_url else ()
        return any(address.is_at(host) for host in (*own, *self.hosts))


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
        prices: the operator's own.
        allowed: the addresses that calls may go to.

    """

    base_url: str | None = None
    key: SecretStr | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    keys: Mapping[str, SecretStr] = field(default_factory=dict, repr=False)
    switches: Mapping[str, Sequence[str]] = field(default_factory=dict)
    prices: Prices = field(default_factory=Prices)
    allowed: Allowed = field(default_factory=Allowed)
