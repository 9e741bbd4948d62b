"""Tool calls that a person must approve: what is shown, what runs, and what the model is told."""

from __future__ import annotations

import asyncio
import json
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event, WaitKind
from polos.v1.run_pb2 import Wait
from polos_client.define.agent import Agent
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, script, turn, usage
from polos_client.define.tool import Tool, tool
from polos_client.errors import (
    AlreadyAnswered,
    InvalidRequest,
    WaitExpired,
    WaitNotOpen,
)
from polos_service.agents.loop import PARALLEL_TOOLS
from polos_service.models.messages import Message, Result, Text
from polos_service.store.sqlite import SqliteStore
from tests.support.agents import Recorder
from tests.support.people import input_of, working

YES, NO = {"approved": True}, {"approved": False}
REJECTED = FailureReason.FAILURE_REASON_TOOL_REJECTED
EXPIRED = FailureReason.FAILURE_REASON_WAIT_EXPIRED
BAD_ARGUMENTS = FailureReason.FAILURE_REASON_TOOL_BAD_ARGUMENTS


def payer(**options: Any) -> tuple[Tool, list[Any]]:
    """Return a tool that pays, and the list of what it has paid."""
    paid: list[Any] = []

    @tool(approval="always", **options)
    async def pay(amount: int, currency: str = "EUR") -> str:
        """Pay an amount."""
        paid.append((amount, currency))
        return f"paid {amount} {currency}"

    return pay, paid


def agent_of(tools: list[Tool], *calls: Any, end: str = "done") -> Agent:
    return Agent("a", "scripted", script(turn(*calls), end), tools=tools)


def told(message: Message) -> str:
    (result,) = message.parts
    assert isinstance(result, Result)
    return "".join(part.text for part in result.content if isinstance(part, Text))


def results(model: Recorder) -> list[str]:
    """Return what the last model call was told of tools."""
    return [told(message) for message in model.conversation if message.role == "tool"]


def failures(events: list[Event]) -> dict[str, FailureReason.ValueType]:
    ends = [event.step_finish for event in events if event.HasField("step_finish")]
    return {end.step_key: end.failure.reason for end in ends if end.HasField("failure")}


async def test_a_call_waits_for_its_approval_and_shows_what_the_function_gets(
    store: SqliteStore,
) -> None:
    pay, paid = payer()
    model = Recorder()
    async with working(store, agent_of([pay], call("pay", amount="100")), model) as person:
        (wait,) = await person.sees("pay/approve")
        assert paid == []
        await person.replies(wait, YES)
        events = await person.end()
    assert paid == [(100, "EUR")]
    assert results(model) == ["paid 100 EUR"]
    suspended = next(event.suspended for event in events if event.HasField("suspended"))
    shown = json.loads(suspended.data_json)
    assert suspended.kind == WaitKind.WAIT_KIND_APPROVAL
    assert (shown["_source"], shown["_tool"]) == ("tool_approval", "pay")
    form = shown["_form"]
    assert "pay" in form["title"]
    assert form["context"] == {"tool": "pay", "input": {"amount": 100, "currency": "EUR"}}
    approved, feedback = form["fields"]
    assert (approved["key"], approved["type"]) == ("approved", "boolean")
    assert (approved["required"], approved["default"]) == (True, False)
    assert (feedback["key"], feedback["type"]) == ("feedback", "textarea")
    assert kinds_of(events)[4:8] == ["suspended", "resumed", "step_start", "step_finish"]
    assert not suspended.HasField("expire_time")


def kinds_of(events: list[Event]) -> list[str]:
    return [event.WhichOneof("payload") or "" for event in events]


async def test_a_rejected_call_is_not_made_and_the_model_gets_the_feedback(
    store: SqliteStore,
) -> None:
    pay, paid = payer()
    model = Recorder()
    async with working(store, agent_of([pay], call("pay", amount=100)), model) as person:
        await person.answers("pay/approve", {"approved": False, "feedback": "Too much."})
        events = await person.end()
    assert paid == []
    assert failures(events) == {"pay": REJECTED}
    (said,) = results(model)
    assert said.startswith("Error: The user rejected the call of the tool pay.")
    assert said.endswith("Too much.")
    assert events[-1].agent_finish.result == "done"


