"""Workflows and waits in pipes: what programs and scripts get."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from polos.v1.run_pb2 import RunState
from tests.cli.commands import Cli, Ended
from tests.cli.flows import Flows
from tests.support.process import PATIENCE
from tests.support.service import until

PAYLOAD = '{"item": "tea", "count": 2}'


async def said(process: asyncio.subprocess.Process, lines: int) -> list[str]:
    """Return the next lines on standard error."""
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        return [(await process.stderr.readline()).decode() for _ in range(lines)]


async def test_a_workflow_without_payload_prints_its_result_as_json(flows: Flows) -> None:
    assert await flows.cli("run", "greet") == Ended(0, '"Hello"\n', "")


@pytest.mark.parametrize("how", ["text", "file", "input"])
async def test_a_payload_comes_as_text_from_a_file_or_from_standard_input(
    flows: Flows, how: str, tmp_path: Path
) -> None:
    file = tmp_path / "payload.json"
    file.write_text(PAYLOAD)
    given = {"text": PAYLOAD, "file": f"@{file}", "input": "-"}[how]
    run = await flows.cli.start("run", "order", "--payload", given, stdin=asyncio.subprocess.PIPE)
    assert run.stdin is not None
    run.stdin.write(PAYLOAD.encode())
    run.stdin.close()
    asked, answer = await said(run, 2)
    assert asked == "ship · waits for an answer: Ship tea?\n"
    (run_id,) = await flows.cli.run_ids()
    assert answer == f"Answer with: polos runs resume {run_id} ship --data JSON\n"
    assert await flows.cli("runs", "resume", run_id, "--data", '{"go": 1}') == Ended(
        0, f"{run_id} ship answered\n", ""
    )
    out, err = await run.communicate()
    assert (run.returncode, json.loads(out), err) == (0, {"answer": {"go": 1}}, b"")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["order", "--payload", "{"], 2, "is not valid JSON"),
        (["order", "--payload", "@/no/file"], 2, "/no/file cannot be read: No such file"),
        (["order", "Hi", "--payload", "{}"], 2, "a workflow has a payload and an agent a prompt"),
        (["order", "--payload", "{}"], 1, "item"),
        (["order"], 1, "payload is missing"),
        (["nobody"], 1, "'nobody'. Loaded: "),
    ],
)
async def test_what_cannot_be_run_is_refused(
    flows: Flows, arguments: list[str], code: int, said: str
) -> None:
    ended = await flows.cli("run", *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert said in " ".join(ended.err.replace("│", " ").split())
    assert await flows.cli.run_ids() == []


async def test_waits_are_listed_oldest_first_with_what_is_asked(flows: Flows) -> None:
    first = await flows.start("order", PAYLOAD)
    await flows.waits(first, "ship")
    second = await flows.start("pay")
    await flows.waits(second, "pay/approve")
    rows = [line.split("\t") for line in (await flows.cli("waits")).out.splitlines()]
    assert [[*row[:2], row[3], *row[5:]] for row in rows] == [
        [first, "ship", "suspend", "", "Ship tea?"],
        [second, "pay/approve", "approval", "", 'pay({"amount": 100})'],
    ]
    listed = (await flows.cli("waits", "--json")).objects
    assert [one["run_id"] for one in listed] == [first, second]
    assert listed[0]["data"]["total"] == 6
    assert rows[0][2] == str(listed[0]["wait_id"])
    assert [
        one["run_id"] for one in (await flows.cli("waits", "--workflow", "pay", "--json")).objects
    ] == [second]
    assert len((await flows.cli("waits", "--limit", "1")).out.splitlines()) == 1
    assert len((await flows.cli("waits", "--all")).out.splitlines()) == 2
    await flows.cli("runs", "resume", first, "ship", "--data", "1")
    assert [one["run_id"] for one in (await flows.cli("waits", "--json")).objects] == [second]


async def test_an_answer_to_a_run_that_has_ended_or_was_answered_is_refused(flows: Flows) -> None:
    run_id = await flows.start("two")
    await flows.waits(run_id, "first")
    assert (await flows.cli("runs", "resume", run_id, "first", "--data", "1")).code == 0
    await flows.waits(run_id, "second")
    again = await flows.cli("runs", "resume", run_id, "first", "--data", "2")
    assert (again.code, again.out) == (1, "")
    assert "has an answer" in again.err
    assert (await flows.cli("runs", "resume", run_id, "--data", "3")).code == 0
    assert (await flows.cli("runs", "tail", run_id)).out == "[1,3]\n"
    late = await flows.cli("runs", "resume", run_id, "--data", "4")
    assert (late.code, late.out) == (1, "")
    assert late.err == (
        f"Error: {run_id} has no open wait that can be answered; "
        f"`polos runs show {run_id}` shows its waits and their answers\n"
    )
    nobody = await flows.cli("runs", "resume", "no-run", "--data", "4")
    assert nobody == Ended(1, "", "Error: There is no run 'no-run'.\n")


async def test_an_early_answer_is_kept_and_the_open_waits_are_told(flows: Flows) -> None:
    run_id = await flows.start("two")
    await flows.waits(run_id, "first")
    early = await flows.cli("runs", "resume", run_id, "second", "--data", "2")
    assert (early.code, early.out) == (
        0,
        f"{run_id} second answered before the run waits for it: the answer is kept\n",
    )
    assert (
        early.err
        == 'Open waits:\n  2 (suspend) first · waits for an answer: {"question": "one?"}\n'
    )
    (shown,) = (await flows.cli("runs", "show", run_id, "--json")).objects
    assert shown["early_answers"] == ["second"]
    await flows.cli("runs", "resume", run_id, "--data", "1")
    assert (await flows.cli("runs", "tail", run_id)).out == "[1,2]\n"


async def test_an_approval_is_shown_and_approved(flows: Flows) -> None:
    run_id = await flows.start("pay")
    await flows.waits(run_id, "pay/approve")
    approved = await flows.cli("runs", "approve", run_id, "--feedback", "fine")
    assert approved == Ended(
        0,
        f"{run_id} pay/approve approved\n",
        'Approve pay?\n  tool: pay\n  input: {\n    "amount": 100\n  }\n',
    )
    assert json.loads((await flows.cli("runs", "tail", run_id)).out) == {
        "approved": True,
        "feedback": "fine",
    }
    shown = (await flows.cli("runs", "show", run_id)).out
    assert 'pay/approve · waits for approval: pay({"amount": 100})' in shown
    assert "approved by anonymous: fine after " in shown


async def test_an_approval_is_rejected_by_its_id(flows: Flows) -> None:
    run_id = await flows.start("pay")
    await flows.waits(run_id, "pay/approve")
    (wait,) = (await flows.cli("waits", "--json")).objects
    wrong = await flows.cli("runs", "reject", run_id, "--wait-id", "99")
    assert (wrong.code, wrong.out) == (1, "")
    assert f"  {wait['wait_id']} (approval) pay/approve · waits for approval: pay(" in wrong.err
    ended = await flows.cli("runs", "reject", run_id, "--wait-id", str(wait["wait_id"]))
    assert (ended.code, ended.out) == (0, f"{run_id} pay/approve rejected\n")
    assert (await flows.cli("runs", "tail", run_id)).out == '{"approved": false}\n'


async def test_arguments_that_cannot_be_changed_leave_the_approval_open(flows: Flows) -> None:
    run_id = await flows.start("pay")
    await flows.waits(run_id, "pay/approve")
    ended = await flows.cli("runs", "approve", run_id, "--arguments", '{"amount": 1}')
    assert (ended.code, ended.out) == (1, "")
    assert "arguments" in ended.err
    assert len((await flows.cli("waits")).out.splitlines()) == 1


async def test_an_approval_is_not_answered_unseen_and_an_answer_is_no_approval(
    flows: Flows,
) -> None:
    pay, asked = await flows.start("pay"), await flows.start("two")
    await flows.waits(pay, "pay/approve")
    await flows.waits(asked, "first")
    unseen = await flows.cli("runs", "resume", pay, "--data", '{"approved": true}')
    assert unseen == Ended(
        1,
        "",
        "Error: pay/approve is an approval. "
        f"Answer with: polos runs approve {pay} pay/approve (or reject)\n",
    )
    no_approval = await flows.cli("runs", "approve", asked)
    assert no_approval == Ended(
        1,
        "",
        "Error: first is not an approval. "
        f"Answer with: polos runs resume {asked} first --data JSON\n",
    )


async def test_show_tells_steps_waits_answers_events_and_retries(flows: Flows) -> None:
    run_id = await flows.start("order", PAYLOAD)
    await flows.waits(run_id, "ship")
    (shown,) = (await flows.cli("runs", "show", run_id, "--json")).objects
    (wait,) = shown["waits"]
    assert (wait["step_key"], wait["kind"], wait.get("outcome")) == ("ship", "suspend", None)
    assert "step charge (attempt 2) -> " in (await flows.cli("runs", "show", run_id)).out
    await flows.cli("runs", "resume", run_id, "--data", '"yes"')
    await flows.cli("runs", "tail", run_id)
    (shown,) = (await flows.cli("runs", "show", run_id, "--json")).objects
    charge, tell = shown["steps"]
    assert (charge["step_key"], charge["attempt"], charge["result"]) == (
        "charge",
        2,
        {"charged": 6},
    )
    assert tell["step_type"] == "event"
    assert [(one["event_type"], one["data"]) for one in shown["events"]] == [
        ("progress", {"charged": 6})
    ]
    ship, nap = shown["waits"]
    assert (ship["outcome"], ship["answer"], ship["principal"]) == ("answered", "yes", "anonymous")
    assert (nap["kind"], nap["outcome"]) == ("timer", "elapsed")
    lines = (await flows.cli("runs", "show", run_id)).out.splitlines()[-4:]
    assert lines[0] == 'step charge (attempt 2) -> {"charged":6}'
    assert lines[1] == 'event progress {"charged":6}'
    assert lines[2].startswith(f"wait {ship['wait_id']} ship · waits for an answer: Ship tea? · ")
    assert ' · answered by anonymous: "yes" after ' in lines[2]
    assert lines[3].startswith(f"wait {nap['wait_id']} nap · waits · the time has come after ")


async def test_a_suspended_run_is_listed_as_such(flows: Flows) -> None:
    flows.served.service._executor._threshold = 0.0
    run_id = await flows.start("two")

    async def parked() -> bool:
        return (await flows.served.client.get_run(run_id)).state == RunState.RUN_STATE_SUSPENDED

    await until(parked, "the run is suspended")
    assert await flows.cli.run_ids("--state", "suspended") == [run_id]
    assert "state            suspended\n" in (await flows.cli("runs", "show", run_id)).out


async def test_json_names_each_wait_and_its_end(flows: Flows) -> None:
    log = (await flows.cli("run", "brief", "--json")).objects
    assert [one["sequence"] for one in log] == [1, 2, 3, 4]
    assert (await flows.cli("run", "brief")).code == 3
    kept: list[dict[str, Any]] = (
        await flows.cli("runs", "list", "--workflow", "brief", "--json")
    ).objects
    assert [one["state"] for one in kept] == ["failed", "failed"]
    shown = (await flows.cli("runs", "show", kept[0]["run_id"])).out
    assert "soon · waits for an answer · nobody answered in time after " in shown


async def test_without_a_service_the_commands_say_so() -> None:
    nobody = Cli("127.0.0.1:1")
    for command in (["waits"], ["runs", "approve", "x"], ["runs", "resume", "x", "--data", "1"]):
        ended = await nobody(*command)
        assert (ended.code, ended.out) == (1, "")
        assert "no Polos service can be reached" in ended.err


async def test_the_workflows_are_listed_with_what_they_take(flows: Flows) -> None:
    lines = (await flows.cli("workflows")).out.splitlines()
    rows = {line.split("\t")[0]: line.split("\t") for line in lines}
    assert (rows["form"][1], rows["form"][3]) == ("-", "Wait for a form to be filled in.")
    listed = (await flows.cli("workflows", "--json")).objects
    assert [one["workflow_id"] for one in listed] == sorted(rows)
    (order,) = [one for one in listed if one["workflow_id"] == "order"]
    assert order["payload"]["properties"].keys() == {"item", "count"}
    assert rows["order"][1] == order["payload"]["title"]
