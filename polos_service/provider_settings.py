"""Settings of the providers of models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

RESERVED = frozenset(
    {
        *("api_base", "api_key", "api_version", "base_url", "default_headers", "headers"),
        *("extra_body", "extra_headers", "extra_query", "input", "instructions", "messages"),
        *("model", "stream", "stream_options", "system", "tools"),
    }
)
"""Parameters of a model call that the service sets itself, or that would set others."""

SwitchName = Literal[
    "stream_options",
    "parallel_tool_calls",
    "tool_choice",
    "store",
    "include",
    "max_tokens",
    "max_completion_tokens",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "extra_content",
    "response_format",
    "text",
    "output_config",
]
"""A field that Polos adds to requests by itself; see polos_service/models/switches.py."""


class ProviderSettings(BaseSettings):
    """The settings of keys, addresses, prices and what callers may choose."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True)

    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    """The API key for OPENAI_BASE_URL. It is never sent to another address."""

    openai_base_url: str | None = Field(
        default=None, validation_alias="OPENAI_BASE_URL", repr=False
    )
    """The base URL for agents of the provider `openai` that do not set their own. Any server with a
    compatible API works. The default is OpenAI itself."""

    provider_keys: dict[str, SecretStr] = Field(default_factory=dict, repr=False)
    """A JSON object that maps each `provider_base_url` of an agent to its API key. A base URL
    without a key is called without authentication."""

    provider_environment: dict[str, str] = Field(
        default_factory=lambda: dict(os.environ), repr=False
    )
    """A JSON object with the variables that providers read: keys, base URLs and headers. The
    default is the environment of the service."""

    provider_allow: list[str] | None = None
    """A JSON list of the addresses that agents may call: `HOST`, `HOST:PORT` (without a port, that
    of http:// or https://), or a base URL, which allows everything below it; `*.` before a
    host allows all hosts below it. An agent with another address is not loaded, and a run that was
    started with one fails. By default all addresses are allowed."""

    caller_options: list[str] = Field(default_factory=list)
    """A JSON list of further model options that a caller may choose for a run, for example
    `["top_k"]`. Providers get them unchecked."""

    prices: Path | None = None
    """Path to a JSON file with prices of models, which add to the built-in price list and take
    precedence over it: see docs/providers.md."""

    provider_switches: dict[str, list[SwitchName]] = Field(default_factory=dict, repr=False)
    """A JSON object that maps a base URL to a list of the fields that its server refuses. They are
    left out of requests unless an agent or a caller sets them: `stream_options`,
    `parallel_tool_calls`, `tool_choice`, `store`, `include`, `reasoning`, `reasoning_content`,
    `reasoning_details`, `extra_content`. `max_tokens` and `max_completion_tokens` are replaced by
    one another. A field that a server refuses by name is left out even without this setting, at
    the price of one refused request for each process."""

    @field_validator("openai_base_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            # The value may hold a password: it is not repeated.
            raise ValueError("does not start with http:// or https://")
        return value or None

    @field_validator("provider_keys", "provider_switches")
    @classmethod
    def _web_addresses(cls, value: dict[str, object]) -> dict[str, object]:
        for number, address in enumerate(value, 1):
            if not address.strip().startswith(("http://", "https://")):
                # It may be a key in the wrong place: it is not repeated.
                raise ValueError(f"name {number} does not start with http:// or https://")
        return value

    @field_validator("prices", mode="before")
    @classmethod
    def _no_price_file(cls, value: object) -> object:
        return value or None

    @field_validator("caller_options")
    @classmethod
    def _parameters(cls, value: list[str]) -> list[str]:
        if taken := sorted(RESERVED & set(value)):
            raise ValueError(f"{taken[0]} cannot be chosen by callers")
        return value
