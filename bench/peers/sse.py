"""Peer (e): FastAPI and server-sent events, the relay that most teams write."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import orjson
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from bench.peers.model import provider, typed

app = FastAPI()
client = provider()


@app.post("/stream")
async def stream(request: Request) -> StreamingResponse:
    """Relay an answer."""
    prompt = (await request.body()).decode()
    return StreamingResponse(relayed(prompt), media_type="text/event-stream")


async def relayed(prompt: str) -> AsyncIterator[bytes]:
    """Yield an event a token."""
    sequence = 0
    async for text in typed(client, prompt):
        sequence += 1
        yield b"data: %b\n\n" % orjson.dumps({"sequence": sequence, "content": text})


def serve(app: FastAPI) -> None:
    """Serve an application until the process is ended."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"listens on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, loop="uvloop", log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    serve(app)
