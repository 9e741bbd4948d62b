"""Processes of a benchmark: servers that say where they listen, and loads that print JSON."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LISTENS = re.compile(r"listens (?:at|on) (127\.0\.0\.1:\d+)$")
CPUCLOCK_SCHED = 2
"""Marks the clock of a process's CPU time in nanoseconds, as clock_getcpuclockid(3) returns it."""

FOREIGN = ("DBOS_", "LANGCHAIN_", "LANGGRAPH_", "LANGSMITH_", "OPENAI_", "POLOS_")
"""Beginnings of environment variables that would change what a server does."""

LOAD_TIMEOUT = 180.0
"""Seconds after which a load that has not ended counts as failed."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that listens.

    Attributes:
        address: host and port.
        pid: its process.
        beside: processes that serve with it, such as further replicas.
        options: those that the compiled load generator needs to call it.

    """

    address: str
    pid: int
    beside: tuple[int, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def cpu(self) -> float:
        """Seconds of CPU that the process has used so far, with all its threads."""
        return time.clock_gettime(~self.pid << 3 | CPUCLOCK_SCHED)

    @property
    def memory(self) -> int:
        """Bytes of memory that the process holds, of its own and not shared."""
        return _count(self.pid, "status", "RssAnon") * 1024


def _count(pid: int, file: str, name: str) -> int:
    text = Path(f"/proc/{pid}/{file}").read_text()
    found = re.search(rf"^{name}:\s+(\d+)", text, flags=re.MULTILINE)
    assert found is not None
    return int(found[1])


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without settings of other services, and these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(FOREIGN) and not name.lower().endswith("_proxy")
    }
    return kept | variables


@contextmanager
def server(*command: str, **variables: str) -> Iterator[Server]:
    """Start a Python module that is a server, and end it with the block."""
    with started([sys.executable, "-m", *command], **variables) as running:
        yield running


@contextmanager
def started(command: list[str], **variables: str) -> Iterator[Server]:
    """Start a server, wait until it says where it listens, and end it and what it started."""
    with subprocess.Popen(  # noqa: S603 - commands of this package
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(**variables),
        process_group=0,
    ) as process:
        try:
            yield Server(_listening(process), process.pid)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _listening(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := LISTENS.search(line):
            return found[1]
    raise RuntimeError(f"{process.args!r} ended without listening")


def load(scenario: str, **arguments: Any) -> dict[str, Any]:
    """Run a load in a process of its own, and return what it measured."""
    done = subprocess.run(  # noqa: S603 - a module of this package
        [sys.executable, "-m", "bench.load", scenario, json.dumps(arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
        check=True,
        timeout=LOAD_TIMEOUT,
    )
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured
