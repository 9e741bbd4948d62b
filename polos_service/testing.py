"""Tests of one's own agents: a service in this process whose models play scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import FinishReason, StepFinish
from polos_client.define import scripted
from polos_client.define.agent import Agent
from polos_client.define.workflow import Workflow
from polos_client.errors import DefinitionError
from polos_service.embedded import Polos
from polos_service.errors import StepError
from polos_service.models import Model, ModelAnswer, ModelRequest, Output
from polos_service.models.messages import Message, Result, calls_of
from polos_service.models.providers import Providers
from polos_service.models.scripted import Scripted
from polos_service.replay.history import History, HistoryInvalid


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a model was sent for one call.

    Attributes:
        messages: the conversation, system prompt first: dicts with `role` and `content`, the text;
            those of the assistant that call tools have `tool_calls`, each `{"id", "name",
            "arguments"}` with the arguments as JSON text; results have `tool_call_id`.
        tools: the names of the tools that the model may call.
        options: the model parameters that the run was started with.
        run_turn: which model call of the run this is, from 1.

    """

    messages: list[dict[str, Any]]
    tools: list[str]
    options: Mapping[str, Any]
    run_turn: int

    @property
    def system(self) -> str:
        """The system prompt; empty if there is none."""
        first = self.messages[0] if self.messages else {}
        return str(first["content"]) if first.get("role") == "system" else ""

    @property
    def last(self) -> dict[str, Any]:
        """The last message."""
        return self.messages[-1]


class Script:
    """What the model of an agent says in each run, and what it was asked.

    Attributes:
        text: the turns, as `scripted.script` writes them.
        asked: each call, in order.

    """

    def __init__(self, *turns: scripted.Turn | scripted.Part | str) -> None:
        """Take what each model call of a run plays, in order; one call more fails.

        Args:
            turns: `scripted.turn(...)`, one part of a turn such as `scripted.call(...)`, or a text.

        """
        self.text = scripted.script(*turns)
        self.asked: list[Asked] = []

    @classmethod
    def recorded(cls, history: History) -> Self:
        """Return the script of what the model said in a recorded run of an agent.

        Calls of tools are made again, by the tools of today.

        Raises:
            HistoryInvalid: the run is not an agent's, or an answer is longer than 480 KiB.

        """
        return cls(*_turns(history))


class ScriptedPolos(Polos):
    """A Polos whose agents play scripts instead of asking their providers; takes what Polos takes.

        async with ScriptedPolos() as polos:
            script = Script(scripted.call("get_weather", city="Oslo"), "It rains.")
            polos.play(weather_agent, script)
            assert (await weather_agent.run(polos, "Weather?")).result == "It rains."
            assert script.asked[1].last["role"] == "tool"

    All else of an agent is as in production: its tools, stop conditions, deadlines and options. No
    key is needed, and nothing is sent. A model call of an agent without a script fails.
    """

    def __init__(self, agents: Iterable[Agent | Workflow] = (), **settings: Any) -> None:
        """Prepare, as `Polos` does."""
        super().__init__(agents, **settings)
        self._scripts: dict[str, Script] = {}

    def play(self, agent: Agent | str, script: Script) -> None:
        """Let the model of an agent, or of the one with this id, play a script in its runs.

        Raises:
            DefinitionError: it is not a `Script`.

        """
        if not isinstance(script, Script):
            raise DefinitionError(f"{script!r:.80} is not a script: make one with Script(...)")
        self._scripts[agent if isinstance(agent, str) else agent.id] = script

    def _models(self) -> Providers:
        return _Players(_Player(self._scripts))


class _Players(Providers):
    """Has the same model for every provider."""

    def __init__(self, player: Model) -> None:
        super().__init__({})
        self._player = player

    def __getitem__(self, provider: str) -> Model:
        return self._player

    def find(self, provider: str, api: str | None, base_url: str | None = None) -> Model:
        del provider, api, base_url
        return self._player


class _Player(Scripted):
    """A model that plays the script of the agent that asks."""

    def __init__(self, scripts: Mapping[str, Script]) -> None:
        self._scripts = scripts

    def check(self, options: Mapping[str, Any], api: str | None = None) -> Mapping[str, str]:
        del options, api  # the provider of production would say
        return {}

    async def answer(self, request: ModelRequest, output: Output) -> ModelAnswer:
        script = self._scripts.get(request.agent_id)
        if script is None:
            raise StepError(
                FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST,
                f"The agent {request.agent_id!r} has no script; give it one with "
                "polos.play(agent, Script(...)).",
            )
        asked = Asked(
            messages=[one for message in request.messages for one in _told(message)],
            tools=[str(one["name"]) for one in request.tools],
            options=request.options,
            run_turn=request.turn,
        )
        script.asked.append(asked)
        return await super().answer(replace(request, model=script.text), output)


def _told(message: Message) -> Iterator[dict[str, Any]]:
    """Yield a message as plain dicts: one for each result of a tool."""
    results = [one for one in message.parts if isinstance(one, Result)]
    for one in results:
        text = "".join(part.text for part in one.content if part.type == "text")
        yield {"role": "tool", "tool_call_id": one.call_id, "content": text}
    if not results:
        calls = [
            {"id": one.id, "name": one.name, "arguments": one.arguments_json}
            for one in calls_of(message.parts)
        ]
        told = {"role": message.role, "content": message.text}
        yield told | ({"tool_calls": calls} if calls else {})


def _turns(history: History) -> Iterator[scripted.Turn]:
    if history.kind != "agent":
        raise HistoryInvalid(f"the run {history.run_id} is of a workflow, which has no model")
    for event in history.events:
        finish = event.step_finish
        model = event.HasField("step_finish") and finish.step_type == "llm"
        if model and event.run_id == history.run_id and not finish.HasField("failure"):
            if finish.HasField("long_answer"):
                raise HistoryInvalid(f"the answer of {finish.step_key} is longer than 480 KiB")
            yield scripted.turn(*_said(finish))


def _said(finish: StepFinish) -> Iterator[scripted.Part | str]:
    answer = json.loads(finish.result_json)
    if answer["content"]:
        yield scripted.say([answer["content"]])
    for one in answer["tool_calls"]:
        yield scripted.call(one["function"]["name"], raw=one["function"]["arguments"])
    if finish.HasField("usage"):
        yield scripted.Tokens(
            input_tokens=finish.usage.input_tokens, output_tokens=finish.usage.output_tokens
        )
    if finish.finish_reason == FinishReason.FINISH_REASON_LENGTH:
        yield scripted.finish("length")
