"""Peer (g): the graph of LangGraph's development server, and that server.

As its documentation shows for models of other packages: a node reads the answer and writes its
tokens to the stream of mode `custom`. `serve` is what the command `langgraph dev` calls. It runs
as many jobs at once as are measured (by default 10, so the others would wait), does not search
for blocking calls, and needs neither a network nor a key.

This module runs in an environment of its own: see `bench.peers.langgraph_dev`.
"""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from typing import TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph_api.cli import run_server

from bench.peers.model import provider, typed

JOBS = 1024
"""Runs that the server carries at the same time."""

client = provider()


class State(TypedDict, total=False):
    """What the graph is asked, and what it answers."""

    prompt: str
    answer: str


async def relay(state: State) -> State:
    """Write an answer to the stream of its run, and return it."""
    write = get_stream_writer()
    texts = []
    async for text in typed(client, state["prompt"]):
        write({"content": text})
        texts.append(text)
    return {"answer": "".join(texts)}


graph = StateGraph(State).add_node(relay).add_edge(START, "relay").add_edge("relay", END).compile()


def serve() -> None:
    """Serve until the process is ended; the server keeps its files in the current folder."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    threading.Thread(target=announce, args=(f"127.0.0.1:{port}",), daemon=True).start()
    run_server(
        port=port,
        graphs={"relay": f"{__file__}:graph"},
        n_jobs_per_worker=JOBS,
        allow_blocking=True,
    )


def announce(address: str) -> None:
    """Say where the server listens, once it does."""
    while True:
        try:
            urllib.request.urlopen(f"http://{address}/ok").close()
        except OSError:
            time.sleep(0.05)
        else:
            print(f"listens on {address}", flush=True)
            return


if __name__ == "__main__":
    serve()
