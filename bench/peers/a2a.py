"""Peer (d): the gRPC server of `a2a-sdk`, each token an update of an artifact.

With the path of a file as its argument it keeps its tasks there (d'), else in memory.
"""

from __future__ import annotations

import sys

import grpc
import uvloop
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.request_handlers.grpc_handler import GrpcHandler
from a2a.server.tasks import DatabaseTaskStore, InMemoryTaskStore, TaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Part,
    Task,
    TaskState,
    TaskStatus,
)
from a2a.types.a2a_pb2_grpc import add_A2AServiceServicer_to_server
from sqlalchemy.ext.asyncio import create_async_engine

from bench.peers.model import provider, typed


class Relay(AgentExecutor):
    """Relays an answer of the provider."""

    def __init__(self) -> None:
        self._client = provider()

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Publish the task, an update of its artifact a token, and its end."""
        assert context.task_id is not None
        assert context.context_id is not None
        await event_queue.enqueue_event(
            Task(
                id=context.task_id,
                context_id=context.context_id,
                status=TaskStatus(state=TaskState.TASK_STATE_WORKING),
            )
        )
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        begun = False
        async for text in typed(self._client, context.get_user_input()):
            await updater.add_artifact([Part(text=text)], artifact_id="answer", append=begun)
            begun = True
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """End the task."""
        await TaskUpdater(event_queue, str(context.task_id), str(context.context_id)).cancel()


async def task_store(path: str | None) -> TaskStore:
    """Return the store of the tasks."""
    if path is None:
        return InMemoryTaskStore()
    store = DatabaseTaskStore(create_async_engine(f"sqlite+aiosqlite:///{path}"))
    await store.initialize()
    return store


async def serve(path: str | None) -> None:
    """Serve until the process is ended."""
    card = AgentCard(
        name="relay",
        description="Relays a model's answer.",
        version="1.0.0",
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        supported_interfaces=[AgentInterface(url="127.0.0.1", protocol_binding="GRPC")],
        skills=[AgentSkill(id="relay", name="relay", description="Relays.", tags=["relay"])],
    )
    handler = DefaultRequestHandler(
        agent_executor=Relay(), task_store=await task_store(path), agent_card=card
    )
    server = grpc.aio.server()
    add_A2AServiceServicer_to_server(GrpcHandler(handler), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listens on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1] if len(sys.argv) > 1 else None))
