"""The log: a call of it never raises and never waits, whatever it is given, wherever it goes."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from polos_service import logs, outlet
from polos_service.logs import FRAMES, RECORD_LIMIT, TEXT_LIMIT, get_logger, told
from polos_service.outlet import Outlet

PATIENCE = 20.0

log = get_logger("test")


class Written:
    """What an outlet has written, which may be held back or made to fail."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.open = threading.Event()
        self.open.set()
        self.broken = False
        self.outlet = Outlet(self._write, "test")

    @property
    def text(self) -> str:
        assert self.outlet.flush(PATIENCE)
        return b"".join(self.pieces).decode()

    def _write(self, data: bytes) -> None:
        self.open.wait()
        if self.broken:
            raise OSError("no space left on device")
        self.pieces.append(data)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """Return what is logged, as the service logs it."""
    place = Written()
    monkeypatch.setattr(logs, "_outlets", [place.outlet])
    structlog.reset_defaults()
    logs.log_to_stderr()
    yield place
    place.open.set()
    structlog.reset_defaults()


class Hostile(Exception):
    """An exception whose text raises."""

    raises: type[BaseException] = SystemExit

    def __str__(self) -> str:
        raise self.raises

    __repr__ = __str__


class Interrupts(Hostile):
    raises = KeyboardInterrupt


class Fails(Hostile):
    raises = ValueError


class Endless(Exception):
    def __str__(self) -> str:
        return str(self)


class NoText(Exception):
    def __str__(self) -> Any:
        return 5  # noqa: PLE0307 - that is the point


class Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]  # that is the point
        raise SystemExit


class Nameless(Exception, metaclass=Meta):
    pass


def broken_syntax() -> SyntaxError:
    error = SyntaxError("wrong")
    error.text = error.filename = error.lineno = 5  # type: ignore[assignment]
    return error


HOSTILE = [
    *(Hostile(), Interrupts(), Fails(), Endless(), NoText(), Nameless(), broken_syntax()),
    ExceptionGroup("group", [Hostile(), ExceptionGroup("inner", [broken_syntax()])]),
]


def throw(error: BaseException) -> None:
    raise error


