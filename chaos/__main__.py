"""`python -m chaos`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import replace

from chaos.campaign import ON_NATS, ONE_SERVICE, Game, campaign, seeded_bugs, with_workers
from chaos.report import findings, table


def main() -> int:
    """Run what was asked for; return 1 if it found what it must not, or not what it must."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description="Kill it, and check.")
    parser.add_argument("--trials", type=int, default=1000, help="runs that meet a fault")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--only", type=int, help="play this round of the seed, and no other")
    parser.add_argument("--jobs", type=int, help="rounds that are played at once")
    games = parser.add_mutually_exclusive_group()
    games.add_argument(
        "--cluster", action="store_true", help="three services on three NATS servers"
    )
    games.add_argument("--workers", type=int, help="one service with this number of workers")
    parser.add_argument("--seeded-bugs", action="store_true", help="check the harness itself")
    asked = parser.parse_args()
    game = ON_NATS if asked.cluster else ONE_SERVICE
    if asked.workers:
        game = with_workers(asked.workers)
    if asked.jobs:
        game = replace(game, workers=asked.jobs)
    if asked.seeded_bugs:
        return asyncio.run(prove(game, asked.seed))
    return asyncio.run(check(game, asked.seed, asked.trials, asked.only))


async def check(game: Game, seed: int, trials: int, only: int | None) -> int:
    """Play rounds and report."""
    begun = time.monotonic()
    total = await campaign(game, seed, trials, only)
    print(table(total, game.places, seed, time.monotonic() - begun))
    print(findings(total))
    return int(bool(total.findings))


async def prove(game: Game, seed: int) -> int:
    """Seed each bug and report whether it was found."""
    missed = 0
    async for name, found in seeded_bugs(game, seed):
        missed += not found
        print(f"{'found ' if found else 'MISSED'} {name}: {game.bugs[name].what}")
        for one in found[:1]:
            print(f"       {one[:200]}", flush=True)
    print(f"{len(game.bugs) - missed} of {len(game.bugs)} seeded bugs were found")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
