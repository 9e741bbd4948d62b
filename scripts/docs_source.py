"""What `scripts.docs` makes pages of: comments of the protocol, docstrings, and tables."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
NOTE = "<!-- Written by scripts/docs.py; do not edit: run `make docs`. -->"
"""Stands below the title of every page."""


def comments() -> dict[str, str]:
    """Return the comment of every message, field, enum and value, by its full name."""
    with tempfile.NamedTemporaryFile() as out:
        protos = sorted(str(path) for path in PROTO.rglob("*.proto"))
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", *protos]
        options = ["--include_source_info", f"--descriptor_set_out={out.name}"]
        subprocess.run([*command, *options], check=True)
        files = FileDescriptorSet.FromString(Path(out.name).read_bytes())
    found: dict[str, str] = {}
    for file in files.file:
        names = dict(paths(file))
        for location in file.source_code_info.location:
            if name := names.get(tuple(location.path)):
                found[f"{file.package}.{name}"] = text(location.leading_comments)
    return found


def paths(file: Any) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield where a file's source info tells of what; the numbers are descriptor.proto's."""
    for i, message in enumerate(file.message_type):
        yield (4, i), message.name
        for j, field in enumerate(message.field):
            yield (4, i, 2, j), f"{message.name}.{field.name}"
    for i, enum in enumerate(file.enum_type):
        yield (5, i), enum.name
        for j, value in enumerate(enum.value):
            # Like protobuf's own names: a value stands beside its enum, not in it.
            yield (5, i, 2, j), value.name


def text(comment: str) -> str:
    """Return a comment or docstring without its line breaks."""
    return " ".join(comment.split())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in lines
    )


def attributes(described: object, section: str = "Attributes") -> dict[str, str]:
    """Return a section of the docstring of a class or function, by name."""
    found = (described.__doc__ or "").partition(f"{section}:\n")[2]
    lines = re.split(r"\n\n {8}\S", found)[0]  # up to the next section
    entries = re.split(r"\n(?=\S)", textwrap.dedent(lines).strip())
    return {name: text(what) for name, _, what in (one.partition(":") for one in entries) if name}


def properties(cls: type) -> dict[str, str]:
    """Return the docstrings of a class's properties, by name."""
    members = vars(cls).items()
    return {name: text(one.__doc__ or "") for name, one in members if isinstance(one, property)}


def enum(values: Any, prefix: str, said: dict[str, str]) -> str:
    """Return a table of an enum's values, but for that which is never sent."""
    rows = [
        (
            f"`{value.name.removeprefix(prefix).lower()}`",
            f"`{value.name}`",
            said[f"polos.v1.{value.name}"],
        )
        for value in values.DESCRIPTOR.values[1:]
    ]
    return table(["in Python", "on the wire", "meaning"], rows)


def coded(names: Iterable[str]) -> str:
    """Return names as code, in a row."""
    return ", ".join(f"`{name}`" for name in names)
