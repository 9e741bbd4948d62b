"""Where the calls of a provider go, and with which key: each key goes to one address alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from urllib.parse import urlsplit

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models.address import Address
from polos_service.models.preset import Account, Preset

KEYS = "POLOS_PROVIDER_KEYS"
"""The setting with the keys of addresses that agents set themselves."""

ALLOW = "POLOS_PROVIDER_ALLOW"
"""The setting with the addresses that calls may go to."""

REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
"""Statuses of a key that is refused, or missing."""

PATHLESS = (
    "Either the model does not exist, this key cannot access it, or the provider's base URL is "
    "wrong: it has no path, and most servers need one, such as /v1."
)
"""The advice where nothing was found below a base URL that is a host alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """Where a call goes.

    Attributes:
        base_url: the base URL as it was configured, complete; user and password may be in it.
        address: the base URL, taken apart.
        key: plain text; empty if none is configured, and none is needed.
        headers: what the operator wants in each call of this address, by name in lower case.
        advice: what to do if the provider refuses a call, by HTTP status.

    """

    base_url: str = field(repr=False)
    address: Address
    key: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    advice: Mapping[int, str] = field(default_factory=dict)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown."""
        return tuple(filter(None, (self.key, *self.address.secrets, *self.headers.values())))


class Access:
    """The addresses and keys of one provider."""

    def __init__(self, preset: Preset, account: Account) -> None:
        self._preset = preset
        self._allowed = account.allowed
        self._base_url = preset.complete(account.base_url or preset.base_url or "")
        self._headers = lower(account.headers)
        self._keys = {
            preset.complete(url): key.get_secret_value().strip()
            for url, key in account.keys.items()
        }
        self._variable = preset.key_variable or KEYS
        if account.key is not None:
            self._keys[self._base_url] = account.key.get_secret_value().strip()
        elif self._base_url in self._keys:
            self._variable = KEYS

    def to(self, base_url: str | None) -> Destination:
        """Return where a call of an agent with this base URL goes.

        Raises:
            StepError: there is no such address, it is not allowed, or the key is missing or is not
                plain text.

        """
        where = self._complete(base_url)
        if not where:
            raise self._no_address()
        address = Address.of(where)
        if not self._allowed.permits(address.url):
            told = f"The {_forbidden(address)}."
            raise StepError(FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST, told)
        if setting := self._missing_key(address, where):
            other = self._preset.url_variable if setting != KEYS else None
            raise _unauthenticated(
                f"There is no key for {address.host}: set {setting} in the environment of the "
                + (f"service, or {other} for another server." if other else "service.")
            )
        key = self._keys.get(where, "")
        if flaw := _flaw(key):
            setting = self._setting(where)
            raise _unauthenticated(
                f"The key for {address.host} {flaw}: correct {setting} in the environment of the "
                "service."
            )
        headers = self._headers if where == self._base_url else {}
        there = Destination(base_url=where, address=address, key=key, headers=headers)
        return replace(there, advice=self._advice(there))

    def lacks(self, base_url: str | None) -> str:
        """Return what calls of an agent with this base URL lack; empty if nothing is known to."""
        where = self._complete(base_url)
        if not where:
            return f"{self._preset.url_variable or 'provider_base_url'} is not set"
        try:
            address = Address.of(where)
        except StepError:
            return "its base URL is not an http:// or https:// address"
        setting = self._missing_key(address, where)
        if setting == KEYS:
            return f"{KEYS} has no key for {address.host}"
        if setting:
            return f"{setting} is not set"
        flaw = _flaw(self._keys.get(where, ""))
        return f"the key for {address.host} in {self._setting(where)} {flaw}" if flaw else ""

    def refuses(self, base_url: str | None) -> str:
        """Return why calls of an agent with this base URL are not allowed; empty if they are."""
        try:
            address = Address.of(self._complete(base_url))
        except StepError:
            return ""  # nothing is sent there: `lacks` says why
        return "" if self._allowed.permits(address.url) else f"the {_forbidden(address)}"

    def _complete(self, base_url: str | None) -> str:
        return self._preset.complete(base_url) if base_url else self._base_url

    def _setting(self, base_url: str) -> str:
        """Return the setting that the key for an address belongs in."""
        return self._variable if base_url == self._base_url else KEYS

    def _advice(self, there: Destination) -> Mapping[int, str]:
        setting = self._setting(there.base_url)
        advice: dict[int, str] = {}
        if there.key:
            advice = dict.fromkeys(REFUSED, f"Check {setting} in the environment of the service.")
        elif not (there.address.authorization or "authorization" in there.headers):
            told = f"No key was sent: set {setting} in the environment of the service."
            advice = dict.fromkeys(REFUSED, told)
        if not urlsplit(there.address.url).path:
            advice[HTTPStatus.NOT_FOUND] = PATHLESS
        return advice

    def _missing_key(self, address: Address, base_url: str) -> str:
        """Return the setting that the key for an address should stand in; empty if none should."""
        own = base_url == self._base_url
        given = self._keys.get(base_url) or address.authorization
        if given or (own and "authorization" in self._headers):
            return ""
        if not (self._preset.needs_key and self._preset.owns(address)):
            return ""
        return self._setting(base_url)

    def _no_address(self) -> StepError:
        variable = self._preset.url_variable
        return StepError(
            FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST,
            f"The provider {self._preset.name} has no base URL: set the agent's provider_base_url"
            + (f", or {variable} in the environment of the service." if variable else "."),
        )


def _forbidden(address: Address) -> str:
    return (
        f"address {address.host} is not among those that {ALLOW} allows: change the agent's "
        "provider or provider_base_url, or add the address to the setting"
    )


def _flaw(key: str) -> str:
    """Return why this cannot be a key, as the end of a sentence; empty if it can be one."""
    if not (key.isascii() and key.isprintable()):
        return "is not plain text on one line"
    if key.startswith(("'", '"')):
        return "begins with a quotation mark"
    return "begins with the word Bearer" if key.lower().startswith("bearer ") else ""


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers by their names in lower case, so that one overrides another of its name."""
    return {name.lower(): value for name, value in headers.items()}


def _unauthenticated(message: str) -> StepError:
    return StepError(FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION, message)
