"""The Messages API: what is wrong with an event that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from polos_service.models.kinds import kind_of

_TEXTS = ("text", "thinking", "signature")
"""Members of a block and of a delta that are strings."""

_OBJECTS = ("delta", "content_block", "message")
"""Members of an event that are objects."""


def complaint(event: object) -> str:
    """Return a sentence that names what is wrong with an event, and what stands there."""
    for name, value, expected in _misfits(event):
        return f"{name} is {kind_of(value)}, not {expected}"
    return "an event does not have the form that the Messages API gives it"


def _misfits(event: object) -> Iterator[tuple[str, object, str]]:
    """Yield what is not as it should be: its name, what it holds, and what it should be."""
    if not isinstance(event, Mapping):
        yield "an event", event, "an object"
        return
    kind = event.get("type", "an event")
    for name in _OBJECTS:
        inner = event.get(name)
        if inner is not None and not isinstance(inner, Mapping):
            yield f"{kind}: {name}", inner, "an object"
        yield from _misfit_texts(f"{kind}: {name}", inner)
    content = event.get("content")
    if content is not None and not isinstance(content, list | str):
        yield f"{kind}: content", content, "an array"
    if isinstance(event.get("index"), list | dict):
        yield f"{kind}: index", event["index"], "a number"


def _misfit_texts(where: str, inner: object) -> Iterator[tuple[str, object, str]]:
    for name in _TEXTS:
        text = inner.get(name) if isinstance(inner, Mapping) else None
        if text is not None and not isinstance(text, str):
            yield f"{where}.{name}", text, "a string"
