"""A process that opens a store, says so, and keeps it until its standard input ends."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from polos_service.store.sqlite import SqliteStore


async def main(path: Path) -> None:
    store = await SqliteStore.open(path)
    sys.stdout.write("open\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
