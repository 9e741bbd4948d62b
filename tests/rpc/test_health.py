"""Health checking and reflection, as tools of the trade ask for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from polos.v1 import run_service_pb2
from polos_service.api.grpc.server import AGENT_SERVICE, RUN_SERVICE
from polos_service.server import Service
from tests.support.service import Served, reaching, serving, settings_for

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("name", ["", RUN_SERVICE.full_name, AGENT_SERVICE.full_name])
async def test_health_says_that_the_service_and_each_of_its_services_serve(
    tmp_path: Path, name: str
) -> None:
    async with serving(tmp_path) as served:
        stub = served.health()
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == SERVING


async def test_health_does_not_know_what_is_not_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        stub = served.health()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="polos.v1.NoService"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_who_watches_health_is_told_that_the_service_stops(tmp_path: Path) -> None:
    service = await Service.start(settings_for(tmp_path))
    async with reaching(service, tmp_path / "runs.db") as served:
        stub = served.health()
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=RUN_SERVICE.full_name))
        assert (await watch.read()).status == SERVING
        await service.stop(0)
        assert (await watch.read()).status == NOT_SERVING


async def ask(served: Served, **request: Any) -> Any:
    """Ask the reflection service one thing."""

    async def requests() -> AsyncIterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(**request)

    async for answer in served.reflection().ServerReflectionInfo(requests()):
        return answer
    raise AssertionError("reflection did not answer")


async def test_reflection_lists_the_services(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        answer = await ask(served, list_services="*")
        assert {service.name for service in answer.list_services_response.service} == {
            "polos.v1.RunService",
            "polos.v1.AdminService",
            "polos.v1.AgentService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }


async def test_reflection_tells_the_methods_of_a_service(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        answer = await ask(served, file_containing_symbol="polos.v1.RunService")
        told = FileDescriptorProto.FromString(
            answer.file_descriptor_response.file_descriptor_proto[0]
        )
        mine = FileDescriptorProto()
        run_service_pb2.DESCRIPTOR.CopyToProto(mine)
        assert told.service == mine.service
