"""`python -m chaos`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from chaos.bugs import BUGS
from chaos.campaign import campaign, seeded_bug
from chaos.report import findings, table


def main() -> int:
    """Run what was asked for; return 1 if it found what it must not, or not what it must."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description="Kill it, and check.")
    parser.add_argument("--trials", type=int, default=1000, help="runs that meet a fault")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--only", type=int, help="play this round of the seed, and no other")
    parser.add_argument("--seeded-bugs", action="store_true", help="check the harness itself")
    asked = parser.parse_args()
    if asked.seeded_bugs:
        return asyncio.run(prove(asked.seed))
    return asyncio.run(check(asked.seed, asked.trials, asked.only))


async def check(seed: int, trials: int, only: int | None) -> int:
    """Play rounds and report."""
    begun = time.monotonic()
    total = await campaign(seed, trials, only)
    print(table(total, seed, time.monotonic() - begun))
    print(findings(total))
    return int(bool(total.findings))


async def prove(seed: int) -> int:
    """Seed each bug and report whether it was found."""
    missed = 0
    for name, bug in BUGS.items():
        found = await seeded_bug(name, seed)
        missed += not found
        print(f"{'found ' if found else 'MISSED'} {name}: {bug.what}")
        for one in found[:1]:
            print(f"       {one[:200]}", flush=True)
    print(f"{len(BUGS) - missed} of {len(BUGS)} seeded bugs were found")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
