"""What takes its time: a worker that hangs is killed when its runs have passed to others."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from polos import Agent, PolosClient
from tests.support.process import until
from tests.support.workers import Workers

APP = """
from polos import Agent, scripted

greeter = Agent(id="greeter", provider="scripted", model=scripted.script("Hello."))
"""

GREETER = Agent(id="greeter", provider="scripted", model="script")


async def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP)
    async with Workers(app, 2) as polos:
        first, second = polos.workers
        os.kill(first, signal.SIGSTOP)
        await polos.said(f"worker_hangs .*pid={first} ")
        await polos.said(f"worker_ended .*how=SIGKILL pid={first} ")
        await until(lambda: first not in polos.workers, "another worker")
        assert second in polos.workers
        async with PolosClient(polos.address) as client:
            assert await (await GREETER.stream(client, "Hi")).text() == "Hello."
