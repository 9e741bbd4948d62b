"""`polos run` in pipes: what programs and scripts get."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from typing import Any

import pytest
import typer

from polos_client.budget import Budget
from polos_service.cli.run import budget_of
from tests.cli.commands import Cli, Ended
from tests.support.process import PATIENCE


async def test_a_pipe_gets_the_text_of_each_model_call_and_nothing_else(cli: Cli) -> None:
    assert await cli("run", "sums", "1 + 2?") == Ended(0, "Let me add.\nThe sum is 3.\n", "")


async def test_a_pipe_never_gets_text_that_a_retry_takes_back(cli: Cli) -> None:
    assert await cli("run", "retries", "Go.") == Ended(0, "These count.\n", "")


async def test_an_answer_that_was_cut_is_told_and_has_its_exit_code(cli: Cli) -> None:
    ended = await cli("run", "short", "Go.")
    assert (ended.code, ended.out) == (6, "Half an\n")
    assert ended.err == (
        "Error: the answer is incomplete: it reached the token limit (finish reason length)\n"
    )


async def test_a_failed_run_says_why_and_prints_no_half_answer(cli: Cli) -> None:
    assert await cli("run", "fails", "Go.") == Ended(3, "", "Error: no such key\n")


async def test_a_run_over_its_budget_has_failed_and_tells_what_it_spent(cli: Cli) -> None:
    ended = await cli("run", "sums", "1 + 2?", "--budget-tokens", "1", "--json")
    last = ended.objects[-1]
    assert ended.code == 3
    assert "its budget is 1 (budget_tokens)" in last["data"]["error"]
    assert last["data"]["spent"] == last["data"]["usage"]
    shown = (await cli("runs", "show", last["run_id"])).out
    assert re.search(r"^spent            \d+ tokens in, \d+ out$", shown, re.MULTILINE)


def test_a_budget_may_be_of_tokens_and_of_cost() -> None:
    assert budget_of(None, None) is None
    assert budget_of(5, 0.25) == Budget(tokens=5, cost=0.25)
    with pytest.raises(typer.BadParameter, match="US dollars"):
        budget_of(None, 1e12)


async def test_a_run_over_its_timeout_has_failed(cli: Cli) -> None:
    ended = await cli("run", "waits", "Go.", "--timeout", "0.2")
    assert (ended.code, ended.out) == (3, "")
    assert "exceeded its timeout" in ended.err


@pytest.mark.parametrize("arguments", [["-"], []])
async def test_the_prompt_comes_from_standard_input(cli: Cli, arguments: list[str]) -> None:
    ended = await cli("run", "steers", *arguments, "--json", input=b"four words of prompt\n")
    # A script counts the words of the prompt as its tokens.
    assert ended.objects[-1]["data"]["usage"]["input_tokens"] == 4


async def test_a_prompt_that_is_not_text_is_refused(cli: Cli) -> None:
    ended = await cli("run", "sums", "-", input=b"\xff")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("Error: the prompt on standard input is not valid UTF-8: ")


async def test_json_is_the_whole_log_an_event_a_line(cli: Cli) -> None:
    ended = await cli("run", "sums", "1 + 2?", "--json", "--session", "s", "--user", "u")
    (run_id,) = await cli.run_ids("--session", "s", "--user", "u")
    log = ended.objects
    assert (ended.code, ended.err) == (0, "")
    assert [one["sequence"] for one in log] == list(range(1, len(log) + 1))
    assert all(list(one) == KEYS and one["run_id"] == run_id for one in log)
    assert (log[0]["event_type"], log[-1]["event_type"]) == ("agent_start", "agent_finish")


KEYS = ["sequence", "run_id", "event_type", "data", "created_at"]


async def next_events(process: asyncio.subprocess.Process, last: str) -> list[dict[str, Any]]:
    """Read events until one of that type has come."""
    assert process.stdout is not None
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(PATIENCE):
        while not found or found[-1]["event_type"] != last:
            found.append(json.loads(await process.stdout.readline()))
    return found


async def test_json_comes_while_the_run_goes_on_and_a_cancelled_run_has_its_code(cli: Cli) -> None:
    process = await cli.start("run", "waits", "Go.", "--json")
    run_id = (await next_events(process, "text_delta"))[0]["run_id"]
    assert await cli.state(run_id) == "running"
    assert (await cli("runs", "cancel", run_id)).code == 0
    assert (await next_events(process, "run_cancelled"))[-1]["run_id"] == run_id
    assert await process.wait() == 4


async def test_ctrl_c_in_a_pipe_detaches_and_says_how_to_come_back(cli: Cli) -> None:
    process = await cli.start("run", "waits", "Go.", "--json")
    run_id = (await next_events(process, "text_delta"))[0]["run_id"]
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130
    assert err.decode() == (
        f"Detached: run {run_id} continues.\nRead on with: polos runs tail {run_id}\n"
    )
    assert await cli.state(run_id) == "running"


async def test_a_reader_that_leaves_the_pipe_leaves_the_run_alone(cli: Cli) -> None:
    process = await cli.start("run", "slow", "Go.", "--json")
    assert process.stdout is not None
    run_id = json.loads(await process.stdout.readline())["run_id"]
    process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    assert process.stderr is not None
    assert (await process.wait(), await process.stderr.read()) == (1, b"")
    assert (await cli("runs", "tail", run_id)).out == "One two.\n"


async def test_an_unknown_agent_is_refused_with_the_known_ones(cli: Cli) -> None:
    assert await cli("run", "nobody", "Go.") == Ended(
        1,
        "",
        "Error: There is no agent or workflow 'nobody'. "
        "Loaded: fails, gated, retries, short, slow, steers, sums, waits.\n",
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sums", ""], "input is empty"),
        (["s p", "Go."], "There is no agent or workflow 's p'. Loaded: "),
        (["sums", "Go.", "--timeout", "0"], "run_timeout_seconds is 0.0; it must be from"),
        (["sums", "Go.", "--option", "colour=3"], "provider_kwargs.colour cannot"),
        (["sums", "Go.", "--option", f"x={'[' * 5000}"], "provider_kwargs.x cannot"),
    ],
)
async def test_what_cannot_be_run_is_refused(cli: Cli, arguments: list[str], said: str) -> None:
    ended = await cli("run", *arguments)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(f"Error: {said}")
    assert await cli.run_ids() == []


async def test_an_option_that_is_no_pair_is_a_wrong_command_line(cli: Cli) -> None:
    ended = await cli("run", "sums", "Go.", "--option", "seed")
    assert (ended.code, ended.out) == (2, "")
    assert "'seed' is not NAME=VALUE" in ended.err


async def test_model_options_that_the_provider_knows_are_taken(cli: Cli) -> None:
    options = ("--option", "seed=7", "--option", "temperature=0.5")
    assert (await cli("run", "steers", "Go.", *options)).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "sums", "Go."],
        ["chat", "sums"],
        ["runs", "list"],
        ["health"],
    ],
)
async def test_without_a_service_a_command_says_so_and_ends(arguments: list[str]) -> None:
    nobody = Cli("127.0.0.1:1")  # no service may listen there
    assert await nobody(*arguments) == Ended(
        1,
        "",
        "Error: no Polos service can be reached at 127.0.0.1:1 (UNAVAILABLE: connection refused); "
        "start one with `polos serve`, or set POLOS_ADDRESS\n",
    )


async def test_a_service_without_tls_is_not_reached_by_https_and_the_command_says_why(
    cli: Cli,
) -> None:
    ended = await cli("runs", "list", "--address", f"https://{cli.address}")
    assert ended.code == 1
    assert f"no Polos service can be reached at {cli.address} (UNAVAILABLE: " in ended.err
    assert "the server does not speak TLS" in ended.err


async def test_an_option_names_another_address_than_the_environment(cli: Cli) -> None:
    ended = await Cli("127.0.0.1:1")("run", "steers", "Go.", "--address", cli.address)
    assert (ended.code, ended.err) == (0, "")
