"""The providers by name, each made when it is first asked for: some are slow to load."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from polos_client.errors import DefinitionError
from polos_service import logs
from polos_service.models import Model
from polos_service.models.configured import ProviderConfig

log = logs.get_logger(__name__)

GROUP = "polos.providers"
"""The group of entry points through which a package adds providers: the name of an entry point is
the provider's, and its object a `Factory`. The names of built-in providers cannot be taken."""

Factory = Callable[[ProviderConfig], Model]
"""Makes a provider. It is called once, when an agent first needs the provider."""

MEMBERS = ("answer", "apis", "check", "close", "lacks", "refuses")
"""What a Model has."""


class Providers:
    """Makes and keeps one Model a provider."""

    def __init__(
        self,
        built_in: Mapping[str, Factory],
        config: ProviderConfig | None = None,
        caller_options: Collection[str] = (),
    ) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            built_in: the factories of the providers that come with the service.
            config: what the factories are given; None: nothing is configured.
            caller_options: options that a run may choose, whatever its provider says of them.

        """
        self._built_in = built_in
        self._config = config or ProviderConfig()
        self._caller_options = frozenset(caller_options)
        self._models: dict[str, Model] = {}

    def __getitem__(self, provider: str) -> Model:
        """Return the provider's model.

        Raises:
            KeyError: there is no such provider.
            DefinitionError: the provider is an installed package's, and cannot be loaded.

        """
        if provider not in self._models:
            self._models[provider] = self._made(provider)
        return self._models[provider]

    def find(self, provider: str, api: str | None, base_url: str | None = None) -> Model:
        """Return the model for an agent.

        Raises:
            DefinitionError: there is no such provider, it has no such API, it may not be called at
                this base URL, or it cannot be loaded.

        """
        try:
            model = self[provider]
        except KeyError:
            known = sorted({*self._built_in, *self._installed})
            raise DefinitionError(
                f"there is no provider {provider!r}{_near(provider, known)}; "
                f"there are {', '.join(known)}"
            ) from None
        if api is not None and api not in model.apis:
            there = f"it has {', '.join(model.apis)}" if model.apis else "leave it out"
            raise DefinitionError(
                f"the provider {provider!r} has no provider_llm_api {api!r}"
                f"{_near(api, model.apis)}; {there}"
            )
        if why := model.refuses(base_url):
            raise DefinitionError(why)
        return model

    def check(
        self, provider: str, options: Mapping[str, Any], api: str | None
    ) -> Mapping[str, str]:
        """Return what is wrong with a run's model options, by name; empty if nothing is."""
        asked = {name: value for name, value in options.items() if name not in self._caller_options}
        return self[provider].check(asked, api)

    async def close(self) -> None:
        """Close the models that were made; one that fails is logged, and the others are closed."""
        for provider, model in self._models.items():
            try:
                await model.close()
            except Exception:
                log.exception("provider_failed_to_close", provider=provider)

    @cached_property
    def _installed(self) -> Mapping[str, list[EntryPoint]]:
        """The entry points of installed packages, by provider."""
        found: dict[str, list[EntryPoint]] = {}
        for one in entry_points(group=GROUP):
            if one.name not in self._built_in:
                found.setdefault(one.name, []).append(one)
        return found

    def _made(self, provider: str) -> Model:
        if provider in self._built_in:
            return self._built_in[provider](self._config)
        first, *others = self._installed[provider]
        if others:
            packages = ", ".join(map(_package, (first, *others)))
            raise DefinitionError(f"several packages have a provider {provider!r}: {packages}")
        try:
            made = first.load()(self._config)
        except Exception as error:
            raise DefinitionError(
                f"the provider {provider!r} of the package {_package(first)} cannot be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error
        if missing := [name for name in MEMBERS if not hasattr(made, name)]:
            raise DefinitionError(
                f"the provider {provider!r} of the package {_package(first)} cannot be used: "
                f"its {first.value} made {made!r:.80}, which has no {missing[0]}"
            )
        return made  # type: ignore[no-any-return]  # checked above as far as it can be


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def _near(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name.lower(), known, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""
