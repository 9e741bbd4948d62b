"""The form of an answer, as each provider is told it."""

from __future__ import annotations

import enum
import json
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from polos_service.models import ModelRequest, without_tools
from polos_service.models.address import Address
from polos_service.models.anthropic.presets import ANTHROPIC
from polos_service.models.messages import Call, Message, Result, Text
from polos_service.models.openai.presets import OPENAI_URL, PRESETS
from polos_service.models.output import OutputFormat
from tests.support.mock_answers import say, status
from tests.support.mock_provider import MockProvider
from tests.support.models import HI, Heard, openai

LOCAL = "http://127.0.0.1:8000/v1"

TOOL = {"name": "look", "description": "", "parameters": {"type": "object", "properties": {}}}


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Place(BaseModel):
    """A place."""

    city: str


class Trip(BaseModel):
    start: Place = Field(description="Where it begins")
    end: Place
    level: Level
    nights: int = Field(7, ge=1, le=30)
    note: str | None = None
    tags: Annotated[list[str], Field(min_length=2)]
    price: Decimal
    kind: Literal["a"]


class Node(BaseModel):
    name: str
    children: list[Node] = []


class Scores(BaseModel):
    by_name: dict[str, int]


class Anything(BaseModel):
    value: Any


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Pair(BaseModel):
    pair: tuple[int, str]


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Owner(BaseModel):
    pet: Cat | Dog = Field(discriminator="kind")


class Empty(BaseModel):
    pass


def form(kind: Any, name: str = "app.Trip") -> OutputFormat:
    return OutputFormat.of(name, TypeAdapter(kind).json_schema())


@pytest.mark.parametrize(
    ("kind", "openai", "anthropic"),
    [
        (Trip, True, True),
        (Node, True, False),
        (Owner, True, True),
        (Empty, True, True),
        (Scores, False, False),
        (Anything, False, False),
        (Open, False, False),
        (Pair, False, False),
        (list[Trip], False, False),
        (Cat | Dog, False, False),
        (int, False, False),
    ],
    ids=str,
)
def test_a_schema_is_enforced_where_the_provider_can(
    kind: Any, *, openai: bool, anthropic: bool
) -> None:
    one = form(kind)
    assert (one.strict(all_required=True, recursive=True) is not None) is openai
    assert (one.strict(all_required=False, recursive=False) is not None) is anthropic


def test_the_copy_of_openai_has_all_members_and_tells_what_it_cannot_enforce() -> None:
    made = form(Trip).strict(all_required=True, recursive=True)
    assert made is not None
    assert made == {
        "type": "object",
        "additionalProperties": False,
        "required": ["start", "end", "level", "nights", "note", "tags", "price", "kind"],
        "properties": {
            "start": {"anyOf": [{"$ref": "#/$defs/Place"}], "description": "Where it begins"},
            "end": {"$ref": "#/$defs/Place"},
            "level": {"$ref": "#/$defs/Level"},
            "nights": {"type": "integer", "description": "default: 7. maximum: 30. minimum: 1"},
            "note": {
                "anyOf": [{"type": "string"}, {"type": "null"}],
                "description": "default: null",
            },
            "tags": {"type": "array", "items": {"type": "string"}, "description": "minItems: 2"},
            "price": made["properties"]["price"],
            "kind": {"type": "string", "enum": ["a"]},
        },
        "$defs": {
            "Level": {"type": "integer", "enum": [1, 2]},
            "Place": {
                "type": "object",
                "description": "A place",
                "additionalProperties": False,
                "required": ["city"],
                "properties": {"city": {"type": "string"}},
            },
        },
    }


@pytest.mark.parametrize(
    ("written", "strict"),
    [
        ({"type": "object", "properties": ["a"]}, None),
        ({"type": "object", "properties": {}, "description": 5}, "5"),
    ],
)
def test_a_schema_that_was_written_by_hand_may_be_odd(written: Any, strict: str | None) -> None:
    found = OutputFormat(name="odd", schema=written).strict(all_required=True, recursive=True)
    assert (found and found["description"]) == strict


def test_a_recursive_schema_stays_one() -> None:
    made = form(Node).strict(all_required=True, recursive=True)
    assert made is not None
    assert made["type"] == "object"
    assert made["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert made["$defs"]["Node"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("app.Order", "Order"),
        ("app.Box[int]", "Box"),
        ("app.f.<locals>.Größe", "Gr_e"),
        ("list[app.Order]", "list"),
        ("app.A | app.B", "answer"),
        ("", "answer"),
        ("app." + "A" * 80, "A" * 64),
    ],
)
def test_the_name_is_one_that_apis_take(told: str, name: str) -> None:
    assert OutputFormat.of(told, {}).name == name


def body(provider: str, base_url: str, api: str | None = None, /, **fields: Any) -> dict[str, Any]:
    preset = ANTHROPIC if provider == "anthropic" else PRESETS[provider]
    request = ModelRequest(**{"model": "m", "messages": [HI], "output": form(Trip), **fields})
    found = preset.apis[api] if api else next(iter(preset.apis.values()))
    return found.body(request, Address.of(base_url), provider)


