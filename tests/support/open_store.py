"""A process that opens a store, says so, and keeps it until its standard input ends.

With `fork` it forks a child that lives on, says its id, and dies without closing anything.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from polos_service.store.sqlite import SqliteStore


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def leave_a_child() -> None:
    child = os.fork()
    if child == 0:
        os.close(1)  # else whoever reads what we say waits for the child
        time.sleep(600)
        os._exit(0)
    say(str(child))
    os.kill(os.getpid(), signal.SIGKILL)


async def main(path: Path, *, fork: bool) -> None:
    store = await SqliteStore.open(path)
    say("open")
    if fork:
        leave_a_child()
    await asyncio.to_thread(sys.stdin.read)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), fork="fork" in sys.argv[2:]))
