"""What an operator configured for providers: what the factory of each of them is given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import SecretStr

from polos_service.config import SettingsInvalidError
from polos_service.models.allowed import Allowed
from polos_service.models.prices import Prices

if TYPE_CHECKING:  # slow to load: a service whose agents are scripted needs no HTTP
    from polos_service.models.preset import Account, Preset

FRAMING = frozenset({"connection", "content-length", "content-type", "host", "transfer-encoding"})
"""Headers that the service sends itself, and nobody configures."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The name of a header: a token of RFC 9110, section 5.6.2."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderConfig:
    """What the operator of a service configured.

    Attributes:
        environment: the environment variables by name. Keys are among them: do not log it.
        keys: the keys of POLOS_PROVIDER_KEYS, by the base URL that each is meant for.
        switches: what the operator turned off, by base URL: names of
            `polos_service.models.switches`.
        prices: the operator's own prices.
        allowed: the addresses that calls may go to.

    """

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    keys: Mapping[str, SecretStr] = field(default_factory=dict, repr=False)
    switches: Mapping[str, Sequence[str]] = field(default_factory=dict)
    prices: Prices = field(default_factory=Prices)
    allowed: Allowed = field(default_factory=Allowed)

    def account(self, preset: Preset) -> Account:
        """Return what is configured for the provider, from the variables that its preset names.

        Raises:
            SettingsInvalidError: a variable cannot be used. The message does not repeat it.

        """
        from polos_service.models.preset import Account  # noqa: PLC0415

        key = self._read(preset.key_variable)
        base_url = self._read(preset.url_variable)
        if base_url and not base_url.startswith(("http://", "https://")):
            raise SettingsInvalidError(
                f"{preset.url_variable}: does not start with http:// or https://"
            )
        headers = {
            name: value
            for variable, name in preset.headers.items()
            if (value := self._header(variable, self._read(variable)))
        }
        return Account(
            base_url=base_url or None,
            key=SecretStr(key) if key else None,
            headers=headers | self._further(preset.headers_variable),
            keys=self.keys,
            switches=self.switches,
            prices=self.prices,
            allowed=self.allowed,
        )

    def _read(self, variable: str | None) -> str:
        return self.environment.get(variable, "").strip() if variable else ""

    def _further(self, variable: str | None) -> dict[str, str]:
        headers = {}
        for line in self._read(variable).splitlines():
            if not line.strip():
                continue
            name, colon, value = (part.strip() for part in line.partition(":"))
            if not colon or not _NAME.fullmatch(name) or name.lower() in FRAMING:
                raise SettingsInvalidError(
                    f"{variable}: a line is not `Name: value` with the name of a header that can "
                    "be set"
                )
            headers[name] = self._header(variable, value)
        return headers

    def _header(self, variable: str | None, value: str) -> str:
        if not (value.isascii() and value.isprintable()):
            raise SettingsInvalidError(f"{variable}: is not plain text")
        return value
