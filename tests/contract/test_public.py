"""The public face: what `polos` shows is complete, typed and importable."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

import polos
from polos_client import errors
from polos_client.errors import PolosError


def typed() -> Iterator[str]:
    """Yield what the TYPE_CHECKING block imports, each as "module.name"."""
    tree = ast.parse(Path(polos.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def loaded() -> Iterator[str]:
    """Yield what is loaded when it is first used, each as "module.name"."""
    yield from polos._MODULES.values()
    yield from (f"{home}.{name}" for name, home in polos._HOMES.items())


def is_error(value: object) -> bool:
    """Return whether the value is an exception of this package."""
    return isinstance(value, type) and issubclass(value, PolosError)


def test_names_are_sorted_and_each_stands_once() -> None:
    assert polos.__all__ == sorted(set(polos.__all__))


def test_checkers_and_the_interpreter_see_the_same_names() -> None:
    assert sorted(typed()) == sorted(loaded())
    assert sorted([*polos._MODULES, *polos._HOMES]) == polos.__all__


@pytest.mark.parametrize("name", polos.__all__)
def test_name_can_be_imported(name: str) -> None:
    assert getattr(polos, name) is not None
    assert name in dir(polos)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = polos.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("cls", [one for one in vars(errors).values() if is_error(one)])
def test_error_is_public_and_shows_its_public_name(cls: type[PolosError]) -> None:
    assert getattr(polos, cls.__name__) is cls
    assert cls.__module__ == "polos"
    assert pickle.loads(pickle.dumps(cls)) is cls
