"""`make demo`, for real: the small model, the service, and everything taken down after it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start(tmp_path: Path) -> subprocess.Popen[str]:
    """Start the demo without a key, so that it reaches nobody else's model."""
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    return subprocess.Popen(
        [sys.executable, "-m", "examples.demo"],
        cwd=ROOT,
        env={**environment, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def remains(group: int) -> bool:
    """Tell whether a process of the demo's group is still there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_demo_streams_an_answer_and_reads_it_again(tmp_path: Path) -> None:
    demo = start(tmp_path)
    output, _ = demo.communicate(timeout=90)
    assert demo.returncode == 0, output
    answer = re.search(r"▸ llm:1\n(.+)\n✓ llm:1 in [\d.]+ s\n", output, re.DOTALL)
    assert answer is not None, output
    assert len(answer[1].split()) > 10, output
    assert re.search(r"\n\d+ tokens, \d+ tokens/s, [\d.]+ s\n", output), output
    assert re.search(r"The same \d+ events, with the same text", output), output
    assert not remains(demo.pid)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_demo_takes_everything_down(tmp_path: Path) -> None:
    demo = start(tmp_path)
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("▸ llm:1"):
            break
    demo.send_signal(signal.SIGINT)
    rest, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, rest
    assert rest.endswith("Stopped.\n")
    assert not remains(demo.pid)
    assert list(tmp_path.iterdir()) == []
