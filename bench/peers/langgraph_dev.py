"""Starts peer (g) in an environment of its own.

`langgraph-api` needs versions of grpcio and protobuf that are older than those of the service.
The argument is the folder in which the server keeps its files.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench.processes import ROOT

PYTHON = str(Path(sys.prefix, "langgraph", "bin", "python"))
"""Where `make bench` installs the server."""

SETTINGS = {
    "LANGGRAPH_NO_VERSION_CHECK": "true",
    "LANGSMITH_TRACING": "false",
    "LOG_LEVEL": "WARNING",
    "PYTHONPATH": str(ROOT),
}
"""What keeps the server from asking other services, and from logging each request."""

if __name__ == "__main__":
    os.chdir(sys.argv[1])
    os.execve(PYTHON, [PYTHON, "-m", "bench.peers.langgraph"], os.environ | SETTINGS)  # noqa: S606
