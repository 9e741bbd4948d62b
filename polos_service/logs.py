"""The service's own log: a call of it neither raises nor waits, whatever it is given."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback
from collections import deque
from collections.abc import Iterator, MutableMapping
from types import TracebackType
from typing import Any, Literal, TextIO

import structlog

from polos_service.outlet import Outlet, to_current_stderr

LogLevel = Literal["debug", "info", "warning", "error"]
"""How severe a record is, at least, for the log to have it."""

RECORD_LIMIT = 64 * 1024
"""Characters of one record, its traceback included; the rest is cut."""

TEXT_LIMIT = 8 * 1024
"""Characters of one value, or of the text of one exception; the rest is cut."""

FRAMES = 50
"""Innermost frames of a traceback that are shown."""

CHAIN = 8
"""Exceptions that are shown of a chain of causes, or of a group."""


class Logger:
    """Records with values, as structlog has them; a record that cannot be made is named."""

    def __init__(self, name: str) -> None:
        self._log = structlog.get_logger(name)

    def info(self, event: str, **values: Any) -> None:
        """Record what happens as it should."""
        self._say("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        """Record what somebody may want to change."""
        self._say("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        """Record what must not happen."""
        self._say("error", event, values)

    def exception(self, event: str, **values: Any) -> None:
        """Record what must not happen, with the exception that is being handled."""
        self._say("error", event, {"exc_info": sys.exc_info()[1], **values})

    def _say(self, level: str, event: str, values: dict[str, Any]) -> None:
        try:
            short = {name: clipped(value) for name, value in values.items()}
            getattr(self._log, level)(event, **short)
        except BaseException as error:  # noqa: BLE001 - a value's text may even be sys.exit()
            with contextlib.suppress(RuntimeError):  # no thread can be started any more
                _outlet().put(f"{event} [not logged in full: {type_of(error)}]\n".encode())


def get_logger(name: str) -> Logger:
    """Return the logger of a module."""
    return Logger(name)


def log_to_stderr(level: LogLevel = "info", *, as_json: bool = False) -> None:
    """Log to stderr, with plain tracebacks; does nothing where structlog is configured.

    Records below `level` are dropped. With `as_json`, each one is a JSON object on a line.

    By default structlog writes to standard output, and tracebacks with the values of
    variables: prompts and keys among them.
    """
    if structlog.is_configured():
        return
    written: structlog.typing.Processor = as_object
    if not as_json:
        written = structlog.dev.ConsoleRenderer(
            colors=person_reads(), exception_formatter=write_exception
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            written,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(),
    )


def as_object(_logger: Any, _method: str, record: MutableMapping[str, Any]) -> str:
    """Return a record as a JSON object; only its event, if it is longer than RECORD_LIMIT."""
    if isinstance(error := record.pop("exc_info", None), BaseException):
        text = io.StringIO()
        write_exception(text, (type(error), error, error.__traceback__))
        record["exception"] = clipped(text.getvalue().strip(), RECORD_LIMIT // 2)
    line = json.dumps(record, default=repr)
    if len(line) > RECORD_LIMIT:
        kept = {name: record[name] for name in ("event", "level", "timestamp")}
        line = json.dumps({**kept, "omitted": f"{len(line)} characters"})
    return line


def person_reads() -> bool:
    """Return whether standard error is a terminal."""
    try:
        return sys.stderr.isatty()
    except Exception:  # noqa: BLE001 - None, closed, or an object that is hardly a file
        return False


def write_to(outlet: Outlet) -> None:
    """Send the log through this outlet; without, it goes to what `sys.stderr` is at the time."""
    _outlets.append(outlet)


def write_elsewhere(outlet: Outlet) -> None:
    """Send the log through this outlet no longer, but where it went before."""
    _outlets.remove(outlet)


def flush() -> None:
    """Wait a moment until what was logged is written."""
    for outlet in _outlets[-1:]:
        outlet.flush()


_outlets: list[Outlet] = []


def _outlet() -> Outlet:
    if not _outlets:
        write_to(Outlet(to_current_stderr, "polos-log"))
    return _outlets[-1]


class _Lines:
    """What structlog hands its records to: text, of any level."""

    def msg(self, record: str) -> None:
        """Write a record."""
        _outlet().put(f"{clipped(record, RECORD_LIMIT)}\n".encode(errors="backslashreplace"))

    debug = info = warning = error = critical = exception = msg


def clipped(value: Any, limit: int = TEXT_LIMIT) -> Any:
    """Return the value; if it is text that is longer, its beginning and how long it is."""
    if isinstance(value, str) and len(value) > limit:
        return f"{value[:limit]}... ({len(value)} characters)"
    return value


def type_of(error: BaseException) -> str:
    """Return the name of an exception's type, which may be one that resists."""
    try:
        return str(type(error).__name__)[:TEXT_LIMIT]
    except BaseException:  # noqa: BLE001 - a metaclass may do anything
        return "an exception without a name"


def told(error: BaseException) -> str:
    """Return an exception in a line: its type, and its text if it has one that can be had."""
    try:
        text = str.__str__(clipped(str(error)))
    except BaseException:  # noqa: BLE001 - the text of an exception may even be sys.exit()
        return f"{type_of(error)} (its text cannot be read)"
    return f"{type_of(error)}: {text}" if text else type_of(error)


def write_exception(
    file: TextIO,
    exc_info: tuple[type[BaseException], BaseException, TracebackType | None],
) -> None:
    """Write an exception and its causes: the innermost frames of each, without variables."""
    parts = list(_chain(exc_info[1]))
    file.writelines(f"\n{_trace(error)}{told(error)}" for error in reversed(parts))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, then what caused it or is grouped in it, up to a bound."""
    waiting, seen = deque([error]), set[int]()
    while waiting and len(seen) < CHAIN:
        one = waiting.popleft()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(one.exceptions[:CHAIN])
        cause = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        if cause is not None:
            waiting.append(cause)


def _trace(error: BaseException) -> str:
    frames = deque(traceback.walk_tb(error.__traceback__), maxlen=FRAMES)
    if not frames:
        return ""
    lines = traceback.StackSummary.extract(iter(frames)).format()
    return "".join(["Traceback (most recent call last):\n", *lines])
