"""Runs in a web page: the text as it comes, or the agent's whole progress.

    polos serve examples/agents.py
    uvicorn examples.web.app:app

A POST starts a run; a WebSocket shows it, from wherever the page was. Between the two nothing is
kept here: this process may be restarted at any time, and a page that is loaded again goes on. It
has no login: whoever reaches it may start runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from examples.agents import weather_agent
from examples.web.messages import progress, text
from polos import CallError, ConnectionLost, Event, InvalidRequest, PolosClient, events

INDEX = Path(__file__).with_name("index.html")
VIEWS: dict[str, Callable[[Event], dict[str, Any] | None]] = {"text": text, "progress": progress}
DONE, TRY_AGAIN_LATER = 1000, 1013  # close codes of WebSockets

client = PolosClient()


async def page(_: Request) -> Response:
    """Return the page."""
    return FileResponse(INDEX)


async def start(request: Request) -> Response:
    """Start a run of the agent, and return its id."""
    question = (await request.json())["input"]
    try:
        handle = await weather_agent.invoke(client, {"input": question, "streaming": True})
    except InvalidRequest as error:
        return JSONResponse({"error": str(error)}, status_code=400)
    except (CallError, ConnectionLost) as error:
        return JSONResponse({"error": str(error)}, status_code=503)
    return JSONResponse({"id": handle.id}, status_code=201)


async def watch(websocket: WebSocket) -> None:
    """Show a run until it ends or the page leaves. The run itself goes on either way."""
    await websocket.accept()
    try:
        async with asyncio.TaskGroup() as group:
            showing = group.create_task(show(websocket))
            async for _ in websocket.iter_text():  # ends when the page has left
                pass
            showing.cancel()
    except* WebSocketDisconnect:
        pass  # it left while something was on its way to it


async def show(websocket: WebSocket) -> None:
    """Send what a view tells of the events after the page's cursor."""
    view = VIEWS[websocket.path_params["view"]]
    run_id = websocket.path_params["run_id"]
    cursor = int(websocket.query_params.get("after", "0"))
    run = events.stream_workflow(client, workflow_run_id=run_id, last_sequence_id=cursor)
    code = DONE
    try:
        async with aclosing(run):
            async for event in run:
                if message := view(event):
                    await websocket.send_json({**message, "sequence": event.sequence_id})
    except CallError as error:
        await websocket.send_json({"type": "error", "message": str(error)})
    except ConnectionLost:
        code = TRY_AGAIN_LATER
    await websocket.close(code)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Close the client at the end."""
    async with client:
        yield


app = Starlette(
    routes=[
        Route("/", page),
        Route("/runs", start, methods=["POST"]),
        WebSocketRoute("/runs/{run_id}/{view}", watch),
    ],
    lifespan=lifespan,
)
