"""`polos runs`: what the service keeps."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.commands import Cli, Ended
from tests.support.process import ServiceProcess, until


async def two_runs(cli: Cli) -> tuple[str, str]:
    """Make a run that completes and one that waits; return their ids."""
    await cli("run", "sums", "1 + 2?", "--session", "first", "--user", "ann")
    waiting = await cli.start("run", "waits", "Go.", "--json", "--session", "second")
    assert waiting.stdout is not None
    await waiting.stdout.readline()
    waiting.terminate()
    await waiting.communicate()
    second, first = await cli.run_ids()
    return first, second


async def test_list_filters_the_runs_and_has_a_line_with_tabs_for_each(cli: Cli) -> None:
    first, second = await two_runs(cli)
    listed = (await cli("runs", "list")).out.splitlines()
    assert [line.split("\t")[:3] for line in listed] == [
        [second, "waits", "running"],
        [first, "sums", "completed"],
    ]
    assert listed[1].split("\t")[5] == "first"
    assert await cli.run_ids("--agent", "sums") == [first]
    assert await cli.run_ids("--state", "running") == [second]
    assert await cli.run_ids("--session", "second") == [second]
    assert await cli.run_ids("--user", "ann") == [first]
    assert await cli.run_ids("--parent", first) == []
    assert await cli.run_ids("--since", "1h") == [second, first]
    assert await cli.run_ids("--since", "2999-01-01") == []
    assert await cli.run_ids("--before", "1h") == []
    assert await cli.run_ids("--before", "2999-01-01") == [second, first]
    (newest,) = (await cli("runs", "list", "--json", "--limit", "1")).objects
    made = newest["created_at"]
    assert await cli.run_ids("--since", made) == [second]
    assert await cli.run_ids("--before", made) == [first]


async def test_list_ends_at_its_limit_and_has_all_if_asked(cli: Cli) -> None:
    for _ in range(3):
        await cli("run", "steers", "Go.")
    everything = await cli.run_ids("--all")
    assert len(everything) == 3
    assert await cli.run_ids("--limit", "2") == everything[:2]


async def test_list_on_a_terminal_is_a_table_with_headings(cli: Cli) -> None:
    await cli("run", "sums", "1 + 2?", "--session", "s")
    (run_id,) = await cli.run_ids()
    async with cli.terminal("runs", "list") as terminal:
        assert await terminal.ended() == 0
        await terminal.shows(run_id)
    headings, row = [line for line in terminal.text.splitlines() if line.strip()]
    assert headings.split() == ["ID", "AGENT", "STATE", "AGE", "TOOK", "SESSION", "INPUT"]
    assert row.split()[:3] == [run_id, "sums", "completed"]


async def test_a_narrow_terminal_has_a_paragraph_for_each_run_and_whole_words(cli: Cli) -> None:
    await cli("run", "sums", "1 + 2?", "--session", "a session")
    (run_id,) = await cli.run_ids()
    async with cli.terminal("runs", "list", columns=60) as terminal:
        assert await terminal.ended() == 0
        await terminal.shows("session")
    first, *rest = terminal.text.splitlines()
    assert first == run_id
    assert all(line.startswith("  ") and len(line) <= 60 for line in rest)
    told = " ".join(" ".join(rest).split())
    times = r"age \d.* s · took \d.* s"
    pattern = rf"agent sums · state completed · {times} · session a session · input 1 \+ 2\?"
    assert re.fullmatch(pattern, told)
    async with cli.terminal("runs", "show", "last", columns=60) as terminal:
        assert await terminal.ended() == 0
        await terminal.shows("ago)")
    assert all(len(line) <= 60 for line in terminal.text.splitlines())
    assert re.search(r"\nduration         \d+\.\d\d s\n", terminal.text)
    assert re.search(r"\nusage            \d+ tokens in, 7 out\n", terminal.text)


@pytest.mark.parametrize("option", ["--since", "--before"])
@pytest.mark.parametrize("time", ["yesterday", "5x", "999999d"])
async def test_a_time_that_is_none_is_a_wrong_command_line(option: str, time: str) -> None:
    ended = await Cli("127.0.0.1:1")("runs", "list", option, time)
    assert (ended.code, ended.out) == (2, "")
    assert f"'{time}' is neither an age like 90s" in ended.err


async def test_a_state_that_is_none_is_a_wrong_command_line() -> None:
    ended = await Cli("127.0.0.1:1")("runs", "list", "--state", "runing", COLUMNS="200")
    assert (ended.code, ended.out) == (2, "")
    told = "'runing' is not one of queued, running, suspended, completed, failed, cancelled"
    assert f"Invalid value for '--state': {told} " in ended.err


async def test_the_shell_completes_states() -> None:
    completed = await Cli("127.0.0.1:1").completed("runs", "list", "--state", "c")
    assert completed.out.split() == ["completed", "cancelled"]


async def test_show_tells_the_record_the_outcome_and_the_tools(cli: Cli) -> None:
    await cli("run", "sums", "1 + 2?")
    (run_id,) = await cli.run_ids()
    (shown,) = (await cli("runs", "show", run_id, "--json")).objects
    assert shown["state"] == "completed"
    assert shown["outcome"]["result"]["result"] == "The sum is 3."
    assert shown["outcome"]["usage"]["output_tokens"] == 7
    assert [(one["tool_name"], one.get("result"), one.get("error")) for one in tools(shown)] == [
        ("add", 3, None),
        ("broken", None, "The tool broken raised ValueError: no luck"),
    ]
    text = (await cli("runs", "show", run_id)).out
    assert f"run id           {run_id}\n" in text
    assert "result           The sum is 3.\n" in text
    assert 'tool add({"a": 1, "b": 2}) -> 3\n' in text


def tools(shown: dict[str, list[dict[str, object]]]) -> list[dict[str, object]]:
    """Return the tools' results by name: the calls run side by side."""
    return sorted(shown["tool_results"], key=lambda one: str(one["tool_name"]))


