"""`polos run` on a terminal where the run waits for a person: what is asked, and what is sent."""

from __future__ import annotations

import re

from tests.cli.flows import Flows

CTRL_C = "Ctrl-C: [d]etach (the run continues), [c]ancel the run, or [g]o on? "


async def test_a_workflow_is_shown_with_steps_retries_events_waits_and_its_result(
    flows: Flows,
) -> None:
    payload = '{"item": "tea", "count": 2}'
    async with flows.cli.terminal("run", "order", "--payload", payload) as terminal:
        await terminal.shows("Answer as JSON: ")
        terminal.type('{"go": 1}\n')
        assert await terminal.ended() == 0
        await terminal.shows("done ·")
    run_id = await flows.started()
    for shown in (
        "order\n",
        '• progress {"charged":6}\n',
        "⏸ ship · waits for an answer: Ship tea?\n",
        "Ship tea?\n  total: 6\n",
        '{"answer":{"go":1}}\n',
    ):
        assert terminal.text.count(shown) == 1, shown
    assert re.search(r"↻ charge starts over: .*the bank is closed\n", terminal.text)
    assert re.search(r'✓ charge · \d\.\d\d s · {"charged": 6}\n', terminal.text)
    assert re.search(r'▶ ship after \d+\.\d s · answered by anonymous: {"go": 1}\n', terminal.text)
    assert re.search(r"⏸ nap · waits · until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+\n", terminal.text)
    assert re.search(r"▶ nap after \d+\.\d s · the time has come\n", terminal.text)
    assert re.search(rf"done · \d+\.\d\d s · run {run_id}\n", terminal.text)
    assert "✓ tell" not in terminal.text


async def test_a_form_is_filled_in_field_by_field(flows: Flows) -> None:
    async with flows.cli.terminal("run", "form") as terminal:
        await terminal.shows("Your name: ")
        assert "Tell me\n  Two\n  lines \\u202e\n  source: test\n" in terminal.text
        terminal.type("\n")
        await terminal.shows("Error: Your name is required\n")
        terminal.type("Zoë\n")
        await terminal.shows("count (Enter: 3): ")
        terminal.type("many\n")
        await terminal.shows("Error: 'many' is not a number\n")
        terminal.type("2.5\n")
        await terminal.shows("All right? (y/n): ")
        terminal.type("perhaps\n")
        await terminal.shows("Error: 'perhaps' is neither yes nor no\n")
        terminal.type("Yes\n")
        await terminal.shows("  1. Red\n  2. Blue\ncolour (optional): ")
        terminal.type("7\n")
        await terminal.shows("Error: '7' is none of the options 1 to 2\n")
        terminal.type("2\n")
        await terminal.shows("  What else?\nnote (ends with a line '.', optional): ")
        terminal.type("a line\n\nanother\n.\n")
        assert await terminal.ended() == 0
    assert await flows.result(await flows.started()) == {
        "name": "Zoë",
        "count": 2.5,
        "ok": True,
        "colour": "b",
        "note": "a line\n\nanother",
    }


async def test_what_is_left_out_is_its_default_or_absent(flows: Flows) -> None:
    async with flows.cli.terminal("run", "form") as terminal:
        await terminal.shows("Your name: ")
        terminal.type("Ann\n\nn\n\n\n")
        assert await terminal.ended() == 0
    result = await flows.result(await flows.started())
    assert result == {"name": "Ann", "count": 3, "ok": False}


async def test_an_approval_is_shown_and_answered_with_feedback(flows: Flows) -> None:
    async with flows.cli.terminal("run", "pay") as terminal:
        await terminal.shows("[y]es or [n]o? ")
        assert 'Approve pay?\n  tool: pay\n  input: {\n    "amount": 100\n  }\n' in terminal.text
        terminal.type("\n")
        await terminal.shows("Error: '' is neither yes nor no\n")
        terminal.type("n\n")
        await terminal.shows("Feedback to the model (Enter: none): ")
        terminal.type("too much\n")
        assert await terminal.ended() == 0
        await terminal.shows("· rejected by anonymous: too much\n")
    result = await flows.result(await flows.started())
    assert result == {"approved": False, "feedback": "too much"}


async def test_what_was_typed_before_a_question_is_no_answer(flows: Flows) -> None:
    async with flows.cli.terminal("run", "two") as terminal:
        terminal.type("9\n")
        await terminal.shows("Answer as JSON: ")
        terminal.type("oops\n8\n")
        await terminal.shows("Error: 'oops' is not valid JSON")
        await terminal.shows("Answer as JSON: ", times=2)
        terminal.type("1\n")
        await terminal.shows("Answer as JSON: ", times=3)
        terminal.type("2\n")
        assert await terminal.ended() == 0
    assert await flows.result(await flows.started()) == [1, 2]


