"""Write the stores of this version, so that the tests of all later versions can open them.

    python -m tests.data.write_old_store [FOLDER]

Run it in the checkout of a release and commit the files that it writes to this folder:
`store-VERSION.db` is a SQLite file, `jetstream-VERSION.tar.xz` the store of a NATS server, and
the JSON file of the same name describes the runs in it. Each store is left by a service that is
killed with SIGKILL in the middle of its runs, one for each agent in app.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.json_format import MessageToDict, ParseDict

from polos.v1 import run_service_pb2 as pb
from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2_grpc import RunServiceStub
from tests.data import app
from tests.support.nats import NatsServer
from tests.support.wire import event_bytes

FOLDER = Path(__file__).parent
POLOS = Path(sysconfig.get_path("scripts")) / "polos"

SLOTS = {"POLOS_MAX_RUNS": "3"}
"""One slot for each run that is left in the middle; the next run stays queued."""

LONG = {"timeout": "2592000s"}
"""The longest timeout of a run, 30 days: the tests set the clock to a time within it."""

REQUESTS: dict[str, dict[str, Any]] = {
    "finished": {"input": "Note milk.", "requestId": "the finished one", "options": LONG},
    "failed": {"input": "Try.", "streaming": False, "options": LONG},
    "cancelled": {"input": "Go on.", "options": LONG},
    "running": {"input": "Note milk.", "options": LONG},
    "configured": {
        "inputMessagesJson": json.dumps([{"role": "user", "content": "What do you know?"}]),
        "requestId": "the configured one",
        "options": {
            **LONG,
            "sessionId": "session 1",
            "userId": "user 1",
            "initialStateJson": '{"city": "Tokyo"}',
            "providerOptionsJson": '{"temperature": 0.25, "seed": 7}',
            "deadlines": {"toolCall": "30s"},
        },
    },
    "cancelling": {"input": "Hold.", "options": LONG},
    "queued": {"input": "Note bread.", "options": LONG},
}
"""Each run's CreateRunRequest as JSON, by the name that run and agent share."""

ENDS = {
    "running": {"text": "Noting. Milk is noted.", "tools": ["jot"]},
    "configured": {"text": "Looking. Again.", "tools": ["recall", "recall"]},
    "queued": {"text": "Bread is noted.", "tools": ["jot"]},
}
"""The text and the tool calls, in order, that each unfinished run has at its end."""


