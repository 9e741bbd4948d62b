"""A service that is killed in the middle of a long answer, on either store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from polos import PolosClient
from tests.e2e.stage import ASSISTANT, service
from tests.support.mock_answers import hold, say
from tests.support.mock_provider import MockProvider
from tests.support.reader import assert_whole, kinds, texts


async def replayed_and_recovered(
    folder: Path, provider: MockProvider, address: str | None, letters: str, count: int
) -> None:
    """Kill the service after half of so many tokens, and read the whole log, and again."""
    tokens = [f"{letters}{index % 10}" for index in range(count)]
    half = tokens[: count // 2]
    provider.reply(say(*half), hold(asyncio.Event()))
    async with service(folder, provider, address) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Go")
        log = []
        async for event in stream.events:
            log.append(event)
            if event.sequence_id == 2 + len(half):
                await polos.kill()
                provider.reply(say(*tokens))
                await polos.start()
        again = [event.proto async for event in stream.events]
        result = await stream.result()
        standing = await stream.get()
    assert_whole(log)
    assert [event.proto for event in log] == again
    assert texts(log) == half + tokens
    assert kinds(log).count("step_retry") == 1
    assert result.result == standing["result"].result == "".join(tokens)
