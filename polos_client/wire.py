"""What both sides of the wire must agree on. `polos_client` and `polos_service` read it here."""

from __future__ import annotations

ERROR_DOMAIN = "polos.v1"
"""Domain of the `google.rpc.ErrorInfo` in every status that a handler of the service sends."""

RUN_ID_KEY = "polos-run-id"
"""Initial metadata in which StreamRun and StreamWorkflow name the run."""

AUTHORIZATION_KEY = "authorization"
"""Metadata in which a client sends its API key, as `Bearer KEY`."""

INPUT_LIMIT = 1024 * 1024
"""Bytes of an input, or of a conversation as JSON, at most."""

MEDIA_COUNT = "; inline images and files count, so give their URL instead"
"""What the error for a conversation over INPUT_LIMIT adds."""

STATE_LIMIT = 256 * 1024
"""Bytes of an initial state, of the model options, and of a payload, as JSON, at most."""

ANSWER_LIMIT = 256 * 1024
"""Bytes of an answer to a wait, and of what a wait shows, as JSON, at most."""

NAME_LIMIT = 256
"""Characters of a session's id, and of a user's id, at most."""

REQUEST_ID_LIMIT = 128
"""Characters of a request id at most."""

REQUEST_LIMIT = 2 * 1024 * 1024
"""Bytes of a request at most: an input, a state, model options, and the rest."""

RESULT_LIMIT = 16 * 1024 * 1024
"""Bytes of a run's result that a response carries at most, if its caller asks for so many."""

RESPONSE_LIMIT = RESULT_LIMIT + 4 * 1024 * 1024
"""Bytes of a response that a client accepts; the service keeps its responses well below it."""

PAGE_LIMIT = 1000
"""Runs or agents that a page of a list holds at most."""

NESTING_LIMIT = 100
"""Levels of nesting at most, so that readers in every language can parse the JSON."""

TOKEN_SECONDS = 24 * 3600
"""Seconds for which a run token is valid at most."""

CHILD_MARK = ":"
"""What stands between the id of a root run and the number of one of its children."""

HEARTBEAT = 15.0
"""Seconds of silence after which a stream carries a response without events."""

SILENCE = 3 * HEARTBEAT
"""Seconds without a response after which a stream's link is dead."""

PING_AFTER_MS = 30_000
"""Milliseconds of silence after which either side pings the other.

Heartbeats come more often, so a healthy stream is never pinged."""

PING_TIMEOUT_MS = 10_000
"""Milliseconds without an answer to a ping after which the connection is closed.

The service also takes pings this often, so that a client's never count as too many."""


def root_of(run_id: str) -> str:
    """Return the root of a run: of a child, `ROOT:N`, its ROOT; a root run itself."""
    return run_id.partition(CHILD_MARK)[0]
