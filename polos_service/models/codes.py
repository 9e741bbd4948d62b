"""What the words mean with which providers say why they fail: an HTTP status for each kind."""

from __future__ import annotations

import re

from polos_service.models.told import Told

QUOTA = re.compile(
    "insufficient_(quota|balance|credit|fund)|billing|payment_required|quota_exhaust|arrear"
)
"""Codes of a limit that is lifted by paying, not by waiting."""

FLUKE = re.compile("tool_use_failed|json_validate_failed|output_parse_failed")
"""Codes of servers that cannot take what the model said; it may say something else next time."""

KINDS = (
    (500, FLUKE),
    (402, QUOTA),
    (529, re.compile("overload|capacity")),
    (429, re.compile("(rate|request)_?limit|too_many|throttl|resource_exhausted|slow_down")),
    (504, re.compile("time_?out|timed_out|deadline_exceeded")),
    (
        400,
        re.compile(
            "context_(length|window)|too_long|too_large|content_?(policy|filter|management)"
        ),
    ),
    (
        400,
        re.compile(
            "moderation|prohibited|safety|responsible_ai|_policy|data_(residency|inspection)|^image_"
        ),
    ),
    (404, re.compile("not_?found|not_exist|no_such_model|unknown_model")),
    (403, re.compile("permission|forbidden|access_denied")),
    (401, re.compile("api_key|authentication|unauthori[sz]ed|unauthenticated")),
    (400, re.compile("invalid_request|bad_request|^invalid|unsupported|not_support|unprocessable")),
    (
        400,
        re.compile(
            "validation|value_error|^missing$|failed_precondition|out_of_range|extra_forbidden|unknown_param"
        ),
    ),
    (409, re.compile("conflict|aborted")),
    (500, re.compile("server_error|internal|unavailable|upstream|bad_gateway|api_error")),
)
"""Statuses by what stands in a code, the telling ones first.

The words are those of OpenAI, Anthropic, Google (google.rpc.Code), Azure, AWS, and the names of the
exceptions that servers in Python put into `type`.
"""

PERMANENT = frozenset({400, 401, 402, 403, 404})
"""Statuses of faults that will be the same next time."""

MAX_MESSAGE = 500
"""Characters of a message that are searched for a kind."""

_CAMEL = re.compile("(?<=[a-z])(?=[A-Z])")
_APART = re.compile(r"[\W_]+")
_STATUS = re.compile("[45][0-9]{2}")


def status_of(told: Told) -> int | None:
    """Return the status that an error stands for, by its codes, else by its words."""
    for code in told.codes:
        if _STATUS.fullmatch(code):
            return int(code)
        if (status := _status_in(code)) is not None:
            return status
    return _status_in(told.message[:MAX_MESSAGE])


def word_status_of(told: Told) -> int | None:
    """Return the status that the codes in words stand for; numbers do not count."""
    found = (_status_in(code) for code in told.codes)
    return next((status for status in found if status is not None), None)


def is_quota(told: Told) -> bool:
    """Return whether a quota is used up, which waiting does not mend."""
    return any(QUOTA.search(_snake(code)) for code in told.codes)


def is_fluke(told: Told) -> bool:
    """Return whether the model is to blame, and not the request, whatever the status says."""
    return any(FLUKE.search(_snake(code)) for code in told.codes)


def _status_in(text: str) -> int | None:
    words = _snake(text)
    return next((status for status, kind in KINDS if kind.search(words)), None)


def _snake(text: str) -> str:
    return _APART.sub("_", _CAMEL.sub("_", text)).lower()
