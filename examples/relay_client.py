"""Call a service through its generated stubs alone, as a program in any language would."""

from __future__ import annotations

import asyncio
import os
import uuid

import grpc.aio

from polos.v1.run_service_pb2 import StreamRunRequest
from polos.v1.run_service_pb2_grpc import RunServiceStub

SECONDS = 60


async def main() -> None:
    """Start a run with a deadline on the call, and print its text until its last event."""
    address = os.environ.get("POLOS_ADDRESS", "127.0.0.1:50052")
    request = StreamRunRequest(
        agent_id="storyteller",
        input="Tell me about a lighthouse keeper.",
        request_id=str(uuid.uuid4()),  # the same again attaches to the same run
    )
    async with grpc.aio.insecure_channel(address) as channel:
        call = RunServiceStub(channel).StreamRun(request, timeout=SECONDS)
        async for response in call:
            for event in response.events:
                print(event.text_delta.content, end="", flush=True)
                if event.terminal:
                    print(f"\n[{event.WhichOneof('payload')} after {event.sequence} events]")


if __name__ == "__main__":
    asyncio.run(main())
