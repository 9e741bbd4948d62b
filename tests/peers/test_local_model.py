"""A real model on this machine, asked as each provider that a server of one's own stands for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest

from examples.small_model import serve
from polos import Agent, MaxStepsConfig, Polos, RunFailed, max_steps, tool

TEMPLATE = """
{%- if tools %}<|im_start|>system
You may call functions. Their signatures:
<tools>{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
</tools>
Call one with a JSON object with its name and arguments within XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == "tool" %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{{ message.content or "" }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""The form in which many models are told of tools; the server reads their calls from it."""

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Tokyo"}}\n</tool_call>'
REPEAT = f"Repeat this exactly, and nothing else:\n{CALL}"
"""A model of this size does not call tools by itself, but repeats what it is shown."""

BOUND = 12
"""Tokens of an answer that is cut."""


@dataclass(frozen=True)
class Way:
    """How the model is asked.

    Attributes:
        variable: the environment variable with the address; empty: the agent has it.
        api: the provider's API; None is its default.
        path: of the address.
        finish: the finish reason of an answer that is cut, as this server tells it.

    """

    provider: str
    variable: str = ""
    api: str | None = None
    path: str = "/v1"
    finish: str = "length"


WAYS = [
    Way("openai"),
    Way("openai", "OPENAI_BASE_URL"),
    Way("vllm", "VLLM_BASE_URL", path=""),
    Way("ollama", "OLLAMA_BASE_URL"),
    Way("litellm", "LITELLM_BASE_URL"),
    Way("openai", api="responses", finish="stop"),  # its server calls each answer complete
    Way("anthropic", "ANTHROPIC_BASE_URL", path=""),
]


@dataclass
class Asking:
    """A service whose agents are at the model."""

    client: Polos
    way: Way
    base_url: str | None
    count: int = field(default=0)

    def agent(self, **more: object) -> Agent:
        """Return an agent."""
        self.count += 1
        return Agent(
            id=f"local-{WAYS.index(self.way)}-{self.count}",
            provider=self.way.provider,
            model="smollm2",
            provider_base_url=self.base_url,
            provider_llm_api=self.way.api,
            temperature=0,
            **more,  # type: ignore[arg-type]  # what an Agent takes
        )


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serve(TEMPLATE) as base_url:
        yield base_url.removesuffix("/v1")


@pytest.fixture(params=WAYS, ids=lambda way: f"{way.provider}-{way.variable or way.api}")
async def asking(
    request: pytest.FixtureRequest, address: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Asking]:
    way: Way = request.param
    base_url = address + way.path
    if way.variable:
        monkeypatch.setenv(way.variable, base_url)
    async with Polos() as client:
        yield Asking(client, way, None if way.variable else base_url)


async def test_text_is_streamed_to_the_bound_and_its_tokens_are_told(asking: Asking) -> None:
    agent = asking.agent(max_output_tokens=BOUND)
    stream = await agent.stream(asking.client, "Tell me of the sea.")
    chunks = [chunk async for chunk in stream.text_chunks]
    result = await stream.result()
    assert len(chunks) > BOUND // 2
    assert "".join(chunks) == result.result
    assert result.finish_reason == asking.way.finish
    assert result.usage.output_tokens == BOUND
    assert result.usage.input_tokens > 5


async def test_a_tool_is_called_and_its_result_goes_back(asking: Asking) -> None:
    cities: list[str] = []

    @tool
    async def get_weather(city: str) -> str:
        """Return the weather in a city."""
        cities.append(city)
        return "It is clear."

    agent = asking.agent(
        tools=[get_weather],
        max_output_tokens=40,
        stop_conditions=[max_steps(MaxStepsConfig(count=2))],
    )
    result = await agent.run(asking.client, REPEAT)
    assert set(cities) == {"Tokyo"}
    assert result.total_steps == 2
    assert result.tool_results[0].result == "It is clear."


async def test_a_prompt_beyond_the_context_is_told_in_the_words_of_the_server(
    asking: Asking,
) -> None:
    with pytest.raises(RunFailed) as raised:
        await asking.agent().run(asking.client, "word " * 3000)
    assert "context" in str(raised.value)
    assert not raised.value.retryable
