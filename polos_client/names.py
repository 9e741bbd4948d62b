"""What Python calls the fields of a request."""

from __future__ import annotations

from polos_client.errors import InvalidRequest

_NAMES = {
    "after_sequence": "last_sequence_id",
    "data_json": "data",
    "input_messages_json": "input",
    "lifetime": "seconds",
    "options.budget_tokens": "budget.tokens",
    "options.initial_state_json": "initial_state",
    "options.provider_options_json": "provider_kwargs",
    "options.timeout": "run_timeout_seconds",
    "options.": "",
    "payload_json": "payload",
}
"""How the path of a field begins, and what stands there in Python; the first that fits counts."""


def in_python(error: InvalidRequest) -> InvalidRequest:
    """Return the error with the names that arguments have in Python.

    Args:
        error: names the fields of the request as the protocol does.

    """
    return InvalidRequest({_named(field): what for field, what in error.violations.items()})


def _named(field: str) -> str:
    for path, name in _NAMES.items():
        if field.startswith(path):
            return name + field.removeprefix(path)
    return field