async def test_feedback_of_who_approves_reaches_the_model(store: SqliteStore) -> None:
    pay, _ = payer()
    model = Recorder()
    async with working(store, agent_of([pay], call("pay", amount=1)), model) as person:
        await person.answers("pay/approve", {"approved": True, "feedback": "Only this once."})
        await person.end()
    assert results(model) == ["The person who approved the call says: Only this once.\npaid 1 EUR"]


async def test_nobody_answers_in_time(store: SqliteStore) -> None:
    pay, paid = payer(approval_timeout=0.05)
    model = Recorder()
    async with working(store, agent_of([pay], call("pay", amount=100)), model) as person:
        events = await person.end()
        wait = next(event for event in events if event.HasField("suspended"))
        assert wait.suspended.HasField("expire_time")
        assert await person.open() == {}
    assert paid == []
    assert failures(events) == {"pay": EXPIRED}
    assert [event.resumed.expired for event in events if event.HasField("resumed")] == [True]
    (said,) = results(model)
    assert "Nobody answered in time" in said
    assert "reject" not in said


async def test_a_late_answer_is_refused(store: SqliteStore) -> None:
    pay, paid = payer(approval_timeout=0.05)
    model = Recorder()
    begun, on = asyncio.Event(), asyncio.Event()

    @tool
    async def hold() -> None:
        begun.set()
        await on.wait()

    agent = agent_of([pay, hold], call("pay", amount=100), call("hold"))
    async with working(store, agent, model) as person:
        (wait,) = await person.sees("pay/approve")
        await begun.wait()
        await asyncio.sleep(0.06)
        with pytest.raises(WaitExpired):
            await person.replies(wait, YES)
        on.set()
        await person.end()
    assert paid == []


async def test_changed_arguments_run_and_the_model_is_told(store: SqliteStore) -> None:
    pay, paid = payer(editable=True)
    model = Recorder()
    asked = call("pay", amount=100, currency="USD")
    async with working(store, agent_of([pay], asked), model) as person:
        await person.answers("pay/approve", {"approved": True, "arguments": {"amount": 50}})
        events = await person.end()
    assert paid == [(50, "USD")]
    (said,) = results(model)
    first, last = said.split("\n")
    assert "A person approved this call with other arguments" in first
    assert '{"amount": 50, "currency": "USD"}' in first
    assert last == "paid 50 USD"
    resumed = next(event.resumed for event in events if event.HasField("resumed"))
    assert json.loads(resumed.data_json)["arguments"] == {"amount": 50}
    (requested,) = [part for part in model.conversation[-2].parts if part.type == "call"]
    assert json.loads(requested.arguments_json) == {"amount": 100, "currency": "USD"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"amount": "much"}, "amount"),
        ({"tool": "other"}, "tool"),
        ({"amount": None}, "amount"),
    ],
)
async def test_wrong_changes_are_refused_and_the_wait_stays_open(
    store: SqliteStore, arguments: dict[str, Any], why: str
) -> None:
    pay, paid = payer(editable=True)
    async with working(store, agent_of([pay], call("pay", amount=100))) as person:
        (wait,) = await person.sees("pay/approve")
        with pytest.raises(InvalidRequest, match=why):
            await person.replies(wait, {"approved": True, "arguments": arguments})
        assert list(await person.open()) == ["pay/approve"]
        await person.replies(wait, YES)
        await person.end()
    assert paid == [(100, "EUR")]


async def test_only_a_tool_that_says_so_lets_its_arguments_be_changed(store: SqliteStore) -> None:
    pay, paid = payer()
    async with working(store, agent_of([pay], call("pay", amount=100))) as person:
        (wait,) = await person.sees("pay/approve")
        assert json.loads(wait.data_json)["_editable"] is False
        with pytest.raises(InvalidRequest, match="cannot be changed"):
            await person.replies(wait, {"approved": True, "arguments": {"amount": 5}})
        await person.replies(wait, {"approved": True, "arguments": input_of(wait)})
        await person.end()
    assert paid == [(100, "EUR")]


async def test_an_unknown_member_of_a_model_is_not_passed_over(store: SqliteStore) -> None:
    class Order(BaseModel):
        item: str
        count: int = 1

    @tool(approval="always", editable=True)
    async def buy(order: Order) -> int:
        return order.count

    async with working(store, agent_of([buy], call("buy", item="pen"))) as person:
        (wait,) = await person.sees("buy/approve")
        assert input_of(wait) == {"item": "pen", "count": 1}
        with pytest.raises(InvalidRequest, match="cuont"):
            await person.replies(wait, {"approved": True, "arguments": {"cuont": 2}})
        await person.replies(wait, {"approved": True, "arguments": {"count": 2}})
        events = await person.end()
    assert [e.step_finish.result_json for e in events if e.step_finish.step_key == "buy"] == ["2"]


