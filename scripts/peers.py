"""Run the tests that take other programs or long: `python -m scripts.peers [SKIP ...]`.

A part is a file `tests/peers/test_NAME.py`; the first line of its docstring says what it does. The
part `thorough` is what `make test` leaves out of the other folders. The parts run one after the
other, and one that fails does not keep the others from running.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "test_"


THOROUGH = "thorough"


def parts() -> dict[str, Path]:
    """Return the files of the parts, by name; for THOROUGH the folder of all tests."""
    files = sorted((ROOT / "tests" / "peers").glob(f"{PREFIX}*.py"))
    named = {file.stem.removeprefix(PREFIX): file for file in files}
    return {THOROUGH: ROOT / "tests", **named}


def about(name: str, file: Path) -> str:
    """Return what a part does, in a line."""
    if name == THOROUGH:
        return "Tests of the main suite that take long."
    text = ast.get_docstring(ast.parse(file.read_text())) or ""
    return text.partition("\n")[0]


def options(name: str) -> list[str]:
    """Return the options of pytest for a part."""
    if name == THOROUGH:
        return ["--numprocesses", "4", "--dist", "worksteal", "-m", THOROUGH]
    return []


def passes(name: str, file: Path) -> bool:
    """Run a part, and say how it ended."""
    print(f"==> {name}: {about(name, file)}", flush=True)
    begun = time.monotonic()
    command = [sys.executable, "-m", "pytest", "--quiet", *options(name), str(file)]
    passed = subprocess.run(command, check=False, cwd=ROOT).returncode == 0
    seconds = time.monotonic() - begun
    print(f"==> {name}: {'passed' if passed else 'FAILED'} in {seconds:.0f} s", flush=True)
    return passed


def main(skipped: set[str]) -> str | None:
    """Run what is not skipped; return what went wrong."""
    known = parts()
    if unknown := skipped - known.keys():
        return f"there is no part {', '.join(sorted(unknown))}; parts: {' '.join(known)}"
    for name in sorted(skipped):
        print(f"==> {name}: skipped", flush=True)
    failed = [
        name for name, file in known.items() if name not in skipped and not passes(name, file)
    ]
    return f"failed: {' '.join(failed)}" if failed else None


if __name__ == "__main__":
    sys.exit(main(set(sys.argv[1:])))
