"""What the command says where an extra is not installed."""

from __future__ import annotations

import subprocess
import sys

from tests.support.process import environment
from tests.support.program import ROOT

SERVE = """
import sys
sys.modules["nats"] = None  # as if it were not installed
from polos_service.cli import main
sys.argv = ["polos", *sys.argv[1:]]
main()
"""


def test_a_store_on_nats_without_its_package_names_the_extra() -> None:
    options = ["--store", "nats://127.0.0.1:1", "--listen", "127.0.0.1:0"]
    command = [sys.executable, "-c", SERVE, "serve", "examples/agents.py", *options]
    done = subprocess.run(
        command,
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
        env=environment(),
        cwd=ROOT,
    )
    assert done.returncode != 0
    assert "pip install 'polos-grpc[nats]'" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
