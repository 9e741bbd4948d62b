"""The providers by name, each made when it is first asked for: some are slow to load."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from polos_service.models import Model


class Providers:
    """Makes and keeps one Model a provider."""

    def __init__(self, factories: Mapping[str, Callable[[], Model]]) -> None:
        self._factories = factories
        self._models: dict[str, Model] = {}

    def __getitem__(self, provider: str) -> Model:
        """Return the provider's model.

        Raises:
            KeyError: there is no such provider.

        """
        if provider not in self._models:
            self._models[provider] = self._factories[provider]()
        return self._models[provider]

    async def close(self) -> None:
        """Close the models that were made."""
        for model in self._models.values():
            await model.close()
