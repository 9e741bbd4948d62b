"""`python -m fuzz`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from fuzz.rounds import play


def main() -> int:
    """Attack for a while; return 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Send it anything.")
    parser.add_argument("--seconds", type=float, default=300.0, help="rounds begin until then")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--credentials", action="store_true", help="the service asks for them")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    end = time.monotonic() + asked.seconds
    with tempfile.TemporaryDirectory(prefix="polos-fuzz-") as folder:
        playing = play(
            asked.seed,
            Path(folder),
            lambda: time.monotonic() < end,
            credentials=asked.credentials,
        )
        report = asyncio.run(playing)
    print(report)
    return int(bool(report.findings))


if __name__ == "__main__":
    sys.exit(main())
