"""Conversations in the OpenAI form, as callers send them: what hypothesis draws."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "call_1", "get_weather", "x-Y_9", "n" * 60])

TEXTS = st.sampled_from(
    ["", "a", "Grüße aus 東京 🗼", "\x00\r\n\u2028", '{"a": ', "\\ud83d", "null"]
)

SAID = TEXTS.filter(bool)

CONTENTS = st.binary(min_size=1, max_size=20).map(lambda data: base64.b64encode(data).decode())

URLS = st.sampled_from(
    ["https://example.org/a.png", "http://10.0.0.1:8080/x?y=1#z", "HTTPS://Ex.org/%20é"]
)

JSON = st.sampled_from(
    [True, 0, -(2**70), 1.5, "", "ä", {}, {"a": None, "b": []}, [None], [{"type": "x", "v": [1]}]]
)

EXTRA = st.dictionaries(st.sampled_from(["reasoning_details", "x-y"]), JSON, max_size=2)
"""Members that no API has, or only that of some servers."""


@st.composite
def texts(draw: st.DrawFn) -> dict[str, Any]:
    """Return a text in a list of parts."""
    return {"type": "text", "text": draw(TEXTS), **draw(EXTRA)}


@st.composite
def images(draw: st.DrawFn) -> dict[str, Any]:
    """Return an image by its URL or its content."""
    inline = CONTENTS.map(lambda data: f"data:image/png;base64,{data}")
    detail = draw(st.sampled_from([{}, {"detail": "low"}, {"detail": "original"}]))
    image = {"url": draw(URLS | inline), **detail, **draw(EXTRA)}
    return {"type": "image_url", "image_url": image, **draw(EXTRA)}


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """Return a file by its content, or by its id."""
    inline = CONTENTS.map(lambda data: f"data:application/pdf;base64,{data}")
    name = {"filename": draw(NAMES)} if draw(st.booleans()) else {}
    where = {"file_data": draw(inline | CONTENTS)} if draw(st.booleans()) else {"file_id": "file-1"}
    return {"type": "file", "file": {**where, **name, **draw(EXTRA)}, **draw(EXTRA)}


@st.composite
def recordings(draw: st.DrawFn) -> dict[str, Any]:
    """Return audio by its content, or audio or video by its URL."""
    if draw(st.booleans()):
        audio = {"data": draw(CONTENTS), "format": draw(st.sampled_from(["wav", "mp3"]))}
        return {"type": "input_audio", "input_audio": {**audio, **draw(EXTRA)}}
    kind = draw(st.sampled_from(["audio_url", "video_url"]))
    return {"type": kind, kind: {"url": draw(URLS), **draw(EXTRA)}, **draw(EXTRA)}


MEDIA = images() | files() | recordings()

PARTS = st.lists(texts() | MEDIA, min_size=2, max_size=4)


@st.composite
def asked(draw: st.DrawFn) -> dict[str, Any]:
    """Return a message to the model."""
    role = draw(st.sampled_from(["system", "developer", "user"]))
    name = {"name": draw(NAMES)} if draw(st.booleans()) else {}
    return {"role": role, "content": draw(TEXTS | PARTS), **name, **draw(EXTRA)}


@st.composite
def calls(draw: st.DrawFn, call_id: str) -> dict[str, Any]:
    """Return a call of a tool."""
    if draw(st.booleans()):
        custom = {"name": draw(NAMES), "input": draw(TEXTS)}
        return {"id": call_id, "type": "custom", "custom": custom, **draw(EXTRA)}
    arguments = json.dumps(draw(st.dictionaries(TEXTS, JSON, max_size=2)))
    function = {"name": draw(NAMES), "arguments": arguments, **draw(EXTRA)}
    return {"id": call_id, "type": "function", "function": function, **draw(EXTRA)}


@st.composite
def turns(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return an answer of the model, and the results of the tools that it called."""
    answer = {"role": "assistant", "content": draw(TEXTS), **draw(EXTRA)}
    if draw(st.booleans()):
        answer[draw(st.sampled_from(["reasoning_content", "reasoning"]))] = draw(SAID)
    ids = draw(st.lists(NAMES, unique=True, max_size=3))
    if ids:
        answer["tool_calls"] = [draw(calls(call_id)) for call_id in ids]
    results = [
        {"role": "tool", "tool_call_id": call_id, "content": draw(TEXTS), **draw(EXTRA)}
        for call_id in draw(st.permutations(ids))
    ]
    return [answer, *results]


CONVERSATIONS = st.lists(asked().map(lambda one: [one]) | turns(), min_size=1, max_size=5).map(
    lambda several: [message for some in several for message in some]
)
"""Conversations in the common forms, with members that no API has."""
