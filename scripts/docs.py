"""Generate `docs/reference/` from the protocol, the settings and the errors, and a table.

Run as `python -m scripts.docs`, with the target folder if it is a different one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from inspect import Parameter, Signature, signature
from pathlib import Path

from google.rpc.code_pb2 import Code

from polos.v1 import error_pb2
from polos_client import errors
from polos_client.calls.client import PolosClient
from polos_service.access_settings import AccessSettings
from polos_service.api.grpc.errors import CODES
from polos_service.config import Settings
from polos_service.models.anthropic.presets import ANTHROPIC
from polos_service.models.openai.presets import PRESETS
from polos_service.models.preset import Preset
from scripts.docs_access import with_access_tables
from scripts.docs_events import events
from scripts.docs_source import NOTE, ROOT, attributes, comments, enum, table, text

STEPS = (
    "`POLOS_AGENT_MAX_STEPS` limits the model calls of a run whose agent has no `max_steps`; "
    "the default is 10. The service reads it when it starts a run."
)
"""What the configuration page says of the variable that agents read themselves."""

PORT = (
    "`POLOS_PORT` is the port on 127.0.0.1 where a `Polos` without a `port` listens, so that other "
    "programs and the command line find it; by default it takes any free port."
)
"""What the configuration page says of the variable that `Polos` reads itself."""

PROVIDERS = (
    "Environment variables that an agent's provider reads. The key goes to the base URL, and to no "
    "other address. A base URL without a path, for example `http://gpu:11434`, gets the path in "
    "the last column. An optional key is for servers that require one."
)
"""What the configuration page says of the variables of providers."""

COLUMNS = ["provider", "key", "base URL", "default", "further headers", "path"]
"""What the configuration page says of each provider."""


def configuration(_: dict[str, str]) -> Iterator[str]:
    """Yield the parts of configuration.md."""
    yield f"# Configuration\n\n{NOTE}"
    precedence = "Options of `polos serve` take precedence."
    yield f"## The service\n\n{text(Settings.__doc__ or '')} {precedence}"
    names = sorted(Settings.model_fields, key=is_of_access)
    yield table(["variable", "setting", "default", "meaning"], map(setting, names))
    yield f"## Providers\n\n{PROVIDERS}"
    presets = sorted((ANTHROPIC, *PRESETS.values()), key=lambda one: one.name)
    yield table(COLUMNS, map(provider, presets))
    yield f"## Agents\n\n{STEPS}"
    yield f"## A service in a program\n\n{PORT}"
    yield f"## The client\n\n`PolosClient{arguments(PolosClient)}`"
    client = attributes(PolosClient.__init__, "Args").items()
    yield table(["argument", "meaning"], [(f"`{name}`", what) for name, what in client])


def arguments(cls: type) -> Signature:
    """Return how a class is called, without types."""
    shown = [one.replace(annotation=Parameter.empty) for one in signature(cls).parameters.values()]
    return Signature(shown)


def is_of_access(name: str) -> bool:
    """Return whether a setting is listed after the others."""
    return name in AccessSettings.model_fields


def setting(name: str) -> tuple[str, str, str, str]:
    """Return the row of a setting."""
    field = Settings.model_fields[name]
    variable = field.validation_alias or f"{Settings.model_config['env_prefix']}{name.upper()}"
    default = "see meaning" if field.default_factory else f"`{field.default}`"
    if field.default is None or field.default_factory in (dict, list):
        default = "none"
    bounds = [f" Minimum: {bound.ge}." for bound in field.metadata if hasattr(bound, "ge")]
    bounds += [f" Maximum: {bound.le}." for bound in field.metadata if hasattr(bound, "le")]
    return f"`{variable}`", f"`{name}`", default, text(field.description or "") + "".join(bounds)


def provider(one: Preset) -> tuple[str, ...]:
    """Return the row of a provider."""
    key = f"`{one.key_variable}`" + ("" if one.needs_key else ", optional")
    further = [*one.headers, *filter(None, [one.headers_variable])]
    headers = ", ".join(f"`{variable}`" for variable in further)
    default = f"`{one.base_url}`" if one.base_url else "none"
    path = f"`{one.base_path}`" if one.base_path else ""
    return f"`{one.name}`", key, f"`{one.url_variable}`", default, headers, path


def refused(said: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for each reason for which a call is refused."""
    for cls, code in CODES.items():
        comment = said[f"polos.v1.ERROR_REASON_{cls.reason}"]
        status, when = re.split(r"[.,:] ", comment, maxsplit=1)
        if status != Code.Name(code):
            raise SystemExit(
                f"error.proto gives {cls.reason} the status {status}, the service {code}"
            )
        yield f"`{cls.reason}`", f"`{status}`", f"`{cls.__name__}`", when[:1].upper() + when[1:]


def failures(said: dict[str, str]) -> Iterator[str]:
    """Yield the parts of errors.md."""
    yield f"# Errors\n\n{NOTE}"
    yield (
        "A refused call is a gRPC error. A failed run is not: its log ends with an "
        "[`error`](events.md#error) event, and the stream ends with status OK."
    )
    tree = (errors.__doc__ or "").strip().partition("\n\n")[2]
    yield f"## In Python\n\n```text\n{tree.partition(chr(10) * 2)[0]}\n```"
    for cls in (errors.CallError, errors.InvalidRequest, errors.ConnectionLost, errors.RunError):
        told = [(f"`{name}`", what) for name, what in attributes(cls).items()]
        yield f"### {cls.__name__}\n\n{intro(cls)}\n\n{table(['attribute', 'meaning'], told)}"
    yield f"## Refused calls\n\n{said['polos.v1.ErrorReason']}"
    yield table(["reason", "status", "in Python", "meaning"], refused(said))
    yield f"## FailureReason\n\n{said['polos.v1.FailureReason']}"
    yield enum(error_pb2.FailureReason, "FAILURE_REASON_", said)


def intro(cls: type) -> str:
    """Return what a class's docstring says before its sections."""
    paragraphs = (cls.__doc__ or "").partition("Attributes:")[0].strip().split("\n\n")
    return "\n\n".join(map(text, paragraphs))


SECURITY = ROOT / "docs" / "security.md"
"""The page with the table of methods and credentials."""

PAGES = {"events.md": events, "configuration.md": configuration, "errors.md": failures}


def main(target: Path) -> None:
    """Write every page into `target`."""
    said = comments()
    target.mkdir(parents=True, exist_ok=True)
    for name, parts in PAGES.items():
        (target / name).write_text("\n\n".join(parts(said)) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve())
    else:
        main(ROOT / "docs" / "reference")
        SECURITY.write_text(with_access_tables(SECURITY.read_text()))
