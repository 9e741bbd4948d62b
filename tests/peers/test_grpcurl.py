"""grpcurl and buf: other tools call the real service, by reflection alone."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sysconfig
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from polos import PolosClient
from tests.docs.pages import ROOT, blocks_of
from tests.support.process import PATIENCE, ServiceProcess, environment
from tests.support.proxies import Authority, Envoy, Nginx, Proxy, SecureService

BIN = Path(sysconfig.get_path("scripts"))
RUN_SERVICE = "polos.v1.RunService"
SERVICES = {
    RUN_SERVICE,
    "polos.v1.AdminService",
    "polos.v1.AgentService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
}

APP = """
from polos import Agent, scripted, tool

@tool(description="Add two numbers")
async def add(a: int, b: int) -> int:
    return a + b

turns = scripted.turn(scripted.call("add", a=1, b=2)), scripted.turn(scripted.say(["It ", "is 3"]))
adder = Agent("adder", "scripted", scripted.script(*turns), tools=[add])
"""

REFUND = """
from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow

@workflow
async def refund(ctx: WorkflowContext, payload: dict):
    answer = await ctx.step.suspend("confirm", {"_form": {"title": f"Refund {payload}?"}})
    return answer["data"]
"""


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    (tmp_path / "app.py").write_text(APP)
    async with ServiceProcess(tmp_path / "app.py", tmp_path / "runs.db") as service:
        yield service


async def output_of(program: str, *arguments: str, fails: bool = False) -> str:
    """Run a tool to its end and return what it printed: its errors, if it is to fail."""
    running = await asyncio.create_subprocess_exec(
        str(BIN / program),
        *arguments,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(running.communicate(), PATIENCE)
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    assert (running.returncode != 0) is fails, errors.decode()
    return (errors if fails else output).decode()


async def buf_curl(service: ServiceProcess, *arguments: str, fails: bool = False) -> str:
    """Call `buf curl`; the last argument is the path."""
    *options, path = arguments
    plain = ("--http2-prior-knowledge", "--protocol", "grpc", "--reflect")
    url = f"http://{service.address}{path}"
    return await output_of("buf", "curl", *plain, *options, url, fails=fails)


async def grpcurl(
    service: ServiceProcess, *arguments: str, data: Any = None, fails: bool = False
) -> str:
    """Call `grpcurl`; the arguments follow the address."""
    given = () if data is None else ("-d", json.dumps(data))
    return await output_of(
        "grpcurl", "-plaintext", *given, service.address, *arguments, fails=fails
    )


def documents(text: str) -> list[Any]:
    """Return the JSON documents that were printed one after the other."""
    decoder = json.JSONDecoder()
    found = []
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


def events_of(text: str) -> list[Any]:
    """Return the events of the responses that were printed, by the JSON names of fields.

    grpcurl prints the names of the proto file where a server's reflection tells no others, as
    those in Python do not; buf makes them itself.
    """
    camel = re.sub(r'_([a-z])(?=[a-z_]*":)', lambda found: found[1].upper(), text)
    return [event for response in documents(camel) for event in response.get("events", [])]


def assert_a_sum_in_json(events: list[Any]) -> None:
    """Assert that these are the whole run's events, as protobuf's JSON has them."""
    assert [event["sequence"] for event in events] == [str(n) for n in range(1, len(events) + 1)]
    assert events[0]["workflowId"] == "adder"
    assert events[0]["agentStart"]["agentId"] == "adder"
    assert events[0]["createTime"].endswith("Z")
    calls = [event["toolCall"]["toolCall"] for event in events if "toolCall" in event]
    assert [(call["name"], call["argumentsJson"]) for call in calls] == [
        ("add", '{"a": 1, "b": 2}')
    ]
    deltas = [event["textDelta"] for event in events if "textDelta" in event]
    assert [(delta["content"], delta["stepKey"], delta["attempt"]) for delta in deltas] == [
        ("It ", "llm:2", 1),
        ("is 3", "llm:2", 1),
    ]
    (added,) = [
        event["stepFinish"]
        for event in events
        if event.get("stepFinish", {}).get("stepKey") == "add"
    ]
    assert added["resultJson"] == "3"
    assert [event.get("terminal", False) for event in events] == [False] * (len(events) - 1) + [
        True
    ]
    finish = events[-1]["agentFinish"]
    assert finish["result"] == "It is 3"
    assert finish["finishReason"] == "FINISH_REASON_STOP"
    assert isinstance(finish["usage"]["totalTokens"], int)


async def test_buf_lists_services_and_methods_by_reflection(service: ServiceProcess) -> None:
    assert set((await buf_curl(service, "--list-services", "")).split()) == SERVICES
    methods = (await buf_curl(service, "--list-methods", "")).split()
    assert f"{RUN_SERVICE}/StreamRun" in methods
    assert "polos.v1.AgentService/ListAgents" in methods


async def test_grpcurl_lists_and_describes_services_by_reflection(service: ServiceProcess) -> None:
    assert set((await grpcurl(service, "list")).split()) == SERVICES
    methods = (await grpcurl(service, "list", RUN_SERVICE)).split()
    assert methods == [
        f"{RUN_SERVICE}.{method}"
        for method in (
            *("CancelRun", "CreateRun", "CreateRunToken", "DeleteRun", "GetRun", "ListRuns"),
            *("ListWaits", "ResumeRun", "StreamRun", "StreamWorkflow"),
        )
    ]
    described = await grpcurl(service, "describe", RUN_SERVICE)
    for method in ("StreamRun", "StreamWorkflow"):
        signature = f"( .polos.v1.{method}Request ) returns ( stream .polos.v1.{method}Response )"
        assert f"rpc {method} {signature};" in described
    assert "oneof payload {" in await grpcurl(service, "describe", "polos.v1.Event")


async def test_buf_starts_a_run_prints_its_events_and_reads_it_from_a_cursor(
    service: ServiceProcess,
) -> None:
    start = json.dumps({"agentId": "adder", "input": "1 + 2"})
    printed = await buf_curl(service, "--data", start, f"/{RUN_SERVICE}/StreamRun")
    assert '"textDelta"' in printed
    events = events_of(printed)
    assert_a_sum_in_json(events)
    attach = {"workflowRunId": events[0]["runId"], "afterSequence": "3"}
    said = await buf_curl(service, "--data", json.dumps(attach), f"/{RUN_SERVICE}/StreamWorkflow")
    assert events_of(said) == events[3:]


async def test_grpcurl_starts_a_run_prints_its_events_and_reads_it_from_a_cursor(
    service: ServiceProcess,
) -> None:
    start = {"agent_id": "adder", "input": "1 + 2"}
    printed = await grpcurl(service, f"{RUN_SERVICE}/StreamRun", data=start)
    assert '"text_delta"' in printed
    events = events_of(printed)
    assert_a_sum_in_json(events)
    method = f"{RUN_SERVICE}/StreamWorkflow"
    run_id = events[0]["runId"]
    for cursor, rest in ((0, events), (3, events[3:]), (len(events), [])):
        attach = {"workflow_run_id": run_id, "after_sequence": cursor}
        assert events_of(await grpcurl(service, method, data=attach)) == rest


async def test_python_reads_what_grpcurl_started_and_the_run_id_comes_first(
    service: ServiceProcess,
) -> None:
    start = json.dumps({"agent_id": "adder", "input": "1 + 2"})
    said = await output_of(
        *("grpcurl", "-plaintext", "-v", "-d", start, service.address, f"{RUN_SERVICE}/StreamRun")
    )
    headers, _, body = said.partition("Response contents:")
    (run_id,) = [
        line.removeprefix("polos-run-id: ")
        for line in headers.splitlines()
        if line.startswith("polos-run-id: ")
    ]
    assert run_id in body
    async with PolosClient(service.address) as client:
        run = await client.get_run(run_id)
    assert run.outcome.agent_finish.result == "It is 3"


async def test_grpcurl_answers_a_wait_as_the_documentation_shows(tmp_path: Path) -> None:
    page = ROOT / "docs" / "other-languages.md"
    *_, script = [block.code for block in blocks_of(page, "sh") if block.tested]
    (tmp_path / "app.py").write_text(REFUND)
    async with ServiceProcess(tmp_path / "app.py", tmp_path / "runs.db") as service:
        running = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", script.replace("127.0.0.1:50051", service.address)),
            env={**environment(), "PATH": f"{BIN}:/usr/bin:/bin"},
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(running.communicate(), PATIENCE)
    assert running.returncode == 0
    events = events_of(output.decode())
    kinds = [kind for event in events for kind in event if kind in ("suspended", "resumed")]
    assert kinds == ["suspended", "resumed"]
    suspended, resumed = events[1]["suspended"], events[2]["resumed"]
    assert suspended["kind"] == resumed["kind"] == "WAIT_KIND_SUSPEND"
    assert json.loads(suspended["dataJson"]) == {"_form": {"title": "Refund {'amount': 100}?"}}
    assert (resumed["waitId"], resumed["principal"]) == (events[1]["sequence"], "anonymous")
    assert events[-1]["workflowFinish"]["resultJson"] == '{"ok":true}'


async def test_both_print_why_a_call_was_refused(service: ServiceProcess) -> None:
    start = {"agentId": "nobody", "input": "Hi"}
    path = f"{RUN_SERVICE}/StreamRun"
    refused = await grpcurl(service, path, data=start, fails=True)
    assert "Code: NotFound" in refused
    assert "AGENT_NOT_FOUND" in refused
    told = json.loads(await buf_curl(service, "--data", json.dumps(start), f"/{path}", fails=True))
    assert told["code"] == "not_found"
    assert "adder" in told["message"]
    (detail,) = told["details"]
    assert detail["type"] == "google.rpc.ErrorInfo"
    assert b"AGENT_NOT_FOUND" in base64.b64decode(detail["value"] + "==")


async def test_grpcurl_finds_the_service_healthy(service: ServiceProcess) -> None:
    for name in ("", RUN_SERVICE, "polos.v1.AgentService"):
        said = await grpcurl(service, "grpc.health.v1.Health/Check", data={"service": name})
        assert documents(said) == [{"status": "SERVING"}]


@pytest.mark.parametrize("kind", [Envoy, Nginx], ids=["envoy", "nginx"])
async def test_grpcurl_calls_through_a_proxy(kind: type[Proxy], tmp_path: Path) -> None:
    authority = Authority()
    async with (
        SecureService(tmp_path / "service", authority) as service,
        kind(tmp_path / "proxy", authority, [service.port]) as proxy,
    ):
        trusted = ("-cacert", str(tmp_path / "proxy" / "authority.pem"))
        assert (
            set((await output_of("grpcurl", *trusted, proxy.address, "list")).split()) == SERVICES
        )
        told = await output_of("grpcurl", *trusted, proxy.address, "grpc.health.v1.Health/Check")
        assert documents(told) == [{"status": "SERVING"}]
        start = json.dumps({"agent_id": "talker", "input": "Hi"})
        call = ("-d", start, proxy.address, f"{RUN_SERVICE}/StreamRun")
        events = events_of(await output_of("grpcurl", *trusted, *call))
        assert [event["sequence"] for event in events] == [str(n + 1) for n in range(len(events))]
        assert events[-1]["agentFinish"]["result"] == "Hello world"
