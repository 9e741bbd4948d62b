"""The providers that come with the service. Each is imported when an agent first needs it."""

from __future__ import annotations

from collections.abc import Mapping

from polos_service.models import Model
from polos_service.models.configured import ProviderConfig
from polos_service.models.providers import Factory

CHAT = (
    *("azure", "deepseek", "fireworks", "gemini", "groq", "litellm", "mistral", "ollama"),
    *("openai", "openrouter", "together", "vllm"),
)
"""The providers of `polos_service.models.openai.presets`."""


def _chat(name: str) -> Factory:
    def make(config: ProviderConfig) -> Model:
        from polos_service.models.openai.presets import PRESETS  # noqa: PLC0415
        from polos_service.models.remote import Remote  # noqa: PLC0415

        return Remote(PRESETS[name], config.account(PRESETS[name]))

    return make


def _anthropic(config: ProviderConfig) -> Model:
    from polos_service.models.anthropic.presets import ANTHROPIC  # noqa: PLC0415
    from polos_service.models.remote import Remote  # noqa: PLC0415

    return Remote(ANTHROPIC, config.account(ANTHROPIC))


def _scripted(_: ProviderConfig) -> Model:
    from polos_service.models.scripted import Scripted  # noqa: PLC0415

    return Scripted()


BUILT_IN: Mapping[str, Factory] = {
    "anthropic": _anthropic,
    "scripted": _scripted,
    **{name: _chat(name) for name in CHAT},
}
"""By name."""