def raised(error: BaseException) -> BaseException:
    """Return the exception after it was raised."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - any
        throw(error)
    return caught.value


@pytest.mark.parametrize("error", HOSTILE, ids=lambda one: type.__repr__(type(one)))
def test_any_exception_is_logged_with_its_traceback(error: BaseException, written: Written) -> None:
    log.warning("it_failed", tool="hammer", exc_info=raised(error))
    assert "it_failed" in written.text
    assert "hammer" in written.text
    assert "Traceback (most recent call last):" in written.text
    assert "in throw" in written.text


@pytest.mark.parametrize("error", HOSTILE, ids=lambda one: type.__repr__(type(one)))
def test_any_exception_is_logged_where_another_program_has_configured_structlog(
    error: BaseException, written: Written
) -> None:
    structlog.configure(processors=[structlog.processors.format_exc_info])
    try:
        throw(error)
    except BaseException:
        log.exception("it_failed")
    structlog.configure(processors=[lambda *_: sys.exit()])
    log.info("it_went_on")
    assert "it_went_on [not logged in full: SystemExit]" in written.text


@pytest.mark.parametrize("error", HOSTILE[:5], ids=lambda one: type(one).__name__)
def test_a_value_that_cannot_be_shown_leaves_the_event(error: object, written: Written) -> None:
    log.error("it_failed", value=error)
    assert "it_failed" in written.text


def test_what_is_being_handled_is_logged(written: Written) -> None:
    error = ValueError("wrong")
    with capture_logs() as captured:
        try:
            throw(error)
        except ValueError:
            log.exception("it_failed", run_id="1")
    assert captured == [
        {"event": "it_failed", "log_level": "error", "run_id": "1", "exc_info": error}
    ]


def test_an_exception_is_told_in_a_line() -> None:
    assert told(ValueError("wrong")) == "ValueError: wrong"
    assert told(ValueError()) == "ValueError"
    assert told(Hostile()) == "Hostile (its text cannot be read)"
    assert len(told(ValueError("x" * 10_000_000))) < TEXT_LIMIT + 100


def test_a_record_is_bounded(written: Written) -> None:
    log.error("much", text="x" * 50_000_000, exc_info=ValueError("y" * 50_000_000))
    log.error("more", **{f"text{number}": "z" * 50_000 for number in range(50)})
    much, more = written.text.rstrip("\n").split("\n2")[0], written.text
    assert "... (50000000 characters)" in much
    assert len(more) < 2 * RECORD_LIMIT


def test_a_deep_traceback_is_bounded_and_has_the_innermost_frames(written: Written) -> None:
    lines = [f"def f{number}(): f{number + 1}()" for number in range(500)]
    scope: dict[str, Any] = {}
    exec("\n".join([*lines, "def f500(): raise ValueError('deep')"]), scope)
    try:
        scope["f0"]()
    except ValueError:
        log.exception("it_failed")
    assert "in f499" in written.text
    assert "in f1\n" not in written.text
    assert written.text.count("  File ") == FRAMES


def test_causes_are_shown_and_bounded(written: Written) -> None:
    error = raised(ValueError("0"))
    for number in range(1, 10_000):
        above = raised(ValueError(str(number)))
        above.__cause__, error = error, above
    log.error("it_failed", exc_info=error)
    assert "ValueError: 9998\n" in written.text
    assert written.text.count("ValueError: ") == logs.CHAIN


def test_nobody_waits_for_a_reader_and_what_is_dropped_is_counted(written: Written) -> None:
    written.open.clear()
    for _ in range(2 * outlet.HELD_LIMIT // 4_000):
        log.info("x" * 4_000)
    assert not written.outlet.flush(0.01)
    written.open.set()
    assert " lines were dropped.\n" in written.text
    assert sum(map(len, written.pieces)) < outlet.HELD_LIMIT + 1_000


def test_lines_that_cannot_be_written_are_counted_when_others_can(written: Written) -> None:
    written.broken = True
    log.info("lost")
    log.info("lost")
    assert written.text == ""
    written.broken = False
    log.info("there is room again")
    assert "there is room again" in written.text
    assert "2 lines were dropped.\n" in written.text
    log.info("and on")
    assert written.text.count("dropped") == 1


def test_a_stream_hands_over_whole_lines_and_never_raises(written: Written) -> None:
    stream = outlet.text(2, written.outlet)
    print("a", 1, "\ud800", file=stream)
    print("no line yet", end="", file=stream)
    assert written.text == "a 1 \\ud800\n"
    written.broken = True
    print("lost", file=stream)
    assert stream.fileno() == 2


@pytest.mark.parametrize("stream", [None, object()])
def test_without_a_standard_error_the_log_goes_nowhere(
    stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(logs, "_outlets", [])
    structlog.reset_defaults()
    try:
        logs.log_to_stderr()
        log.error("it_failed", exc_info=ValueError())
        logs.flush()
    finally:
        structlog.reset_defaults()


def test_json_is_an_object_a_line_and_a_level_drops_what_is_below(
    written: Written,
) -> None:
    structlog.reset_defaults()
    logs.log_to_stderr("warning", as_json=True)
    log.info("not_told")
    log.error("failed", exc_info=ValueError("no luck"), value=object, text="two\nlines")
    log.warning("long", values=["x" * 100] * 1_000)
    failed, long = map(json.loads, written.text.splitlines())
    assert (failed["event"], failed["level"], failed["text"]) == ("failed", "error", "two\nlines")
    assert failed["exception"].endswith("ValueError: no luck")
    assert failed["timestamp"].endswith("Z")
    assert long.keys() == {"event", "level", "timestamp", "omitted"}