@pytest.mark.parametrize(
    ("provider", "base_url", "tools", "sent"),
    [
        ("openai", OPENAI_URL, True, True),
        ("openai", OPENAI_URL, False, True),
        ("azure", "https://mine.openai.azure.com/openai/v1", True, True),
        ("openai", LOCAL, True, False),
        ("openai", LOCAL, False, True),
        ("ollama", LOCAL, False, True),
        ("deepseek", "https://api.deepseek.com", False, False),
        ("groq", "https://api.groq.com/openai/v1", False, False),
    ],
)
def test_chat_completions_get_the_schema_or_are_told_it(
    provider: str, base_url: str, *, tools: bool, sent: bool
) -> None:
    made = body(provider, base_url, tools=[TOOL] if tools else ())
    if not sent:
        assert "response_format" not in made
        system, user = made["messages"]
        assert system["role"] == "system"
        assert json.dumps(form(Trip).schema) in system["content"]
        assert user["content"] == "Hi"
        return
    given = made["response_format"]
    assert given["type"] == "json_schema"
    assert {**given["json_schema"], "schema": None} == {
        "name": "Trip",
        "strict": True,
        "schema": None,
    }
    assert len(made["messages"]) == 1


def test_what_cannot_be_enforced_is_sent_whole_without_strictness() -> None:
    given = body("openai", OPENAI_URL, output=form(Scores))["response_format"]["json_schema"]
    assert given == {"name": "Trip", "strict": False, "schema": Scores.model_json_schema()}


def test_a_system_prompt_stays_in_front_of_what_is_told() -> None:
    prompt = Message(role="system", parts=(Text(text="Be brief."),))
    made = body("groq", "https://api.groq.com/openai/v1", messages=[prompt, HI])
    assert made["messages"][0]["content"].startswith("Be brief.\n\nGive your final answer as JSON")


def test_a_format_that_is_chosen_stays() -> None:
    own = {"type": "json_object"}
    assert body("openai", OPENAI_URL, options={"response_format": own})["response_format"] == own
    made = body("openai", OPENAI_URL, "responses", settings={"text": {"verbosity": "low"}})
    assert made["text"]["verbosity"] == "low"
    assert made["text"]["format"]["name"] == "Trip"
    made = body("anthropic", "https://x", settings={"output_config": {"effort": "low"}})
    assert made["output_config"]["effort"] == "low"
    assert made["output_config"]["format"]["type"] == "json_schema"


def test_the_responses_api_gets_both_schema_and_tools() -> None:
    made = body("openai", LOCAL, "responses", tools=[TOOL])
    given = made["text"]["format"]
    assert (given["type"], given["name"], given["strict"]) == ("json_schema", "Trip", True)
    assert made["tools"][0]["name"] == "look"
    told = body("openai", LOCAL, "responses", output=form(list[Trip]))
    assert "text" not in told
    assert json.dumps(form(list[Trip]).schema) in told["instructions"]


def test_anthropic_gets_the_schema_or_is_told_it() -> None:
    given = body("anthropic", "https://x", tools=[TOOL])["output_config"]["format"]
    assert (given["type"], given["schema"]["additionalProperties"]) == ("json_schema", False)
    assert given["schema"]["required"] == [*Trip.model_json_schema()["required"]]
    told = body("anthropic", "https://x", output=form(Node))
    assert "output_config" not in told
    assert json.dumps(form(Node).schema) in told["system"][-1]["text"]


def test_a_repair_turn_offers_no_tool_and_still_names_those_that_were_called() -> None:
    asked = Message(role="assistant", parts=(Call(id="c", name="look", arguments_json="{}"),))
    result = Message(role="tool", parts=(Result(call_id="c", content=(Text(text="1"),)),))
    options = {"tool_choice": "required", "parallel_tool_calls": False, "seed": 1}
    request = without_tools(
        ModelRequest(model="m", messages=[HI, asked, result, HI], tools=[TOOL], options=options)
    )
    fields = {"messages": request.messages, "tools": request.tools, "options": request.options}
    made = body("openai", LOCAL, **fields)
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & made.keys()
    assert (made["seed"], made["response_format"]["type"]) == (1, "json_schema")
    made = body("anthropic", "https://x", **{**fields, "options": {}})
    assert made["tool_choice"] == {"type": "none"}
    assert [one["name"] for one in made["tools"]] == ["look"]


@pytest.mark.parametrize(
    "message",
    [
        "This response_format type is unavailable now",
        "'response_format.type' must be one of text, json_object",
        "Invalid schema for response_format 'Trip': too many properties",
        "json_schema is not supported by this model",
    ],
)
async def test_a_server_that_refuses_the_schema_is_told_it_from_then_on(
    provider: MockProvider, message: str
) -> None:
    provider.reply(status(400, {"error": {"message": message}}))
    for _ in range(3):
        provider.reply(say("{}"))
    model = openai(base_url=provider.url)
    trip = ModelRequest(model="m", messages=[HI], output=form(Trip))
    other = ModelRequest(model="m", messages=[HI], output=form(Owner, "app.Owner"))
    for request in (trip, trip, other):
        await model.answer(request, Heard())
    await model.close()
    has = ["response_format" in one.body for one in provider.requests]
    assert has == [True, False, False, True]
    assert '"nights"' in provider.requests[1].body["messages"][0]["content"]


async def test_a_switch_tells_the_schema_at_an_address(provider: MockProvider) -> None:
    provider.reply(say("{}"))
    model = openai(base_url=provider.url, switches={provider.url: ["response_format"]})
    await model.answer(ModelRequest(model="m", messages=[HI], output=form(Trip)), Heard())
    await model.close()
    (sent,) = provider.requests
    assert "response_format" not in sent.body
    assert '"nights"' in sent.body["messages"][0]["content"]
