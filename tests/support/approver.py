"""Somebody who answers the waits of a service's runs, over gRPC."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from polos.v1 import run_service_pb2 as pb
from polos.v1.run_pb2 import RunState, Wait
from polos_client.calls.status import to_error
from tests.support.service import until

if TYPE_CHECKING:  # mypy-protobuf's name for what the stub of a channel of grpc.aio is
    from polos.v1.run_service_pb2_grpc import RunServiceAsyncStub

YES, NO = {"approved": True}, {"approved": False}


@dataclass(frozen=True)
class Approver:
    """Sees and answers what runs of this service wait for."""

    runs: RunServiceAsyncStub

    async def open(self) -> list[Wait]:
        """Return the open waits of the project, oldest first."""
        return list((await self.runs.ListWaits(pb.ListWaitsRequest())).waits)

    async def sees(self, *keys: str) -> list[Wait]:
        """Wait until waits with these keys are open, and return them."""

        async def all_open() -> bool:
            return set(keys) <= {one.step_key for one in await self.open()}

        await until(all_open, f"waits {keys}")
        found = {one.step_key: one for one in await self.open()}
        return [found[key] for key in keys]

    async def replies(self, wait: Wait, data: Any, **fields: Any) -> pb.ResumeRunResponse:
        """Answer this wait.

        Raises:
            CallError: the service refused.

        """
        named = {"wait_id": wait.wait_id, "request_id": str(uuid.uuid4()), **fields}
        request = pb.ResumeRunRequest(run_id=wait.run_id, data_json=json.dumps(data), **named)
        try:
            return await self.runs.ResumeRun(request)
        except grpc.aio.AioRpcError as error:
            raise to_error(error, "the service") from None

    async def answers(self, key: str, data: Any, **fields: Any) -> Wait:
        """Answer the wait with this key once it is open; return it."""
        (wait,) = await self.sees(key)
        await self.replies(wait, data, **fields)
        return wait

    async def parked(self, run_id: str) -> None:
        """Wait until a run is suspended."""

        async def suspended() -> bool:
            found = await self.runs.GetRun(pb.GetRunRequest(run_id=run_id))
            return found.run.state == RunState.RUN_STATE_SUSPENDED

        await until(suspended, "a parked run")