async def test_a_line_that_the_terminal_has_cut_is_not_sent(flows: Flows) -> None:
    async with flows.cli.terminal("run", "two") as terminal:
        await terminal.shows("Answer as JSON: ")
        terminal.type(f"{'1' * 5000}\n")
        await terminal.shows("Error: the line is cut: terminals take at most 4096 bytes.")
        terminal.type("1\n")
        await terminal.shows("Answer as JSON: ", times=3)
        terminal.type("2\n")
        assert await terminal.ended() == 0
    assert await flows.result(await flows.started()) == [1, 2]


async def test_a_question_ends_when_somebody_else_answers(flows: Flows) -> None:
    async with flows.cli.terminal("run", "two") as terminal:
        await terminal.shows("Answer as JSON: ")
        terminal.type("half an ans")
        run_id = await flows.started()
        await flows.answer(run_id, "first", "1")
        await terminal.shows("first no longer waits for an answer.\n")
        await terminal.shows("Answer as JSON: ", times=2)
        terminal.type("2\n")
        assert await terminal.ended() == 0
    assert await flows.result(run_id) == [1, 2]


async def test_a_question_ends_with_the_run(flows: Flows) -> None:
    async with flows.cli.terminal("run", "two") as terminal:
        await terminal.shows("Answer as JSON: ")
        await flows.served.client.cancel_run(await flows.started())
        assert await terminal.ended() == 4
        await terminal.shows("was cancelled")


async def test_ctrl_d_leaves_the_question_to_others(flows: Flows) -> None:
    async with flows.cli.terminal("run", "two") as terminal:
        await terminal.shows("Answer as JSON: ")
        terminal.type("\x04")
        run_id = await flows.started()
        await terminal.shows(f"Answer with: polos runs resume {run_id} first --data JSON\n")
        await flows.answer(run_id, "first", "1")
        await terminal.shows("Answer as JSON: ", times=2)
        terminal.type("2\n")
        assert await terminal.ended() == 0


async def test_ctrl_c_at_a_question_asks_what_to_do_and_g_asks_again(flows: Flows) -> None:
    async with flows.cli.terminal("run", "two") as terminal:
        await terminal.shows("Answer as JSON: ")
        terminal.type("\x03")
        await terminal.shows(CTRL_C)
        terminal.type("g\n")
        await terminal.shows("Answer as JSON: ", times=2)
        terminal.type("\x03")
        await terminal.shows(CTRL_C, times=2)
        terminal.type("d\n")
        assert await terminal.ended() == 130
        run_id = await flows.started()
        await terminal.shows(f"Read on with: polos runs tail {run_id}\n")
        await terminal.shows(f"Answer with: polos runs resume {run_id} first --data JSON\n")
    await flows.waits(run_id, "first")


async def test_a_tail_asks_nothing(flows: Flows) -> None:
    run_id = await flows.start("two")
    await flows.waits(run_id, "first")
    async with flows.cli.terminal("runs", "tail", run_id) as terminal:
        await terminal.shows("⏸ first · waits for an answer")
        await flows.answer(run_id, "first", "1")
        await flows.waits(run_id, "second")
        await flows.answer(run_id, "second", "2")
        assert await terminal.ended() == 0
    assert "Answer as JSON" not in terminal.text


async def test_approve_asks_for_confirmation_on_a_terminal(flows: Flows) -> None:
    run_id = await flows.start("pay")
    await flows.waits(run_id, "pay/approve")
    async with flows.cli.terminal("runs", "approve", run_id) as terminal:
        await terminal.shows("Shall it be approved? [y/N] ")
        assert '"amount": 100' in terminal.text
        terminal.type("\n")
        assert await terminal.ended() == 1
        await terminal.shows("Error: not confirmed; pay/approve still waits\n")
    async with flows.cli.terminal("runs", "approve", run_id) as terminal:
        await terminal.shows("Shall it be approved? [y/N] ")
        terminal.type("y\n")
        assert await terminal.ended() == 0
    assert await flows.result(run_id) == {"approved": True}


async def test_yes_skips_the_confirmation(flows: Flows) -> None:
    run_id = await flows.start("pay")
    await flows.waits(run_id, "pay/approve")
    async with flows.cli.terminal("runs", "reject", run_id, "--yes") as terminal:
        assert await terminal.ended() == 0
    assert await flows.result(run_id) == {"approved": False}