async def test_tail_prints_what_run_printed_and_has_its_exit_code(cli: Cli) -> None:
    ran = await cli("run", "sums", "1 + 2?", "--json")
    run_id = ran.objects[0]["run_id"]
    assert await cli("runs", "tail", run_id, "--json") == ran
    assert (await cli("runs", "tail", run_id)).out == "Let me add.\nThe sum is 3.\n"
    failed = await cli("run", "fails", "Go.", "--json")
    assert (await cli("runs", "tail", failed.objects[0]["run_id"])).code == 3


async def test_tail_begins_after_its_cursor(cli: Cli) -> None:
    log = (await cli("run", "fails", "Go.", "--json")).objects
    run_id = log[0]["run_id"]
    assert (await cli("runs", "tail", run_id, "--after", "3", "--json")).objects == log[3:]
    at_the_end = await cli("runs", "tail", run_id, "--after", str(len(log)), "--json")
    assert at_the_end == Ended(3, "", "")


async def test_tail_refuses_a_cursor_that_is_none(cli: Cli) -> None:
    log = (await cli("run", "steers", "Go.", "--json")).objects
    run_id, ahead = log[0]["run_id"], len(log) + 1
    assert await cli("runs", "tail", run_id, "--after", str(ahead)) == Ended(
        1,
        "",
        f"Error: The cursor {ahead} is past the newest event of run {run_id}, "
        f"which is {len(log)}.\n",
    )
    assert (await cli("runs", "tail", run_id, "--after", "-1")).code == 2


async def test_cancel_says_of_each_run_what_became_of_it(cli: Cli) -> None:
    first, second = await two_runs(cli)
    ended = await cli("runs", "cancel", first, "no-run", second)
    assert ended == Ended(
        1,
        f"{first} had already ended: completed\n{second} cancelled\n",
        "Error: There is no run 'no-run'.\n",
    )
    assert (await cli("runs", "tail", second)).code == 4
    again = await cli("runs", "cancel", second)
    assert again == Ended(0, f"{second} had already ended: cancelled\n", "")


async def test_delete_removes_runs_that_have_ended_and_no_other(cli: Cli) -> None:
    first, second = await two_runs(cli)
    ended = await cli("runs", "delete", second, first)
    assert (ended.code, ended.out) == (1, f"{first} deleted\n")
    assert second in ended.err
    assert await cli.run_ids() == [second]


@pytest.mark.parametrize("command", ["show", "tail", "cancel", "delete"])
async def test_an_unknown_run_is_refused(cli: Cli, command: str) -> None:
    assert await cli("runs", command, "no-run") == Ended(
        1, "", "Error: There is no run 'no-run'.\n"
    )


async def test_a_run_is_read_on_over_a_restart_of_the_service(
    service: ServiceProcess, tmp_path: Path
) -> None:
    cli = Cli(service.address)
    gated = await cli.start("run", "gated", "Go.", "--json")
    assert gated.stdout is not None
    first = await gated.stdout.readline()
    await service.kill()
    (tmp_path / "open").touch()
    await service.start()
    rest, _ = await gated.communicate()
    log = [json.loads(line) for line in (first + rest).splitlines()]
    assert gated.returncode == 0
    assert [one["sequence"] for one in log] == list(range(1, len(log) + 1))
    assert log[-1]["event_type"] == "agent_finish"


async def test_a_lost_connection_and_its_return_are_told(
    service: ServiceProcess, tmp_path: Path
) -> None:
    cli = Cli(service.address)
    gated = await cli.start("run", "gated", "Go.")
    assert gated.stderr is not None
    await until((tmp_path / "waiting").exists, "the tool runs")
    await service.kill()
    assert await gated.stderr.readline() == b"Connection lost, trying again.\n"
    await service.start()
    assert await gated.stderr.readline() == b"Connected again.\n"
    await cli("runs", "cancel", "last")
    await gated.communicate()
    assert gated.returncode == 4
