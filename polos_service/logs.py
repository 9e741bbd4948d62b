"""Where the service's own log goes, unless the program around it has said so."""

from __future__ import annotations

import sys

import structlog


def log_to_stderr() -> None:
    """Log to stderr, with plain tracebacks; does nothing where structlog is configured.

    By default structlog writes to standard output, and tracebacks with the values of
    variables: prompts and keys among them.
    """
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        # Looked up at each use: tests and supervisors put another file in its place.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
