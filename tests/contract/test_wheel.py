"""The wheel holds what it should, and works where nothing else of the project is."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_bytes
from pathlib import Path

from packaging.requirements import Requirement

from tests.support.wheel import Wheel


def names(wheel: Wheel) -> list[str]:
    """Return the paths of the wheel's files."""
    with zipfile.ZipFile(wheel.file) as archive:
        return archive.namelist()


def info(wheel: Wheel) -> str:
    """Return the name of the folder with the wheel's metadata."""
    return "-".join(wheel.file.name.split("-")[:2]) + ".dist-info"


def read(wheel: Wheel, ending: str) -> bytes:
    """Return the wheel's file whose path has that ending."""
    with zipfile.ZipFile(wheel.file) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(ending)))


def test_wheel_has_the_three_packages_and_nothing_else(wheel: Wheel) -> None:
    tops = {name.split("/")[0] for name in names(wheel)}
    assert tops == {"polos", "polos_client", "polos_service", info(wheel)}


def test_wheel_is_typed_and_licensed(wheel: Wheel) -> None:
    files = names(wheel)
    assert {f"{top}/py.typed" for top in ("polos", "polos_client", "polos_service")} <= set(files)
    assert "polos/v1/run_service_pb2.pyi" in files
    assert f"{info(wheel)}/licenses/LICENSE" in files


def test_wheel_without_extras_needs_what_the_client_needs(wheel: Wheel) -> None:
    metadata = message_from_bytes(read(wheel, ".dist-info/METADATA"))
    wanted = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    assert {item.name for item in wanted if "extra" not in str(item.marker)} == {
        "googleapis-common-protos",
        "grpcio",
        "grpcio-status",
        "protobuf",
        "pydantic",
        "typing-extensions",
    }


def test_wheel_brings_the_polos_command(wheel: Wheel) -> None:
    assert b"polos = polos_service.cli:main" in read(wheel, ".dist-info/entry_points.txt")


def test_documented_import_works_from_the_wheel_alone(wheel: Wheel, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path[:0] = [{str(wheel.unpacked)!r}, {sysconfig.get_path('purelib')!r}]\n"
        "from polos import PolosClient, events, Agent, tool\n"
        "import polos; print(polos.__file__)\n"
    )
    # -I and -S keep the folder it starts in and the editable installation out.
    command = [sys.executable, "-I", "-S", "-c", code]
    result = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout.strip() == str(wheel.unpacked / "polos" / "__init__.py")