async def test_wrong_arguments_are_shown_to_nobody(store: SqliteStore) -> None:
    pay, paid = payer()
    model = Recorder()
    async with working(store, agent_of([pay], call("pay", amount="much")), model) as person:
        events = await person.end()
    assert "suspended" not in kinds_of(events)
    assert failures(events) == {"pay": BAD_ARGUMENTS}
    assert results(model)[0].startswith("Error: amount:")
    assert paid == []


async def test_arguments_that_cannot_be_shown_are_not_approved(store: SqliteStore) -> None:
    @tool(approval="always")
    async def note(text: str, weight: float = 0) -> None: ...

    calls = call("note", text="x" * 300_000), call("note", text="y", weight=float("inf"))
    async with working(store, agent_of([note], *calls)) as person:
        events = await person.end()
    assert failures(events) == {
        "note": FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE,
        "note:2": BAD_ARGUMENTS,
    }
    assert "suspended" not in kinds_of(events)


async def test_what_json_does_not_show_reaches_the_function(store: SqliteStore) -> None:
    got: list[Any] = []

    @tool(approval="always")
    def enter(pin: SecretStr, on: date, tags: set[str]) -> None:
        got.append((pin.get_secret_value(), on, tags))

    asked = call("enter", pin="1234", on="2026-01-02", tags=["b", "a", "c"])
    async with working(store, agent_of([enter], asked)) as person:
        (wait,) = await person.sees("enter/approve")
        assert "1234" not in wait.data_json
        await person.replies(wait, YES)
        await person.end()
    assert got == [("1234", date(2026, 1, 2), {"a", "b", "c"})]


async def test_a_turn_with_mixed_fates(store: SqliteStore) -> None:
    """Each call has one result, in the order of the calls, whoever was answered first."""
    pay, paid = payer()
    ran = asyncio.Event()

    @tool(approval="always", approval_timeout=0.05)
    async def dare() -> None: ...

    @tool
    async def look() -> str:
        ran.set()
        return "seen"

    model = Recorder()
    calls = call("pay", amount=1), call("pay", amount=2), call("dare"), call("look")
    async with working(store, agent_of([pay, dare, look], *calls), model) as person:
        await ran.wait()  # although the others wait
        await person.answers("pay:2/approve", NO)
        await person.answers("pay/approve", YES)
        events = await person.end()
    assert paid == [(1, "EUR")]
    assert failures(events) == {"pay:2": REJECTED, "dare": EXPIRED}
    said = results(model)
    assert said[0] == "paid 1 EUR"
    assert "rejected" in said[1]
    assert "Nobody answered in time" in said[2]
    assert said[3] == "seen"
    parts = [part for message in model.conversation for part in message.parts]
    ids = [part.call_id for part in parts if isinstance(part, Result)]
    assert ids == ["call_1_1", "call_1_2", "call_1_3", "call_1_4"]


async def test_answers_reach_their_own_waits_over_a_restart(store: SqliteStore) -> None:
    pay, paid = payer()
    agent = agent_of([pay], call("pay", amount=1), call("pay", amount=2))
    async with working(store, agent) as person:
        first, _ = await person.sees("pay/approve", "pay:2/approve")
        await person.answers("pay:2/approve", NO)
    async with working(store, agent, run_id=person.run_id) as person:
        await person.replies(first, YES)
        events = await person.end()
    assert paid == [(1, "EUR")]
    over = {e.resumed.step_key: e.resumed.data_json for e in events if e.HasField("resumed")}
    assert {key: json.loads(data) for key, data in over.items()} == {
        "pay/approve": YES,
        "pay:2/approve": NO,
    }


async def test_one_of_twenty_racing_answers_counts(store: SqliteStore) -> None:
    pay, paid = payer()
    async with working(store, agent_of([pay], call("pay", amount=1))) as person:
        (wait,) = await person.sees("pay/approve")
        said = [
            await_error(person.replies(wait, YES if n % 2 else NO, request_id=f"r{n}"))
            for n in range(20)
        ]
        errors = await asyncio.gather(*said)
        (winner,) = [n for n, error in enumerate(errors) if error is None]
        assert sum(isinstance(error, AlreadyAnswered) for error in errors) == 19
        events = await person.end()
    resumed = next(event.resumed for event in events if event.HasField("resumed"))
    assert resumed.request_id == f"r{winner}"
    assert len(paid) == winner % 2