class Writer:
    """Starts runs and describes them.

    Attributes:
        runs: the description of each run, by name.

    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._runs: Any = RunServiceStub(channel)
        self._tail: Any = channel.unary_stream(
            "/polos.v1.RunService/StreamWorkflow",
            request_serializer=pb.StreamWorkflowRequest.SerializeToString,
        )  # without a deserializer: the responses stay bytes
        self.runs: dict[str, dict[str, Any]] = {}

    async def start(self, name: str) -> str:
        """Start a run and return its id."""
        request = {"agentId": name, "streaming": True, **REQUESTS[name]}
        answer = await self._runs.CreateRun(ParseDict(request, pb.CreateRunRequest()))
        self.runs[name] = {"request": request, **ENDS.get(name, {})}
        return str(answer.run.run_id)

    async def describe(self, name: str, run_id: str, last: Callable[[Event], bool] | None) -> None:
        """Describe a run whose newest event satisfies `last`; None: its log is empty."""
        log: list[bytes] = []
        while last is not None:
            request = pb.StreamWorkflowRequest(workflow_run_id=run_id, after_sequence=len(log))
            call = self._tail(request)
            log += event_bytes(await call.read())
            call.cancel()
            if log and last(Event.FromString(log[-1])):
                break
        run = (await self._runs.GetRun(pb.GetRunRequest(run_id=run_id))).run
        digest = hashlib.sha256(b"".join(log)).hexdigest()
        self.runs[name] |= {"run": MessageToDict(run), "events": len(log), "sha256": digest}

    async def cancel(self, run_id: str) -> None:
        """Cancel a run."""
        await self._runs.CancelRun(pb.CancelRunRequest(run_id=run_id))


def says_of(step_key: str, text: str) -> Callable[[Event], bool]:
    """Return whether an event is the text delta of this step with this text."""
    return lambda event: (event.text_delta.step_key, event.text_delta.content) == (step_key, text)


async def fill(writer: Writer, service: asyncio.subprocess.Process) -> None:
    """Start one run of each kind and let the service be killed by the last cancellation."""

    def ended(event: Event) -> bool:
        return event.terminal

    for name in ("finished", "failed"):
        await writer.describe(name, await writer.start(name), ended)
    run_id = await writer.start("cancelled")
    await writer.describe("cancelled", run_id, says_of("llm:1", "On"))
    await writer.cancel(run_id)
    await writer.describe("cancelled", run_id, ended)
    await writer.describe("running", await writer.start("running"), says_of("llm:2", " of"))
    await writer.describe("configured", await writer.start("configured"), says_of("llm:2", "Half"))
    run_id = await writer.start("cancelling")
    await said(service, app.HOLDING)
    await writer.describe("cancelling", run_id, lambda event: event.step_start.step_key == "hold")
    await writer.describe("queued", await writer.start("queued"), None)
    with contextlib.suppress(grpc.aio.AioRpcError):  # the process dies before it answers
        await writer.cancel(run_id)
    assert await service.wait() == -signal.SIGKILL


async def said(service: asyncio.subprocess.Process, text: str) -> str:
    """Wait for a line of output that contains `text`; return the rest of that line."""
    assert service.stdout is not None
    while line := (await service.stdout.readline()).decode():
        if text in line:
            return line.partition(text)[2].strip()
    raise AssertionError(f"the service ended without saying {text!r}")


@contextlib.asynccontextmanager
async def serving(store: str) -> AsyncIterator[tuple[Writer, asyncio.subprocess.Process]]:
    """Serve app.py on a store, in a process of its own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("POLOS_")}
    service = await asyncio.create_subprocess_exec(
        *(POLOS, "serve", FOLDER / "app.py", "--listen", "127.0.0.1:0", "--store", store),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=inherited | SLOTS,
    )
    try:
        async with grpc.aio.insecure_channel(await said(service, "listens on ")) as channel:
            yield Writer(channel), service
    finally:
        if service.returncode is None:
            service.kill()
            await service.wait()


async def left_behind(store: str) -> dict[str, Any]:
    """Fill a store and return its description."""
    async with serving(store) as (writer, service):
        await fill(writer, service)
        return {"written": datetime.now(UTC).isoformat(timespec="seconds"), "runs": writer.runs}


def write_sqlite(folder: Path, target: Path) -> dict[str, Any]:
    """Write a file of SQLite, with its write-ahead log moved into it."""
    path = folder / "runs.db"
    holds = asyncio.run(left_behind(f"sqlite://{path}"))
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copyfile(path, target.with_name(f"{target.name}.db"))
    return holds


def write_jetstream(folder: Path, target: Path) -> dict[str, Any]:
    """Write the packed folder of a NATS server."""
    with NatsServer(folder) as server:
        holds = asyncio.run(left_behind(server.url))
    with tarfile.open(target.with_name(f"{target.name}.tar.xz"), "w:xz") as archive:
        archive.add(folder / "jetstream", "jetstream")
    return holds


KINDS = {"store": write_sqlite, "jetstream": write_jetstream}
"""How the store of each kind is written."""


def write(kind: str, folder: Path = FOLDER) -> None:
    """Write a store of the installed version, and its description beside it."""
    target = folder / f"{kind}-{version('polos-grpc')}"
    description = target.with_name(f"{target.name}.json")
    if description.exists():
        raise FileExistsError(f"{description} exists; the data of a version must not change")
    with tempfile.TemporaryDirectory() as work:
        holds = KINDS[kind](Path(work), target)
    description.write_text(json.dumps(holds, indent=1) + "\n")


if __name__ == "__main__":
    for kind in KINDS:
        write(kind, *map(Path, sys.argv[1:]))
