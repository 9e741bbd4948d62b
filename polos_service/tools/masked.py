"""Secrets of pydantic in values: their JSON is a row of asterisks, and is no use later."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from pydantic_core import to_json

SECRETS = (Secret, SecretBytes, SecretStr)

EMPTY = '""'
"""The JSON text of an empty secret, which is exact."""


def refuse_masked(value: Any, plain: Any) -> None:
    """Refuse a value if a secret in it is masked in the JSON values that stand for it.

    A model whose own serializer gives a secret away is as its author wants it.

    Raises:
        ValueError: a secret is masked.

    """
    text = None
    for secret in _secrets(value):
        text = to_json(plain).decode() if text is None else text
        mask = to_json(secret).decode()
        if mask != EMPTY and mask in text:
            raise ValueError(
                f"it has a {type(secret).__name__}, of which only {mask} would be stored. Use a "
                "reference to the secret, such as its name, and get the secret where it is needed; "
                "or use get_secret_value() if everybody who can read the run may see the secret"
            )


def _secrets(value: Any) -> Iterable[Any]:
    """Yield the secrets in a value, and in the fields of models and dataclasses in it."""
    waiting, seen = [value], set[int]()
    while waiting:
        one = waiting.pop()
        if isinstance(one, SECRETS):
            yield one
        elif id(one) not in seen:
            parts = _parts(one)
            if parts:
                seen.add(id(one))  # it lives as long as `value` does
                waiting.extend(parts)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, BaseModel):
        return [*value.__dict__.values(), *(value.__pydantic_extra__ or {}).values()]
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [*value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return []
