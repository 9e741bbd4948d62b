"""What a run was started with is read by every later version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from polos.v1.run_service_pb2 import CreateRunRequest
from polos_client.deadlines import Deadlines
from polos_client.define.agent import Agent
from polos_client.define.scripted import call, script, turn
from polos_client.define.stop import StopConditionContext, max_tokens, stop_condition
from polos_client.define.tool import tool
from polos_client.errors import DefinitionError
from polos_service.agents.definition import VERSION, WITH_APPROVALS, Definition
from polos_service.api.grpc.requests import run_request
from polos_service.caller import ANONYMOUS
from polos_service.errors import Unable
from polos_service.models.openai.chat_messages import Writer
from polos_service.runs.spending import TreeBudget
from polos_service.store.sqlite import SqliteStore
from tests.support.agents import Recorder, catalog, started
from tests.support.runs import executing
from tests.support.stores import all_events, new_run

DATA = Path(__file__).parents[2] / "data" / "definitions"

SAMPLES = sorted(DATA.glob("*.json"))
"""What a run of the agent below was pinned as, by the version that did it."""


@tool(description="Tells the weather of a city.")
async def get_weather(city: str) -> dict[str, Any]:
    return {"city": city, "celsius": 21}


@stop_condition
def enough(ctx: StopConditionContext) -> bool:
    return False


WEATHER = Agent(
    "weather",
    "scripted",
    script(turn("Let me look. ", call("get_weather", city="Tokyo")), "It is clear."),
    system_prompt="Be brief. Sei höflich.",
    tools=[get_weather],
    temperature=0.5,
    max_output_tokens=100,
    provider_base_url="http://127.0.0.1:11434/v1",
    stop_conditions=[max_tokens(limit=1000), enough],
    deadlines=Deadlines(tool_call=30.0),
    provider_kwargs={"top_k": 4},
)


def sample(version: str) -> dict[str, Any]:
    """Return what this version wrote."""
    definition: dict[str, Any] = json.loads((DATA / f"{version}.json").read_bytes())
    return definition


NEWEST = sample("0.2.0")

SENT: list[dict[str, Any]] = [
    *sample("0.1.0")["messages"],
    {
        "role": "assistant",
        "content": "Noted.",
        "reasoning_content": "A number.",
        "reasoning_details": [{"type": "reasoning.text", "signature": "s1"}],
        "tool_calls": [
            {
                "id": "c2",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
                "extra_content": {"google": {"thought_signature": "s2"}},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "c2", "content": "rain", "name": "get_weather"},
    {
        "role": "user",
        "name": "Kim",
        "content": [
            {"type": "text", "text": "What is it?", "cache_control": {"type": "ephemeral"}},
            {
                "type": "image_url",
                "image_url": {"url": "https://example.org/sky.png", "detail": "low"},
            },
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
            {
                "type": "file",
                "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"},
            },
            {"type": "file", "file": {"file_id": "file-1"}},
        ],
    },
]
"""The conversation of the newest sample, as its caller sent it."""

SENT_FIRST = {"0.1.0": 4, "0.2.0.dev0": 4, "0.2.0": len(SENT)}
"""How many messages of it each sample has."""


def test_there_is_a_sample_of_each_version() -> None:
    assert [path.stem for path in SAMPLES] == ["0.1.0", "0.2.0.dev0", "0.2.0"]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_version_s_definition_is_read_whole(path: Path) -> None:
    definition = Definition.unpin(path.read_bytes())
    stored = json.loads(path.read_bytes())
    told = definition.model_dump()
    for name in stored.keys() - {"v", "messages", "conversation"}:
        assert told[name] == stored[name]
    assert told.keys() == NEWEST.keys()
    assert definition.initial_state["big"] == 123456789012345678901234567890
    messages = Writer(provider="scripted").messages(definition.conversation)
    messages[1]["content"] = messages[1]["content"] or None
    assert messages == SENT[: SENT_FIRST[path.stem]]


@pytest.mark.parametrize(
    "pinned", [path.read_bytes() for path in SAMPLES], ids=[path.stem for path in SAMPLES]
)
async def test_every_version_s_run_goes_on(store: SqliteStore, pinned: bytes) -> None:
    run_id = await store.create(new_run(workflow_id="weather", definition=pinned))
    async with executing(store, catalog(WEATHER)):
        begin, *_, end = await all_events(store, run_id)
    assert begin.agent_start.stop_conditions == ["max_tokens", "enough", "max_steps"]
    assert (end.agent_finish.result, end.agent_finish.total_steps) == ("It is clear.", 2)


def test_a_message_that_an_earlier_version_took_unseen_goes_to_the_provider_as_it_is() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "critic", "content": "Why?", "to": ["all"]},
        {"role": "user"},
        {"role": "tool", "content": 5},
        {"role": "user", "content": [{"type": "thing", "thing": [1]}]},
        {"role": "assistant", "tool_calls": [{"name": "f"}]},
        {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f"}}]},
    ]
    stored = sample("0.1.0") | {"messages": messages}
    definition = Definition.unpin(json.dumps(stored).encode())
    sent = Writer(provider="scripted").messages(definition.conversation)
    assert [one | old for one, old in zip(sent[:5], messages[:5], strict=True)] == sent[:5]
    assert sent[5]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    "change",
    [
        {"messages": None},
        {"messages": 5},
        {"messages": ["Go."]},
        {"v": 2},
        {"v": 2, "conversation": {"v": 1}},
        {"v": 2, "conversation": {"v": 1, "messages": [{"role": "user", "parts": [{}]}]}},
        {"v": 2, "conversation": {"v": 1, "messages": [{"role": "user", "parts": [], "x": 1}]}},
    ],
)
def test_a_damaged_conversation_is_an_error_of_the_value(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"damaged|conversation"):
        Definition.unpin(json.dumps(sample("0.1.0") | change).encode())


def test_a_newer_conversation_is_left_to_newer_code() -> None:
    newer = NEWEST | {"conversation": {"v": 2, "messages": []}}
    with pytest.raises(Unable, match=r"version 2\. This process reads version 1"):
        Definition.unpin(json.dumps(newer).encode())


def test_what_is_pinned_now_is_the_newest_sample() -> None:
    request = CreateRunRequest(
        agent_id="weather", input_messages_json=json.dumps(SENT), streaming=True
    )
    request.options.session_id = NEWEST["session_id"]
    request.options.user_id = NEWEST["user_id"]
    request.options.initial_state_json = json.dumps(NEWEST["initial_state"])
    request.options.provider_options_json = json.dumps(NEWEST["options"])
    runnable = catalog(WEATHER)["weather"]
    assert json.loads(runnable.pin(run_request(ANONYMOUS, request))) == NEWEST


def test_earlier_code_reads_what_a_plain_run_is_pinned_as() -> None:
    plain = Agent("weather", "scripted", script("Hi."), tools=[get_weather])
    request = run_request(
        ANONYMOUS, CreateRunRequest(agent_id="weather", input_messages_json=json.dumps(SENT))
    )
    pinned = catalog(plain)["weather"].pin(request)
    stored = json.loads(pinned)
    assert stored.keys() >= sample("0.2.0.dev0").keys()
    assert stored["messages"] == SENT
    conversation = Definition.unpin(pinned).model_dump(mode="json")["conversation"]
    assert conversation == NEWEST["conversation"]


def test_earlier_code_does_not_take_up_a_run_whose_tools_need_approval() -> None:
    @tool(approval="always")
    async def pay() -> None: ...

    agent = Agent("careful", "scripted", script("Hi."), tools=[get_weather, pay])
    runnable = catalog(agent)["careful"]
    pinned = runnable.pin(run_request(ANONYMOUS, CreateRunRequest(agent_id="careful", input="Go.")))
    stored = json.loads(pinned)
    assert (stored["v"], {"budget", "output"} & stored.keys()) == (WITH_APPROVALS, set())
    assert [one.get("approval") for one in stored["tools"]] == [None, True]
    assert [one.approval for one in Definition.unpin(pinned).tools] == [False, True]


def test_earlier_code_does_not_take_up_a_run_with_an_output_schema() -> None:
    agent = Agent("typed", "scripted", script("Hi."), output_schema=dict[str, int])
    runnable = catalog(agent)["typed"]
    pinned = runnable.pin(run_request(ANONYMOUS, CreateRunRequest(agent_id="typed", input="Go.")))
    stored = json.loads(pinned)
    assert stored["v"] == VERSION
    assert stored["output"]["schema"] == {
        "additionalProperties": {"type": "integer"},
        "type": "object",
    }
    output = Definition.unpin(pinned).output
    assert output is not None
    assert output.name == "dict[str, int]"


def test_earlier_code_does_not_take_up_a_run_with_a_budget() -> None:
    runnable = catalog(WEATHER)["weather"]
    request = CreateRunRequest(agent_id="weather", input="Go.")
    request.options.budget_tokens = 5
    pinned = runnable.pin(run_request(ANONYMOUS, request))
    assert json.loads(pinned)["v"] == VERSION
    assert Definition.unpin(pinned).budget == TreeBudget(tokens=5)


async def test_what_an_agent_sets_for_its_provider_is_pinned(store: SqliteStore) -> None:
    model = Recorder()
    settings = {"top_k": 4, "extra_body": {"a": {"b": None}}, "extra_headers": {"X-A": "b"}}
    agent = Agent("set", "scripted", script("Hi."), provider_kwargs=settings)
    run_id = await started(store, catalog(agent, model=model), agent_id="set")
    later = Agent("set", "scripted", script("Hi."))
    async with executing(store, catalog(later, model=model)):
        events = await all_events(store, run_id)
    assert [one.settings for one in model.requests] == [settings]
    assert not any("top_k" in str(event) or "X-A" in str(event) for event in events)


async def test_the_api_of_an_agent_is_pinned(store: SqliteStore) -> None:
    model = Recorder(apis=("old", "new"))
    agent = Agent("set", "scripted", script("Hi."), provider_llm_api="new")
    run_id = await started(store, catalog(agent, model=model), agent_id="set")
    async with executing(store, catalog(agent, model=model)):
        await all_events(store, run_id)
    assert [one.api for one in model.requests] == ["new"]


def test_an_agent_whose_provider_is_unknown_is_not_loaded() -> None:
    with pytest.raises(DefinitionError) as raised:
        catalog(Agent("far", "scriptet", "m"))
    assert str(raised.value) == (
        "The agent 'far': there is no provider 'scriptet' (did you mean 'scripted'?); "
        "there are scripted."
    )


def test_earlier_code_does_not_take_up_a_run_with_an_agent_as_a_tool() -> None:
    expert = Agent("an.expert", "scripted", script("Hi."))
    agent = Agent("asks", "scripted", script("Hi."), tools=[get_weather, expert])
    pinned = catalog(agent)["asks"].pin(
        run_request(ANONYMOUS, CreateRunRequest(agent_id="asks", input="Go."))
    )
    stored = json.loads(pinned)
    assert stored["v"] == VERSION
    assert [one.get("agent") for one in stored["tools"]] == [None, "an.expert"]
    assert [one.name for one in Definition.unpin(pinned).tools] == ["get_weather", "an_expert"]