async def await_error(work: Any) -> Exception | None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - it is what the test looks at
        return error
    return None


async def test_more_approvals_than_tools_work_at_once_are_all_open(store: SqliteStore) -> None:
    pay, paid = payer()
    number = PARALLEL_TOOLS + 1
    keys = ["pay/approve", *(f"pay:{n}/approve" for n in range(2, number + 1))]
    agent = agent_of([pay], *(call("pay", amount=n) for n in range(number)))
    async with working(store, agent) as person:
        await person.sees(*keys)
        await person.answers(keys[-1], YES)
        await asyncio.gather(*(person.answers(key, NO) for key in keys[:-1]))
        await person.end()
    assert paid == [(number - 1, "EUR")]


async def test_an_approval_cannot_be_given_before_it_is_asked_for(store: SqliteStore) -> None:
    pay, paid = payer()
    begun, on = asyncio.Event(), asyncio.Event()

    @tool
    async def hold() -> None:
        begun.set()
        await on.wait()

    text = script(turn(call("hold")), turn(call("pay", amount=9999)), "done")
    agent = Agent("a", "scripted", text, tools=[pay, hold])
    async with working(store, agent) as person:
        await begun.wait()
        with pytest.raises(WaitNotOpen):
            await person.replies(Wait(step_key="pay/approve"), YES)
        on.set()
        await person.answers("pay/approve", NO)
        await person.end()
    assert paid == []


async def test_a_parked_agent_goes_on_with_the_same_text(store: SqliteStore) -> None:
    pay, paid = payer()
    model = Recorder()
    text = script(
        turn("I will pay. ", call("pay", amount=1), usage(input_tokens=10, output_tokens=5)),
        turn("Paid.", usage(input_tokens=20, output_tokens=7)),
    )
    agent = Agent("a", "scripted", text, tools=[pay])
    async with working(store, agent, model, threshold=0.02) as person:
        await person.parks()
        await person.answers("pay/approve", YES)
        events = await person.end()
    assert len(model.requests) == 2
    assert kinds_of(events)[-8:-4] == ["suspended", "resumed", "step_start", "step_finish"]
    assert "".join(event.text_delta.content for event in events) == "I will pay. Paid."
    end = events[-1].agent_finish
    assert (end.total_steps, end.usage.input_tokens, end.usage.output_tokens) == (2, 30, 12)
    assert "step_retry" not in kinds_of(events)
    assert paid == [(1, "EUR")]


@pytest.mark.parametrize("at_most_once", [False, True])
async def test_a_crash_after_the_approval_asks_nobody_again(
    store: SqliteStore, *, at_most_once: bool
) -> None:
    keys: list[str] = []
    begun = asyncio.Event()

    @tool(approval="always", at_most_once=at_most_once)
    async def pay(ctx: WorkflowContext, amount: int) -> str:
        keys.append(ctx.idempotency_key)
        begun.set()
        if len(keys) == 1:
            await asyncio.Event().wait()
        return "paid"

    model = Recorder()
    agent = agent_of([pay], call("pay", amount=1))
    async with working(store, agent) as person:
        await person.answers("pay/approve", YES)
        await begun.wait()
    async with working(store, agent, model, person.run_id) as person:
        events = await person.end()
    assert kinds_of(events).count("suspended") == kinds_of(events).count("resumed") == 1
    if at_most_once:
        unknown = FailureReason.FAILURE_REASON_TOOL_OUTCOME_UNKNOWN
        assert failures(events) == {"pay": unknown}
        assert len(keys) == 1
    else:
        assert results(model) == ["paid"]
        assert keys == [f"{person.run_id}/pay"] * 2


async def test_a_crash_between_the_answer_and_the_call(store: SqliteStore) -> None:
    pay, paid = payer()
    agent = agent_of([pay], call("pay", amount=1))
    async with working(store, agent) as person:
        (wait,) = await person.sees("pay/approve")
    await person.replies(wait, YES)
    async with working(store, agent, run_id=person.run_id) as person:
        events = await person.end()
    assert paid == [(1, "EUR")]
    assert kinds_of(events).count("suspended") == 1
