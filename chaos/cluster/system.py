"""The system under test: NATS servers, replicas of the service, and what is done to them."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Self

from nats.js import JetStreamContext

from chaos.cluster.logs import jetstream
from chaos.cluster.nodes import Node, Nodes
from chaos.cluster.plan import CLAIM_TIMEOUT, SIZE, Blow
from chaos.cluster.stranger import publish
from chaos.link import Link
from chaos.places import LEADERS, SERVICES, Place
from chaos.process import PATIENCE
from chaos.service import Service, environment
from polos_service.store.nats.subjects import LOG


class Replica:
    """A replica of the service, with a link to each server of NATS.

    Attributes:
        service: its process.
        problems: what it did that it must not.

    """

    def __init__(self, folder: Path, links: list[Link], told: dict[str, str]) -> None:
        """Keep everything in `folder`."""
        folder.mkdir()
        self.problems: list[str] = []
        self._links = links
        store = "nats://" + ",".join(link.address for link in links)
        self.service = Service(folder, store, told)

    async def start(self) -> None:
        """Start its process, and return when it listens.

        Raises:
            RuntimeError: it ended instead.

        """
        if not await self.service.start():
            raise RuntimeError(f"a replica does not start:\n{self.service.output()}")

    async def stop(self) -> None:
        """Ask its process to stop; it is a problem if it does not."""
        self.service.send(signal.SIGTERM)
        if not await self.service.ended(PATIENCE):
            self.problems.append(f"stop: a replica went on for {PATIENCE:g} s after SIGTERM")
            await self.service.end()

    async def arm(self, faults: str) -> None:
        """Have its process ended and another one started, that is to kill itself."""
        await self.stop()
        await self.service.start(faults)

    async def part(self, seconds: float, *, reset: bool) -> None:
        """Cut it off from NATS for a while."""
        for link in self._links:
            link.part()
        await asyncio.sleep(seconds)
        for link in self._links:
            link.heal(reset=reset)


class Cluster:
    """The servers and the replicas; an async context manager.

    Attributes:
        nodes: the servers of NATS.
        replicas: the replicas of the service.

    """

    def __init__(self, folder: Path, provider: str, bug: str, ledger: Path) -> None:
        """Keep everything in `folder`."""
        self.nodes = Nodes(SIZE, folder)
        self.replicas: list[Replica] = []
        self._folder = folder
        self._told = environment(provider, bug, ledger) | {
            "POLOS_CLAIM_TIMEOUT": str(CLAIM_TIMEOUT),
            "POLOS_NATS_REPLICAS": str(SIZE),
        }
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        processes = [*(one.service for one in self.replicas), *self.nodes.all]
        await asyncio.gather(*(process.end() for process in processes))
        await self._stack.aclose()

    @property
    def problems(self) -> Sequence[str]:
        """What the replicas did that they must not."""
        return [problem for replica in self.replicas for problem in replica.problems]

    def jetstream(self) -> AbstractAsyncContextManager[JetStreamContext]:
        """Connect to the servers."""
        return jetstream(node.port for node in self.nodes.all)

    async def suffer(self, blow: Blow) -> None:
        """Let a blow happen, and return when all are up again."""
        if blow.place is Place.STRANGER:
            ports = [node.port for node in self.nodes.all]
            await publish(ports, random.Random(blow.seconds))
        elif blow.place in SERVICES:
            await SUFFERED_BY_REPLICAS[blow.place](self.replicas[blow.victim], blow)
        else:
            await SUFFERED_BY_NODES[blow.place](await self._server(blow), blow)
        await self.nodes.whole()

    def output(self) -> str:
        """Return what the replicas printed."""
        return "".join(one.service.output() for one in self.replicas)

    async def _start(self) -> None:
        await self.nodes.start()
        for number in range(SIZE):
            enter = self._stack.enter_async_context
            links = [await enter(Link(node.port)) for node in self.nodes.all]
            self.replicas.append(Replica(self._folder / f"s{number}", links, self._told))
        await asyncio.gather(*(one.start() for one in self.replicas))
        await self.nodes.whole()

    async def _server(self, blow: Blow) -> Node:
        """Return the leader, or one that is not."""
        leader = await self.nodes.leader(LOG)
        if blow.place in LEADERS:
            return leader
        others = [node for node in self.nodes.all if node is not leader]
        return others[blow.victim % len(others)]


async def kill_replica(replica: Replica, _: Blow) -> None:
    """Kill it, and start it again."""
    await replica.service.end()
    await replica.start()


async def restart_replica(replica: Replica, _: Blow) -> None:
    """Ask it to stop, and start it again."""
    await replica.stop()
    await replica.start()


async def pause_replica(replica: Replica, blow: Blow) -> None:
    """Stop it for a while: it comes back as one that does not know what it lost."""
    replica.service.send(signal.SIGSTOP)
    await asyncio.sleep(blow.seconds)
    replica.service.send(signal.SIGCONT)


async def part_replica(replica: Replica, blow: Blow) -> None:
    """Cut it off for a while."""
    await replica.part(blow.seconds, reset=blow.reset)


async def kill_node(node: Node, _: Blow) -> None:
    """Kill it, and start it again."""
    await node.end()
    await node.start()


async def pause_node(node: Node, blow: Blow) -> None:
    """Stop it for a while."""
    node.send(signal.SIGSTOP)
    await asyncio.sleep(blow.seconds)
    node.send(signal.SIGCONT)


SUFFERED_BY_REPLICAS: Mapping[Place, Callable[[Replica, Blow], Awaitable[None]]] = {
    Place.SERVICE_KILL: kill_replica,
    Place.SERVICE_RESTART: restart_replica,
    Place.SERVICE_PAUSE: pause_replica,
    Place.SERVICE_PART: part_replica,
}
"""What is done to a replica, by place."""

SUFFERED_BY_NODES: Mapping[Place, Callable[[Node, Blow], Awaitable[None]]] = {
    Place.NODE_KILL: kill_node,
    Place.LEADER_KILL: kill_node,
    Place.NODE_PAUSE: pause_node,
    Place.LEADER_PAUSE: pause_node,
}
"""What is done to a server of NATS, by place."""
