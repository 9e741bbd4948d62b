"""Agents without a server: the scripted provider, a real store, an executor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2 import CreateRunRequest
from polos_client.define.agent import Agent
from polos_service.agents.runnable import AgentRunnable
from polos_service.api.grpc.requests import run_request
from polos_service.caller import ANONYMOUS
from polos_service.catalog import Catalog
from polos_service.loader import with_tools
from polos_service.models import Model, ModelAnswer, ModelRequest, Output
from polos_service.models.messages import Message
from polos_service.models.providers import Providers
from polos_service.models.scripted import Scripted
from polos_service.replay.replay import NO_OTHERS, answers_nothing
from polos_service.runs.clock import Clock, SystemClock
from polos_service.runs.executor import Executor
from polos_service.service import Runs
from polos_service.sidethread import SideThread
from polos_service.store import RunStore
from polos_service.workflows.means import Means
from tests.support.runs import executing
from tests.support.stores import all_events


@dataclass
class Recorder(Model):
    """The scripted model; it keeps what it was asked, and may answer otherwise."""

    requests: list[ModelRequest] = field(default_factory=list)
    answers: Mapping[int, ModelAnswer] = field(default_factory=dict)
    script: Scripted = field(default_factory=Scripted)
    apis: Collection[str] = ()

    def check(self, options: Mapping[str, Any], api: str | None = None) -> Mapping[str, str]:
        return self.script.check(options, api)

    async def answer(self, request: ModelRequest, output: Output) -> ModelAnswer:
        self.requests.append(request)
        if request.turn in self.answers:
            return self.answers[request.turn]
        return await self.script.answer(request, output)

    async def close(self) -> None:
        await self.script.close()

    @property
    def conversation(self) -> list[Message]:
        """The messages of the last call."""
        return list(self.requests[-1].messages)


def catalog(
    *agents: Agent, model: Model | None = None, projects: Mapping[str, list[str]] | None = None
) -> Catalog:
    """Return a catalog of these agents and those that are their tools.

    Their provider is a script, or this model. `projects` are those that an agent is limited to.
    """
    providers = Providers({"scripted": lambda _: model or Scripted()})
    loaded = Catalog(projects=projects or {})
    means = Means(SystemClock(), answers_nothing, loaded.find, NO_OTHERS)
    for agent in with_tools(agents):
        loaded.add(AgentRunnable(agent, providers, means))
    return loaded


def use_cases(
    store: RunStore, agents: Catalog, executor: Executor | None = None, clock: Clock | None = None
) -> Runs:
    """Return the use cases; without an executor of their own nothing takes up runs."""
    clock = clock or SystemClock()
    return Runs(store, agents, executor or Executor(store, agents, clock, 1), clock, SideThread())


async def started(store: RunStore, agents: Catalog, **fields: Any) -> str:
    """Create a run of the only agent, or of the one that is named."""
    named = {} if "agent_id" in fields else {"agent_id": only(agents)}
    values = {"input": "Hello", "streaming": True, **named, **fields}
    request = run_request(ANONYMOUS, CreateRunRequest(**values))
    return await use_cases(store, agents).start(request)


def only(agents: Catalog) -> str:
    """Return the id of the only agent."""
    (agent,) = agents.agents()
    return agent.id


async def played(
    store: RunStore, agent: Agent, model: Model | None = None, **fields: Any
) -> list[Event]:
    """Run an agent to its end and return its events."""
    agents = catalog(agent, model=model)
    async with executing(store, agents):
        run_id = await started(store, agents, agent_id=agent.id, **fields)
        return await all_events(store, run_id)


@asynccontextmanager
async def serving(store: RunStore, agent: Agent) -> AsyncIterator[Catalog]:
    """Give a catalog of one agent whose runs are taken up."""
    agents = catalog(agent)
    async with executing(store, agents):
        yield agents
