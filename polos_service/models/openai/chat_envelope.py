"""Chunks that gateways put inside another object, or whose text has a member of its own."""

from __future__ import annotations

from typing import Any

_ENVELOPES = ("data", "result", "response", "output", "body")
"""Members in which gateways put a whole chunk."""

_TEXT = "response"
"""The member in which Cloudflare's Workers AI puts a text."""


def opened(chunk: dict[str, Any]) -> dict[str, Any]:
    """Return a chunk that has no choices as one that has them, if it holds an answer."""
    for name in _ENVELOPES:
        inner = chunk.get(name)
        if isinstance(inner, dict) and ("choices" in inner or isinstance(inner.get(_TEXT), str)):
            return _with_choices({**chunk, **inner})
    return _with_choices(chunk)


def _with_choices(chunk: dict[str, Any]) -> dict[str, Any]:
    text = chunk.get(_TEXT)
    if chunk.get("choices") or not isinstance(text, str):
        return chunk
    said = {"content": text, "tool_calls": chunk.get("tool_calls")}
    return {**chunk, "choices": [{"index": 0, "delta": said}]}
