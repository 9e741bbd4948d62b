"""Code against the log of a run: where it goes the same way, and where it differs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from polos import Agent, Polos, PolosClient, WorkflowContext, events, max_steps, scripted, tool
from polos.testing import History, HistoryInvalid, ReplayDiffers, Replayed, replay
from polos.v1.event_pb2 import Event
from polos_client.define.workflow import Workflow, workflow

PATIENCE = 0.3
CALLED: list[str] = []


class Order(BaseModel):
    item: str
    count: int = 1


def charge(order: Order) -> Order:
    CALLED.append("charge")
    return order


def note(text: str) -> str:
    CALLED.append(text)
    return text


def refuse() -> None:
    raise ValueError("no money")


Function = Callable[..., Awaitable[Any]]


def flow(function: Function) -> Workflow:
    """Return a function as the workflow `order`."""
    return Workflow(function, globals(), id="order")


async def recorded(
    function: Function, payload: Any = None, agents: Sequence[Agent] = (), **start: Any
) -> History:
    """Run a function to its end, and return the history of its run."""
    async with Polos(agents) as polos:
        handle = await flow(function).invoke(polos, payload, **start)
        async for _ in events.stream_workflow(polos, workflow_run_id=handle.id):
            pass
        CALLED.clear()
        return await History.fetch(polos, handle.id)


def until(history: History, payload: str, key: str = "") -> History:
    """Return the history up to an event, as if the run had not gone further."""
    kept: list[Event] = []
    for event in history.events:
        kept.append(event)
        found = event.WhichOneof("payload") == payload
        if found and (not key or getattr(event, payload).step_key == key):
            return History(events=kept)
    raise AssertionError(payload)


async def differs(function: Function, history: History) -> str:
    """Return how a function differs from a history."""
    with pytest.raises(ReplayDiffers) as raised:
        await replay(flow(function), history, patience=PATIENCE)
    assert CALLED == []
    return raised.value.difference


async def same(function: Function, history: History) -> Replayed:
    """Replay a function, which goes the way of the history."""
    found = await replay(flow(function), history, patience=PATIENCE)
    assert CALLED == []
    return found


async def two_steps(ctx: WorkflowContext, order: Order) -> dict[str, Any]:
    charged = await ctx.step.run("charge", charge, order)
    number = await ctx.step.uuid("number")
    await ctx.step.wait_for("nap", seconds=0.01)
    return {"item": charged.item, "number": number}


TEA: list[History] = []


async def ordered() -> History:
    """Return the history of a run of `two_steps` that has ended."""
    if not TEA:
        TEA.append(await recorded(two_steps, Order(item="tea")))
    return TEA[0]


async def test_the_same_code_goes_the_way_of_its_log() -> None:
    history = await ordered()
    found = await same(two_steps, history)
    assert (found.ended, found.goes_on, found.events) == (True, "", len(history.events))
    assert str(found).endswith(
        f"goes the way of the log, {len(history.events)} events, to its end."
    )


async def test_a_history_goes_through_a_file(tmp_path: Path) -> None:
    async def greet(ctx: WorkflowContext, name: dict[str, Any]) -> str:
        assert (ctx.user_id, ctx.session_id, ctx.initial_state) == ("ann", "s", {"big": True})
        return str(await ctx.step.run("note", note, name["ö"]))

    history = await recorded(
        greet, {"ö": "ü"}, user_id="ann", session_id="s", initial_state={"big": True}
    )
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(history.of(initial_state={"big": True}).lines()) + "\n")
    assert (await replay(flow(greet), path)).ended
    assert "'ö'" not in await differs(greet, history)  # its assertion about the state fails


async def test_a_step_that_the_log_does_not_have() -> None:
    async def changed(ctx: WorkflowContext, order: Order) -> dict[str, Any]:
        await ctx.step.run("check", note, "check")
        return await two_steps(ctx, order)

    history = await ordered()
    assert await differs(changed, history) == (
        "event 3: the code asks for the step 'check' (run), which the log does not have; "
        "the log continues with step_finish of 'charge'."
    )
    cut = until(history, "step_finish", "number")
    assert "'check' (run), which the log does not have" in await differs(changed, cut)


async def test_a_step_that_the_code_no_longer_asks_for() -> None:
    async def changed(ctx: WorkflowContext, order: Order) -> dict[str, Any]:
        number = await ctx.step.uuid("number")
        await ctx.step.wait_for("nap", seconds=0.01)
        return {"item": order.item, "number": number}

    history = await ordered()
    assert "the log continues with step_start of 'charge', and the code " in await differs(
        changed, history
    )


async def test_a_last_step_that_the_code_no_longer_asks_for() -> None:
    async def changed(ctx: WorkflowContext, order: Order) -> dict[str, Any]:
        charged = await ctx.step.run("charge", charge, order)
        return {"item": charged.item, "number": await ctx.step.uuid("number")}

    history = await ordered()
    assert "suspended of 'nap', and the code ends with the result" in await differs(
        changed, history
    )


async def test_a_step_of_another_kind() -> None:
    async def changed(ctx: WorkflowContext, order: Order) -> dict[str, Any]:
        charged = await ctx.step.run("charge", charge, order)
        number = await ctx.step.run("number", note, "1")
        return {"item": charged.item, "number": number}

    history = await ordered()
    assert await differs(changed, history) == (
        "event 4: the log has the step 'number' as 'uuid', and the code asks for it as 'run'."
    )


async def test_another_order() -> None:
    async def changed(ctx: WorkflowContext, order: Order) -> dict[str, Any]:
        number = await ctx.step.uuid("number")
        charged = await ctx.step.run("charge", charge, order)
        await ctx.step.wait_for("nap", seconds=0.01)
        return {"item": charged.item, "number": number}

    history = await ordered()
    found = await differs(changed, history)
    assert "step_start of 'charge', and the code does not ask for it within 0.3 s." in found


async def test_another_result() -> None:
    async def changed(ctx: WorkflowContext, order: Order) -> dict[str, Any]:
        return await two_steps(ctx, order) | {"number": 7}

    history = await ordered()
    found = await differs(changed, history)
    assert 'in the log the run ends with the result {"item":"tea"' in found
    assert '"number":7}.' in found


async def test_code_that_fails_where_the_log_has_a_result() -> None:
    async def changed(ctx: WorkflowContext, order: Order) -> dict[str, Any]:
        done = await two_steps(ctx, order)
        raise ValueError(f"no {order.item}")
        return done

    history = await ordered()
    assert "and the code fails: ValueError: no tea." in await differs(changed, history)


async def test_a_failure_is_replayed_as_one() -> None:
    async def failing(ctx: WorkflowContext) -> None:
        await ctx.step.run("pay", refuse, max_retries=0)

    history = await recorded(failing)
    assert (await same(failing, history)).ended


async def test_a_run_that_has_not_ended_goes_on_from_the_end_of_its_log() -> None:
    history = await ordered()
    for payload, key, goes_on in [
        ("workflow_start", "", "asks for 'charge' (run)"),
        ("step_start", "charge", "continues with 'charge', which had begun"),
        ("step_finish", "charge", "asks for 'number' (uuid)"),
        ("suspended", "nap", "continues with 'nap', which had begun"),
        ("resumed", "nap", 'ends with the result {"item":"tea"'),
    ]:
        found = await same(two_steps, until(history, payload, key))
        assert not found.ended
        assert found.goes_on.startswith(goes_on)


async def test_a_cancelled_run_is_one_that_has_not_ended() -> None:
    async def waiting(ctx: WorkflowContext) -> None:
        await ctx.step.suspend("ask")

    async with Polos() as polos:
        handle = await flow(waiting).invoke(polos)
        async for event in events.stream_workflow(polos, workflow_run_id=handle.id):
            if event.event_type.startswith("suspend"):
                await handle.cancel(polos)
        history = await History.fetch(polos, handle.id)
        by_id = await replay(flow(waiting), handle.id, client=polos)
    found = await same(waiting, history)
    assert found == by_id
    assert (found.ended, found.goes_on) == (False, "continues with 'ask', which had begun")


async def racing(ctx: WorkflowContext) -> str:
    slow = asyncio.ensure_future(ctx.step.wait_for("slow", hours=1))
    fast = asyncio.ensure_future(ctx.step.run("fast", note, "fast"))
    done, _ = await asyncio.wait({slow, fast}, return_when=asyncio.FIRST_COMPLETED)
    slow.cancel()
    return str(await ctx.step.run("fast won" if fast in done else "slow won", note, "after"))


async def test_a_race_has_the_winner_of_the_log() -> None:
    assert (await same(racing, await recorded(racing))).ended


async def test_steps_in_parallel_begin_in_any_order() -> None:
    async def together(ctx: WorkflowContext) -> list[str]:
        keys = [f"{number}" for number in range(20)]
        return list(await asyncio.gather(*(ctx.step.run(key, note, key) for key in keys)))

    async def reversed_(ctx: WorkflowContext) -> list[str]:
        keys = [f"{number}" for number in range(20)]
        results = await asyncio.gather(*(ctx.step.run(key, note, key) for key in keys[::-1]))
        return results[::-1]

    history = await recorded(together)
    assert (await same(together, history)).ended
    assert (await same(reversed_, history)).ended


async def test_a_version_makes_a_change_fit() -> None:
    async def before(ctx: WorkflowContext) -> str:
        first = await ctx.step.run("first", note, "1")
        await ctx.step.wait_for("nap", seconds=0.01)
        return str(await ctx.step.run("old", note, f"{first}-old"))

    async def after(ctx: WorkflowContext) -> str:
        first = await ctx.step.run("first", note, "1")
        await ctx.step.wait_for("nap", seconds=0.01)
        if await ctx.step.version("new path") == 0:
            return str(await ctx.step.run("old", note, f"{first}-old"))
        return str(await ctx.step.run("new", note, f"{first}-new"))

    history = await recorded(before)
    assert (await same(after, history)).ended
    inside = await same(after, until(history, "step_start", "old"))
    assert inside.goes_on == "continues with 'old', which had begun"
    waiting = await same(after, until(history, "resumed", "nap"))
    assert waiting.goes_on == "asks for 'new path' (version)"
    fresh = await recorded(after)
    assert (await same(after, fresh)).ended
    assert "step_finish of 'new path'" in await differs(before, fresh)


@tool
async def add(a: int, b: int) -> int:
    """Add."""
    CALLED.append("add")
    return a + b


@tool
async def double(a: int) -> int:
    """Double."""
    CALLED.append("double")
    return 2 * a


PLAY = scripted.script(
    scripted.turn(scripted.call("add", a=1, b=2), scripted.call("double", a=3)),
    scripted.turn(scripted.call("add", a=3, b=3)),
    "It is 6.",
)


def calculator(**options: Any) -> Agent:
    return Agent(id="calculator", provider="scripted", model=PLAY, **options)


@workflow(id="noted")
async def noted(ctx: WorkflowContext, payload: dict[str, Any]) -> Any:
    return await ctx.step.run("note", note, payload["text"])


async def test_runs_of_their_own_are_neither_started_nor_waited_for() -> None:
    async def starts(ctx: WorkflowContext) -> Any:
        handle = await ctx.step.invoke("go", "noted", {"text": "tea"})
        return await ctx.step.wait_for_run("end", handle)

    async def waits_longer(ctx: WorkflowContext) -> Any:
        handle = await ctx.step.invoke("go", "noted", {"text": "tea"})
        await ctx.step.wait_for_run("end", handle)
        return await ctx.step.wait_for_run("again", handle)

    history = await recorded(starts)
    assert (await same(starts, history)).ended
    assert (await same(starts, until(history, "suspended"))).goes_on == (
        "continues with 'end', which had begun"
    )
    assert "asks for the step 'again' (run)" in await differs(waits_longer, history)


async def test_an_agent_is_replayed_without_model_and_tools() -> None:
    async with Polos() as polos:
        agent = calculator(tools=[add, double])
        handle = await agent.invoke(polos, {"input": "Add."})
        async for _ in events.stream_workflow(polos, workflow_run_id=handle.id):
            pass
        history = await History.fetch(polos, handle.id)
    CALLED.clear()
    assert (await replay(calculator(tools=[add, double]), history)).ended
    assert (await replay(calculator(tools=[double]), history)).ended  # what it had is in the log
    stopping = calculator(tools=[add, double], stop_conditions=[max_steps(count=1)])
    with pytest.raises(ReplayDiffers, match="step_start of 'llm:2', and the code ends after 1"):
        await replay(stopping, history, patience=PATIENCE)
    cut = until(history, "step_finish", "add")
    assert "'add:2'" not in str(await replay(agent, cut))
    assert CALLED == []


async def asking_agents(ctx: WorkflowContext) -> list[Any]:
    one = await ctx.step.agent_invoke_and_wait("one", calculator().with_input("Add."))
    both = await ctx.step.batch_agent_invoke_and_wait(
        "both", [calculator().with_input("Add.", streaming=True) for _ in range(2)]
    )
    return [one.result, one.tool_results[0].result, [each.result.result for each in both]]


async def test_agents_that_are_children_are_replayed_without_model_and_tools() -> None:
    history = await recorded(asking_agents, agents=[calculator(tools=[add, double])])
    found = await same(asking_agents, history)
    assert (found.ended, found.goes_on, found.events) == (True, "", len(history.events))
    for payload, key, goes_on in [
        ("agent_start", "", "continues with 'one', which had begun"),
        ("agent_finish", "", "continues with 'one', which had begun"),
        ("step_start", "both/1", "continues with 'both/0', 'both/1', which had begun"),
    ]:
        found = await same(asking_agents, until(history, payload, key))
        assert (found.ended, found.goes_on) == (False, goes_on)


async def test_an_agent_is_replayed_without_what_its_tools_begin() -> None:
    @tool
    async def count(ctx: WorkflowContext) -> str:
        CALLED.append("count")
        await ctx.step.wait_for("nap", seconds=0.001)
        return await ctx.step.run("note", note, "noted")

    expert = Agent(id="expert", provider="scripted", model=scripted.script("I know."))
    asked = scripted.turn(scripted.call("count"), scripted.call("expert", input="Well?"))
    agent = Agent("asks", "scripted", scripted.script(asked, "done"), tools=[count, expert])
    async with Polos() as polos:
        handle = await agent.invoke(polos, {"input": "Go."})
        async for _ in events.stream_workflow(polos, workflow_run_id=handle.id):
            pass
        history = await History.fetch(polos, handle.id)
    CALLED.clear()
    assert (await replay(agent, history)).ended
    waiting = await replay(agent, until(history, "suspended", "nap"))
    assert "'count'" in waiting.goes_on
    assert CALLED == []


async def test_a_history_of_other_code_is_refused() -> None:
    history = await ordered()
    with pytest.raises(HistoryInvalid, match="is of the workflow 'order', not of the agent"):
        await replay(calculator(), history)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has no events"),
        ("{", "line 1"),
        ('{"sequence": "2"}', "event 1 is missing"),
        ('{"sequence": "1", "run_id": "r", "step_start": {}}', "does not start a run"),
        ('{"history": {"user_id": 1}}', "'user_id' cannot be 1"),
    ],
)
def test_a_file_that_is_no_history_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    with pytest.raises(HistoryInvalid, match=why):
        History.read(path)


async def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HistoryInvalid, match="cannot be read"):
        await replay(flow(two_steps), tmp_path / "none.jsonl")


async def test_an_unknown_run_is_refused() -> None:
    async with Polos() as polos:
        client: PolosClient = polos
        with pytest.raises(Exception, match="nobody"):
            await replay(flow(two_steps), "nobody", client=client)
