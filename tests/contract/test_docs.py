"""The reference is what the protocol, the settings and the errors say, and leaves nothing out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from polos.v1.error_pb2 import ErrorReason, FailureReason
from polos.v1.event_pb2 import Event
from polos_service.config import Settings

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


def written(folder: Path) -> dict[str, str]:
    """Return the text of every page in a folder."""
    return {path.name: path.read_text() for path in folder.iterdir()}


def page(name: str) -> str:
    """Return a page of the reference."""
    return (REFERENCE / name).read_text()


def test_reference_is_what_the_script_writes(tmp_path: Path) -> None:
    target = tmp_path / "reference"
    subprocess.run([sys.executable, "-m", "scripts.docs", target], check=True, cwd=ROOT)
    assert written(target) == written(REFERENCE)


@pytest.mark.parametrize(
    "name", [one.name for one in Event.DESCRIPTOR.oneofs_by_name["payload"].fields]
)
def test_every_event_type_is_explained(name: str) -> None:
    _, found, rest = page("events.md").partition(f"\n### `{name}`\n")
    assert found
    assert "`data` in Python" in rest.partition("\n###")[0]


@pytest.mark.parametrize("name", ErrorReason.keys()[1:])
def test_every_reason_of_a_refused_call_is_explained(name: str) -> None:
    assert f"\n| `{name.removeprefix('ERROR_REASON_')}` |" in page("errors.md")


@pytest.mark.parametrize("name", FailureReason.keys()[1:])
def test_every_reason_of_a_failed_run_is_explained(name: str) -> None:
    assert f"| `{name}` |" in page("errors.md")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_explained(name: str) -> None:
    assert Settings.model_fields[name].description
    assert f"| `{name}` |" in page("configuration.md")


def test_every_field_has_a_comment() -> None:
    assert not [line for line in page("events.md").splitlines() if line.endswith("|  |")]
