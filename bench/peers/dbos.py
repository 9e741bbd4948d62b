"""Peer (f): DBOS on SQLite, each token a write to a durable stream.

As its documentation shows for models: a step reads the answer and writes its tokens to a stream,
which the HTTP front reads. Everything that has a variant for asyncio uses it.

All settings are the defaults, but one: on SQLite, a reader that waits polls, by default once a
second. POLL makes it as prompt as the default for notifications on PostgreSQL. The file keeps
the rollback journal: DBOS has no setting for another mode.

The argument is the path of the database file.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import orjson
from dbos import DBOS
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from bench.peers.model import provider, typed
from bench.peers.sse import serve

POLL = 0.01
"""Seconds between two looks of a waiting reader; the default of `notification_coalesce_sec`."""

TOKENS = "tokens"

app = FastAPI()
client = provider()


@DBOS.step()
async def relay(prompt: str) -> str:
    """Write an answer to the stream of its workflow, and return it."""
    texts = []
    async for text in typed(client, prompt):
        await DBOS.write_stream_async(TOKENS, text)
        texts.append(text)
    return "".join(texts)


@DBOS.workflow()
async def answer(prompt: str) -> str:
    """Answer a prompt."""
    text: str = await relay(prompt)
    await DBOS.close_stream_async(TOKENS)
    return text


@app.post("/stream")
async def stream(request: Request) -> StreamingResponse:
    """Start a workflow and read its stream."""
    prompt = (await request.body()).decode()
    handle = await DBOS.start_workflow_async(answer, prompt)
    return StreamingResponse(relayed(handle.workflow_id), media_type="text/event-stream")


async def relayed(workflow_id: str) -> AsyncIterator[bytes]:
    """Yield an event a token."""
    sequence = 0
    async for text in DBOS.read_stream_async(workflow_id, TOKENS, polling_interval_sec=POLL):
        sequence += 1
        yield b"data: %b\n\n" % orjson.dumps({"sequence": sequence, "content": text})


def main(path: str) -> None:
    """Serve until the process is ended."""
    DBOS(
        config={
            "name": "relay",
            "system_database_url": f"sqlite:///{path}",
            "log_level": "WARNING",
        }
    )
    DBOS.launch()
    serve(app)


if __name__ == "__main__":
    main(sys.argv[1])
