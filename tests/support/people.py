"""People who answer what agents' runs wait for, without a server."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import RunState, Wait
from polos_client.define.agent import Agent
from polos_service.caller import ANONYMOUS
from polos_service.catalog import Catalog
from polos_service.models import Model
from polos_service.reply import Reply
from polos_service.runs.clock import SystemClock
from polos_service.runs.executor import Executor
from polos_service.store import CANCEL, Command
from polos_service.store.sqlite import SqliteStore
from polos_service.waits import Waits
from tests.support.agents import catalog, started, use_cases
from tests.support.service import until
from tests.support.stores import all_events, events_of


@dataclass(frozen=True)
class Person:
    """Somebody who sees a run of an agent and answers its waits."""

    store: SqliteStore
    agents: Catalog
    run_id: str

    @property
    def waits(self) -> Waits:
        """The use cases of waits."""
        return use_cases(self.store, self.agents).waits

    async def open(self) -> dict[str, Wait]:
        """Return the run's open waits by key."""
        return {one.step_key: one for one in await self.waits.open(ANONYMOUS, self.run_id)}

    async def sees(self, *keys: str) -> list[Wait]:
        """Wait until the run waits with these keys, and return the waits."""
        await until(lambda: self._has(keys), f"open waits {keys}")
        found = await self.open()
        return [found[key] for key in keys]

    async def _has(self, keys: tuple[str, ...]) -> bool:
        return set(keys) <= (await self.open()).keys()

    async def answers(self, key: str, data: Any, *, request_id: str = "") -> Wait:
        """Answer the wait with this key once it is open; return it."""
        (wait,) = await self.sees(key)
        await self.replies(wait, data, request_id=request_id)
        return wait

    async def replies(self, wait: Wait, data: Any, *, request_id: str = "") -> None:
        """Answer this wait, open or not."""
        reply = Reply(
            run_id=self.run_id,
            step_key=wait.step_key,
            wait_id=wait.wait_id,
            data_json=json.dumps(data),
            data=data,
            request_id=request_id or str(uuid.uuid4()),
        )
        await self.waits.resume(ANONYMOUS, reply)

    async def parks(self) -> None:
        """Wait until the run is suspended."""
        await until(self._parked, "a parked run")

    async def _parked(self) -> bool:
        record = await self.store.get("default", self.run_id)
        return record.state == RunState.RUN_STATE_SUSPENDED

    async def cancels(self) -> None:
        """Order the run's end."""
        cancel = Command(id=CANCEL, kind=CANCEL, run_id=self.run_id)
        await self.store.command("default", self.run_id, cancel)

    async def end(self) -> list[Event]:
        """Return the run's events once it has ended."""
        return await all_events(self.store, self.run_id)

    async def events(self) -> list[Event]:
        """Return the run's events so far."""
        return await events_of(self.store, self.run_id)


@asynccontextmanager
async def working(
    store: SqliteStore,
    agent: Agent,
    model: Model | None = None,
    run_id: str | None = None,
    *,
    threshold: float = 60.0,
    **fields: Any,
) -> AsyncIterator[Person]:
    """Start a run, or go on with one, for as long as the block; give somebody who answers."""
    agents = catalog(agent, model=model)
    executor = Executor(store, agents, SystemClock(), 10, threshold=threshold)
    executor.start()
    try:
        if run_id is None:
            run_id = await started(store, agents, agent_id=agent.id, **fields)
        yield Person(store, agents, run_id)
    finally:
        await executor.stop(0)


def input_of(wait: Wait) -> Any:
    """Return the arguments that an approval shows."""
    return json.loads(wait.data_json)["_form"]["context"]["input"]
