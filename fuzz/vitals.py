"""What a process holds, as Linux tells it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a process holds at a time.

    Attributes:
        memory: resident bytes.
        files: open file descriptors.
        threads: threads.

    """

    memory: int
    files: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Vitals:
        """Look at a process."""
        folder = Path(f"/proc/{pid}")
        status = (folder / "status").read_text()

        def number(name: str) -> int:
            found = re.search(rf"^{name}:\s+(\d+)", status, flags=re.MULTILINE)
            assert found is not None
            return int(found[1])

        return cls(
            memory=number("VmRSS") * 1024,
            files=len(list((folder / "fd").iterdir())),
            threads=number("Threads"),
        )
