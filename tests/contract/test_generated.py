"""What is committed in generated/ is what the generator writes, and it runs on what we promise."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "generated"


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder` by its path, but for what Python caches."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def floor(name: str) -> Version:
    """Return the lowest version of `name` that pyproject.toml admits."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["service"]]
    wanted = next(found for line in lines if (found := Requirement(line)).name == name)
    return next(Version(part.version) for part in wanted.specifier if part.operator == ">=")


def versions(pattern: str, files: str) -> set[Version]:
    """Return the versions that `pattern` finds in each of the generated `files`."""
    texts = [path.read_text() for path in GENERATED.rglob(files)]
    found = [re.search(pattern, text) for text in texts]
    assert found
    assert all(found)
    return {Version(".".join(match.groups())) for match in found if match}


def test_generated_is_what_the_generator_writes(tmp_path: Path) -> None:
    target = tmp_path / "generated"
    script = ROOT / "scripts" / "generate.py"
    subprocess.run([sys.executable, script, target], check=True, cwd=tmp_path)
    written, committed = contents(target), contents(GENERATED)
    assert written.keys() == committed.keys()
    assert [path for path in written if written[path] != committed[path]] == []


@pytest.mark.parametrize(
    "name", ["grpcio", "grpcio-health-checking", "grpcio-reflection", "grpcio-status"]
)
def test_floor_of_grpc_is_what_the_stubs_demand(name: str) -> None:
    demanded = versions(r"GRPC_GENERATED_VERSION = '(\d+)\.(\d+)\.(\d+)'", "*_pb2_grpc.py")
    assert demanded == {floor(name)}


def test_floor_of_protobuf_is_what_the_messages_demand() -> None:
    demanded = versions(r"Domain\.PUBLIC,\s+(\d+),\s+(\d+),\s+(\d+),", "*_pb2.py")
    assert demanded == {floor("protobuf")}
