"""Work that grows with a log or an input gives everybody else a turn, or leaves the loop."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from polos.v1 import agent_service_pb2 as agents_pb
from polos.v1 import run_service_pb2 as pb
from polos.v1.event_pb2 import Event
from polos_client.define.agent import Agent
from polos_client.define.tool import tool
from polos_client.wire import RESULT_LIMIT
from polos_service.agents.definition import Definition
from polos_service.api.grpc import requests
from polos_service.pacer import Pacer
from polos_service.reading import details
from polos_service.reading.details import Details
from polos_service.runs.frame import decode
from tests.hostile.logs import RUN, append_log
from tests.support.runs import opened
from tests.support.service import scripted, serving

ASKED = 20
"""Callers that look at the long run at once."""

FINE = scripted("fine")


class Counted:
    """A store that counts what is read of it, in all and in one turn of the loop."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.reads = 0
        self.at_once = 0
        self._since = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read(self, *args: Any) -> Any:
        """Read, and count it."""
        self.reads += 1
        self._since += 1
        self.at_once = max(self.at_once, self._since)
        return await self._store.read(*args)

    def turn(self) -> None:
        """Say that somebody else had a turn."""
        self._since = 0


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """Collect the events that are decoded for an answer."""
    seen: list[Event] = []

    def counted(data: bytes) -> list[Event]:
        events = decode(data)
        seen.extend(events)
        return events

    monkeypatch.setattr(details, "decode", counted)
    return seen


async def test_others_have_a_turn_after_every_few_pieces_of_a_long_log(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await append_log(store, 20_000, tools=3)
        counted: Any = Counted(store)
        answers = Details(counted, Pacer())
        asked = [
            asyncio.create_task(answers.whole("default", RUN, RESULT_LIMIT)) for _ in range(ASKED)
        ]
        while not all(one.done() for one in asked):
            await asyncio.sleep(0)
            counted.turn()
        assert counted.reads > 10 * ASKED
        assert counted.at_once <= ASKED + 1  # each looks once for the run's end
        for one in asked:
            run = one.result()
            assert [result.result_json for result in run.tool_results] == ["2", "1", "0"]
            assert run.outcome is not None
            assert run.outcome.agent_finish.result == "done"


async def test_deltas_are_not_decoded(tmp_path: Path, decoded: list[Event]) -> None:
    async with opened(tmp_path) as store:
        await append_log(store, 20_000, tools=1)
        await Details(store, Pacer()).whole("default", RUN, RESULT_LIMIT)
        assert len(decoded) < 2_000  # the piece with the tool's events, and the last event


async def test_to_cancel_a_run_reads_nothing_of_its_log_but_the_end(
    tmp_path: Path, decoded: list[Event]
) -> None:
    async with opened(tmp_path) as store:
        await append_log(store, 20_000)
        counted: Any = Counted(store)
        run = await Details(counted, Pacer()).ended("default", RUN)
        assert run.outcome is not None
        assert run.outcome.terminal
        assert (counted.reads, decoded) == (1, []), "no frame is decoded, only its last event"


@tool
async def echo(text: str) -> str:
    """Return the text."""
    return text


async def test_words_that_look_like_a_tools_event_change_nothing(tmp_path: Path) -> None:
    said = details.TOOL.decode()
    agent = scripted(said, tools=(echo,))
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent)
        await served.events(run_id)
        run = (await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run
        assert run.outcome.agent_finish.result == said
        assert not run.tool_results


def checked_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the names of the threads in which starts are checked."""
    names: list[str] = []

    class Watched(requests.Fields):
        def __init__(self, request: Any, kind: str) -> None:
            names.append(threading.current_thread().name)
            super().__init__(request, kind)

    monkeypatch.setattr(requests, "Fields", Watched)
    return names


async def test_a_large_start_is_checked_outside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = checked_in(monkeypatch)
    many = json.dumps([{"role": "user", "content": ""}] * 25_000)
    async with serving(tmp_path, FINE) as served:
        request = pb.CreateRunRequest(agent_id="demo", input_messages_json=many)
        await asyncio.gather(*(served.runs.CreateRun(request) for _ in range(3)))
        await served.start(FINE)
    assert names[:3] == ["polos-check_0"] * 3
    assert names[3] == threading.main_thread().name


async def test_a_large_definition_is_read_outside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    unpin = Definition.unpin

    def watched(pinned: bytes) -> Definition:
        names.append(threading.current_thread().name)
        return unpin(pinned)

    monkeypatch.setattr(Definition, "unpin", watched)
    many = json.dumps([{"role": "user", "content": ""}] * 25_000)
    async with serving(tmp_path, FINE) as served:
        request = pb.CreateRunRequest(agent_id="demo", input_messages_json=many)
        large = (await served.runs.CreateRun(request)).run.run_id
        assert (await served.events(large))[-1].HasField("agent_finish")
        await served.events(await served.start(FINE))
    assert names == ["polos-check_0", threading.main_thread().name]


async def test_a_run_may_choose_so_many_options_and_no_more(tmp_path: Path) -> None:
    calls: list[int] = []

    class Model:
        def check(self, options: Mapping[str, Any]) -> Mapping[str, str]:
            calls.append(len(options))
            return {}

        async def close(self) -> None:
            pass

    async with serving(tmp_path, FINE) as served:
        served.service._providers._models["scripted"] = Model()  # type: ignore[assignment]
        many = json.dumps({f"option{index}": 1 for index in range(10_000)})
        request = pb.CreateRunRequest(agent_id="demo", input="Go.")
        request.options.provider_options_json = many
        with pytest.raises(Exception, match="has 10000 members, the limit is 100"):
            await served.runs.CreateRun(request)
    assert calls == []


async def test_lists_are_cut_to_what_a_client_takes(tmp_path: Path) -> None:
    agents = [described(f"agent-{number:02}") for number in range(30)]
    async with serving(tmp_path, *agents) as served:
        request = agents_pb.ListAgentsRequest(page_size=1000)
        page = await served.agents.ListAgents(request)
        assert page.ByteSize() < 1.5 * 1024 * 1024
        assert 0 < len(page.agents) < 30
        assert [one.agent_id for one in await served.client.list_agents()] == [
            agent.id for agent in agents
        ]


def described(id: str) -> Agent:
    """Return an agent whose tool takes 100 KB to describe."""

    @tool(parameters={"type": "object", "description": "x" * 100_000})
    async def wide() -> str:
        return ""

    return scripted("fine", id=id, tools=(wide,))


async def test_a_page_of_runs_has_a_bound_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_service.api.grpc.messages.PAGE_BYTES", 2_000)
    async with serving(tmp_path, FINE) as served:
        made = []
        for _ in range(6):
            request = pb.CreateRunRequest(agent_id="demo", input="Go.")
            request.options.session_id = "é" * 256
            made.append((await served.runs.CreateRun(request)).run.run_id)
        found: list[str] = []
        asked = pb.ListRunsRequest(page_size=1000)
        while True:
            page = await served.runs.ListRuns(asked)
            assert 0 < len(page.runs) < 6
            found += [run.run_id for run in page.runs]
            asked.page_token = page.next_page_token
            if not page.next_page_token:
                break
    assert found == made[::-1]
