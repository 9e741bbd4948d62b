"""The OpenAI form of what a message says: text, images, audio and files.

A URL is checked for its form only. The service never fetches it: the provider does.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Self

from polos_service.models import kinds
from polos_service.models.messages import STATELESS, Media, Text

SHOWN = 60
"""Characters of a wrong value that an error quotes."""

_HTTP = re.compile(r"https?://[^\s/?#\x00-\x1f]+[^\s\x00-\x1f]*", re.IGNORECASE)

_SPACE = re.compile(r"\s")


class Wrong(ValueError):
    """A part of the form is wrong.

    Attributes:
        path: where, as in `.content[0].text`; empty for the whole.
        what: what is wrong with it, and what is allowed.

    """

    def __init__(self, path: str, what: str) -> None:
        super().__init__(what)
        self.path = path
        self.what = what

    def under(self, path: str) -> Self:
        """Return the error as one of the whole that has this part at `path`."""
        return type(self)(path + self.path, self.what)


def kind_of(value: Any) -> str:
    """Return what a member holds, for an error; null says the same as no member."""
    return "missing" if value is None else kinds.kind_of(value)


def string(value: Any, path: str) -> str:
    """Return a value that must be a string with at least one character.

    Raises:
        Wrong: it is not.

    """
    if isinstance(value, str) and value:
        return value
    found = "an empty string" if value == "" else kind_of(value)
    raise Wrong(path, f"is {found}; allowed: a non-empty string")


def rest(members: Mapping[str, Any], known: Collection[str], provider: str) -> Mapping[str, Any]:
    """Return the members that are not known as state of the provider. Null and [] say nothing."""
    kept = {
        name: value
        for name, value in members.items()
        if name not in known and value is not None and value != []
    }
    return {provider: kept} if kept else STATELESS


def parts_of(content: Any, provider: str) -> tuple[Text | Media, ...]:
    """Return what the content of a message says; null and an empty text are no parts.

    Args:
        content: a string, an array of parts, or null.
        provider: the provider that gets back the members that have no place in a part.

    Raises:
        Wrong: it is something else.

    """
    if isinstance(content, str):
        return (Text(text=content),) if content else ()
    if content is None:
        return ()
    if not isinstance(content, list):
        raise Wrong("", f"is {kind_of(content)}; allowed: a string or an array of parts")
    parts = []
    for index, part in enumerate(content):
        try:
            parts.append(_part(part, provider))
        except Wrong as wrong:
            raise wrong.under(f"[{index}]") from None
    return tuple(parts)


def _part(part: Any, provider: str) -> Text | Media:
    if not isinstance(part, dict):
        raise Wrong("", f"is {kind_of(part)}; allowed: an object with a type")
    kind = part.get("type")
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        found = f"{kind!r:.{SHOWN}}" if isinstance(kind, str) else kind_of(kind)
        raise Wrong(".type", f"is {found}; allowed: {', '.join(_READERS)}")
    return read(part, provider)


def _text(part: Mapping[str, Any], provider: str) -> Text:
    name = "refusal" if part["type"] == "refusal" else "text"
    text = part.get(name)
    if not isinstance(text, str):
        raise Wrong(f".{name}", f"is {kind_of(text)}; allowed: a string")
    return Text(text=text, state=rest(part, ("type", name), provider))


def _image(part: Mapping[str, Any], provider: str) -> Media:
    """Return an image of the chat API, or of the Responses API, which knows files by their id."""
    image, path = _linked(part, "image_url")
    detail = image.get("detail") or part.get("detail") or ""
    if not isinstance(detail, str):
        at = ".image_url.detail" if image.get("detail") else ".detail"
        raise Wrong(at, f"is {kind_of(detail)}; allowed: a string")
    if part.get("image_url") is None and part.get("file_id") is not None:
        string(part["file_id"], ".file_id")
        where = {}
    else:
        where = _located(string(image.get("url"), path), path, "image")
    kept = _members(part, "image_url", image, ("url", "detail"))
    state = rest(kept, ("type", "detail"), provider)
    return Media(type="image", detail=detail, state=state, **where)


def _recording(part: Mapping[str, Any], provider: str) -> Media:
    """Return audio or video that is given by its URL."""
    name = part["type"]
    told, path = _linked(part, name)
    kind = name.removesuffix("_url")
    where = _located(string(told.get("url"), path), path, kind)
    where.setdefault("media_type", f"{kind}/*")
    kept = _members(part, name, told, ("url",))
    return Media(type="file", state=rest(kept, ("type",), provider), **where)


def _audio(part: Mapping[str, Any], provider: str) -> Media:
    audio = _object(part, "input_audio")
    path = ".input_audio.data"
    data = string(audio.get("data"), path)
    if data[:5].lower() == "data:":
        where = _located(data, path, "audio")
    else:
        form = string(audio.get("format"), ".input_audio.format").lower().removeprefix("audio/")
        where = {"data": _base64(data, path), "media_type": f"audio/{form}"}
    kept = _members(part, "input_audio", audio, ("data", "format"))
    return Media(type="file", state=rest(kept, ("type",), provider), **where)


def _file(part: Mapping[str, Any], provider: str) -> Media:
    """Return a file of the chat API, or of the Responses API, which has its members in the part."""
    inside = part["type"] == "file"
    file, at = (_object(part, "file"), ".file") if inside else (part, "")
    name = file.get("filename") or ""
    if not isinstance(name, str):
        raise Wrong(f"{at}.filename", f"is {kind_of(name)}; allowed: a string")
    where: dict[str, str] = {}
    if file.get("file_data") is not None:
        where = _content(string(file["file_data"], f"{at}.file_data"), f"{at}.file_data")
    elif file.get("file_url") is not None:
        where = _located(string(file["file_url"], f"{at}.file_url"), f"{at}.file_url", "")
    elif not isinstance(file.get("file_id"), str) or not file["file_id"]:
        raise Wrong(at, "has no file_data or file_id; one of them is required")
    taken = ("file_data", "file_url", "filename", "file_id")
    kept = _members(part, "file", file, taken) if inside else dict(part)
    kept["file_id"] = file.get("file_id")
    return Media(type="file", name=name, state=rest(kept, ("type", *taken[:3]), provider), **where)


_READERS: Mapping[str, Callable[[Mapping[str, Any], str], Text | Media]] = {
    "text": _text,
    "image_url": _image,
    "input_audio": _audio,
    "file": _file,
    "refusal": _text,
    "audio_url": _recording,
    "video_url": _recording,
    "input_text": _text,
    "output_text": _text,
    "input_image": _image,
    "input_file": _file,
}


def _object(part: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = part.get(name)
    if not isinstance(value, dict):
        raise Wrong(f".{name}", f"is {kind_of(value)}; allowed: an object")
    return value


def _linked(part: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], str]:
    """Return the object with a URL, and where the URL stands; it may stand there alone."""
    value = part.get(name)
    return (value, f".{name}.url") if isinstance(value, dict) else ({"url": value}, f".{name}")


def _members(
    part: Mapping[str, Any], name: str, inside: Mapping[str, Any], known: Collection[str]
) -> dict[str, Any]:
    """Return the members of a part, those of the object `name` in it without the known ones."""
    unknown = {key: value for key, value in inside.items() if key not in known}
    return {**part, name: unknown or None}


def _located(url: str, path: str, kind: str) -> dict[str, str]:
    """Return the URL, or content and media type of a data URL.

    Args:
        url: the URL.
        path: where it stands.
        kind: what its media type must begin with; empty if it may be any.

    """
    if _HTTP.fullmatch(url):
        return {"url": url}
    example = f"data:{kind or 'application'}/...;base64,..."
    allowed = f"allowed: an http:// or https:// URL, or {example}"
    if url[:5].lower() != "data:":
        raise Wrong(path, f"is {url[:SHOWN]!r}; {allowed}")
    head, _, data = url[5:].partition(",")
    media_type, *parameters = (one.strip().lower() for one in head.split(";"))
    if parameters[-1:] != ["base64"]:
        raise Wrong(path, f"is a data URL whose content is not declared as base64; {allowed}")
    if not media_type.startswith(f"{kind}/" if kind else ""):
        raise Wrong(path, f"has the media type {media_type[:SHOWN]!r}; {allowed}")
    return {"data": _base64(data, path), "media_type": media_type}


def _content(text: str, path: str) -> dict[str, str]:
    """Return the place or the content of a file: base64 alone is taken, too."""
    if text[:5].lower() == "data:" or "://" in text[:SHOWN]:
        return _located(text, path, "")
    return {"data": _base64(text, path)}


def _base64(text: str, path: str) -> str:
    """Return base64 text without spaces and line ends."""
    if _SPACE.search(text):
        text = "".join(text.split())
    try:
        empty = not binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise Wrong(path, f"is not valid base64: {error}") from None
    if empty:
        raise Wrong(path, "has no content after the comma")
    return text
