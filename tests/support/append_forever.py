"""A process that appends until it is killed, and prints what was acknowledged."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from polos_service.store import Claim
from polos_service.store.sqlite import SqliteStore
from tests.support.stores import claimed, frame


async def append(store: SqliteStore, claim: Claim) -> None:
    sequence = 0
    while True:
        sequence += 1
        await store.append(claim, frame(sequence, data=b"%d" % sequence), b"p%d" % sequence)
        sys.stdout.write(f"{claim.run_id} {sequence}\n")
        sys.stdout.flush()


async def main(path: Path) -> None:
    store = await SqliteStore.open(path)
    claims = [await claimed(store) for _ in range(5)]
    await asyncio.gather(*(append(store, claim) for claim in claims))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
