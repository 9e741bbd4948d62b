"""Where the calls of a provider go, and with which key: each key goes to one address alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models.address import Address
from polos_service.models.preset import Account, Preset

KEYS = "POLOS_PROVIDER_KEYS"
"""The setting with the keys of addresses that agents set themselves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """Where a call goes.

    Attributes:
        base_url: the base URL as it was configured, complete; user and password may be in it.
        address: the base URL, taken apart.
        key: plain text; empty if none is configured, and none is needed.
        headers: what the operator wants in each call of this address, by name in lower case.

    """

    base_url: str = field(repr=False)
    address: Address
    key: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown."""
        return tuple(filter(None, (self.key, *self.address.secrets, *self.headers.values())))


class Access:
    """The addresses and keys of one provider."""

    def __init__(self, preset: Preset, account: Account) -> None:
        self._preset = preset
        self._base_url = preset.complete(account.base_url or preset.base_url or "")
        self._headers = lower(account.headers)
        self._keys = {
            preset.complete(url): key.get_secret_value().strip()
            for url, key in account.keys.items()
        }
        if account.key is not None:
            self._keys[self._base_url] = account.key.get_secret_value().strip()

    def to(self, base_url: str | None) -> Destination:
        """Return where a call of an agent with this base URL goes.

        Raises:
            StepError: there is no such address, or the key is missing or is not plain text.

        """
        where = self._complete(base_url)
        if not where:
            raise self._no_address()
        address = Address.of(where)
        if setting := self._missing_key(address, where):
            other = self._preset.url_variable if setting != KEYS else None
            raise _unauthenticated(
                f"There is no key for {address.host}: set {setting}"
                + (f", or {other} for another server," if other else "")
            )
        if not self._is_plain(where):
            raise _unauthenticated(f"The key for {address.host} is not plain text: set it again")
        headers = self._headers if where == self._base_url else {}
        key = self._keys.get(where, "")
        return Destination(base_url=where, address=address, key=key, headers=headers)

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
        return "" if self._is_plain(where) else f"the key for {address.host} is not plain text"

    def _complete(self, base_url: str | None) -> str:
        return self._preset.complete(base_url) if base_url else self._base_url

    def _is_plain(self, base_url: str) -> bool:
        key = self._keys.get(base_url, "")
        return key.isascii() and key.isprintable()

    def _missing_key(self, address: Address, base_url: str) -> str:
        """Return the setting that the key for an address should stand in; empty if none should."""
        own = base_url == self._base_url
        given = self._keys.get(base_url) or address.authorization
        if given or (own and "authorization" in self._headers):
            return ""
        if not (self._preset.needs_key and self._preset.owns(address)):
            return ""
        return (own and self._preset.key_variable) or KEYS

    def _no_address(self) -> StepError:
        variable = self._preset.url_variable
        return StepError(
            FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST,
            f"The provider {self._preset.name} has no base URL: set the agent's provider_base_url"
            + (f", or {variable} in the environment of the service." if variable else "."),
        )


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers by their names in lower case, so that one overrides another of its name."""
    return {name.lower(): value for name, value in headers.items()}


def _unauthenticated(what: str) -> StepError:
    return StepError(
        FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION,
        f"{what} in the environment of the service, which sends it to the configured address only.",
    )
