"""A tool's result as JSON text, within bounds of size and time even where it comes lazily."""

from __future__ import annotations

import inspect
import sys
from threading import Event
from types import FrameType
from typing import Any, Self

from pydantic_core import to_json

from polos.v1.error_pb2 import FailureReason
from polos_client.typed import schema_of
from polos_service.errors import StepError
from polos_service.limits import OUTPUT_LIMIT

CALLS_LIMIT = 250_000
"""Calls of Python code while a result is converted, at most: its own serializers, and a call
for each value of a generator. An output within its bound holds fewer values."""


class Returned(str):
    """What a tool returned, as JSON text.

    Attributes:
        schema: name of the pydantic model that it was, as `module.Class`; empty if it was not one.

    """

    __slots__ = ("schema",)
    schema: str

    def __new__(cls, text: str, schema: str) -> Self:
        """Make one of JSON text."""
        made = super().__new__(cls, text)
        made.schema = schema
        return made


def as_json(result: Any, abandoned: Event) -> Returned:
    """Return the result as JSON text; not-a-number and infinities become strings.

    A result may run code while it is converted: a generator, which may be endless, or a
    serializer of a pydantic model. That code is watched: it ends when `abandoned` is set,
    when it has yielded more than an output may hold, or after CALLS_LIMIT calls.

    Raises:
        PydanticSerializationError: the result is not a JSON value.
        StepError: it is too large, or was abandoned.

    """
    watch = Watch(inspect.currentframe(), abandoned)
    before = sys.gettrace()
    sys.settrace(watch)
    try:
        return Returned(to_json(result, inf_nan_mode="strings").decode(), schema_of(result))
    except Exception:
        if watch.stopped is not None:
            raise watch.stopped from None
        raise
    finally:
        sys.settrace(before)


class Watch:
    """A trace function (see `sys.settrace`) for the code that one conversion runs.

    Attributes:
        stopped: why the conversion was ended; None as long as it was not.

    """

    def __init__(self, converter: FrameType | None, abandoned: Event) -> None:
        """Watch what the frame of the converter calls."""
        self._converter = converter
        self._abandoned = abandoned
        self._calls = 0
        self._size = 0
        self.stopped: StepError | None = None

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Watch:
        """Take an event of the interpreter into account."""
        if event == "call":
            self._calls += 1
            frame.f_trace_opcodes = True  # a loop on one line has no other event
        elif event == "return" and frame.f_back is self._converter:
            self._size += weight(arg)
        if self._calls > CALLS_LIMIT or self._size > OUTPUT_LIMIT:
            self.stopped = StepError(
                FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE,
                f"The result does not end within {OUTPUT_LIMIT} bytes or {CALLS_LIMIT} calls of "
                "its own code. Return less, or a reference to it.",
            )
        elif self._abandoned.is_set():
            self.stopped = StepError(
                FailureReason.FAILURE_REASON_TOOL_TIMEOUT, "The call was given up."
            )
        if self.stopped is not None:
            raise self.stopped
        return self


def weight(value: Any, depth: int = 5) -> int:
    """Return about how many bytes a value takes as JSON at least, without running its code."""
    if type(value) in (str, bytes):
        return len(value) + 2
    if depth and type(value) is dict:
        return 2 + sum(weight(k, 0) + weight(v, depth - 1) for k, v in value.items())
    if depth and type(value) in (list, tuple, set, frozenset):
        return 2 + sum(weight(one, depth - 1) for one in value)
    return 2
