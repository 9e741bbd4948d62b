"""The wheel, built once for all workers of pytest, and unpacked as an installation has it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Wheel:
    """A built wheel.

    Attributes:
        file: the wheel.
        unpacked: the folder with its packages.

    """

    file: Path
    unpacked: Path


def built(folder: Path) -> Wheel:
    """Return the wheel in a folder of this session, where the first worker that asks builds it."""
    unpacked = folder / "polos-wheel"
    with FileLock(folder / "wheel.lock"):
        if not unpacked.is_dir():
            _build(folder, unpacked)
    return Wheel(next(folder.glob("*.whl")), unpacked)


def _build(folder: Path, unpacked: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(unpacked.with_suffix(".new"))
    unpacked.with_suffix(".new").rename(unpacked)
