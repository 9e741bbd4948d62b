"""Ways to stop a run exactly where a test wants it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Mapping
from typing import Any, cast

from polos.v1.event_pb2 import FinishReason
from polos_client.define.tool import Tool, tool
from polos_service.models import Model, ModelAnswer, ModelRequest, Output
from polos_service.models.messages import Text
from polos_service.server import Service
from polos_service.store.sqlite import SqliteStore
from tests.support.service import BOUND


class Gate:
    """A tool that waits in the loop until it is let on, and counts its calls."""

    def __init__(self, name: str = "gate") -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()
        self.calls = 0
        self.tool = self._tool(name)

    async def reached(self) -> None:
        """Wait until the tool is called."""
        async with asyncio.timeout(BOUND):
            await self.entered.wait()

    def _tool(self, name: str) -> Tool:
        @tool(id=name)
        async def gate() -> str:
            self.calls += 1
            self.entered.set()
            await self.opened.wait()
            return "opened"

        return gate


class Thread:
    """A plain `def` tool that blocks its thread until it is let on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.left = threading.Event()
        self.tool = self._tool()

    def _tool(self) -> Tool:
        @tool
        def block() -> str:
            self.entered.set()
            self.opened.wait(BOUND)
            self.left.set()
            return "opened"

        return block


class HeldCommits:
    """Stands for the store's writing connection: what it does is committed when it may be."""

    def __init__(self, service: Service) -> None:
        """Take the connection's place; nothing is held before `hold`."""
        assert isinstance(service._store, SqliteStore)
        committer = service._store._committer
        self._db = committer._db
        self._free = threading.Event()
        self._free.set()
        self.waiting = threading.Event()
        committer._db = cast("sqlite3.Connection", self)

    def hold(self) -> None:
        """Let no commit pass from now on."""
        self.waiting.clear()
        self._free.clear()

    def release(self) -> None:
        """Let commits pass again."""
        self._free.set()

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Execute; a COMMIT, or an INSERT that is a transaction of its own, waits until it may."""
        commits = statement == "COMMIT" or (
            statement.startswith("INSERT") and not self._db.in_transaction
        )
        if commits and not self._free.is_set():
            self.waiting.set()
            assert self._free.wait(BOUND)
        return self._db.execute(statement, *values)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._db.in_transaction

    def close(self) -> None:
        """Close the connection."""
        self._db.close()


class Talker(Model):
    """A model that says so many pieces of a size once it may, and counts what it got rid of."""

    def __init__(self, pieces: int, size: int = 1) -> None:
        self.said = 0
        self.asked = asyncio.Event()
        self.begin = asyncio.Event()
        self._pieces = pieces
        self._size = size

    def check(self, options: Mapping[str, Any], api: str | None = None) -> Mapping[str, str]:
        """Take every option."""
        return {}

    async def answer(self, request: ModelRequest, output: Output) -> ModelAnswer:
        """Say all pieces, with a turn of the loop after each."""
        self.asked.set()
        await self.begin.wait()
        for _ in range(self._pieces):
            await output.text("x" * self._size)
            self.said += 1
            await asyncio.sleep(0)
        return ModelAnswer(parts=[Text(text="said")], finish_reason=FinishReason.FINISH_REASON_STOP)

    async def close(self) -> None:
        """Do nothing."""
