"""Peer (a'): the floor of paced streams: bare grpc.aio and a timer, no provider and no log.

A token is one message that is ready but for the time at which it is sent.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from bench.peers.common import event, run
from bench.prompt import Prompt
from polos.v1.run_service_pb2 import StreamRunRequest

STAMP = f"{time.time_ns()} "
"""Stands for the time in the message; as long as every time of this century and the next."""

BEFORE, AFTER = event(1, STAMP).SerializeToString().split(STAMP.encode())


async def stream(request: StreamRunRequest, context: Any) -> None:
    """Send so many tokens at the rate of the prompt, from a random phase on."""
    prompt = Prompt.found_in(request.input.encode())
    step = 1 / prompt.rate
    due = time.monotonic() + random.random() * step  # noqa: S311
    for _ in range(prompt.tokens):
        await asyncio.sleep(due - time.monotonic())
        await context.write(b"%b%d %b" % (BEFORE, time.time_ns(), AFTER))
        due += step


if __name__ == "__main__":
    run(stream)
