"""Each example, as a user runs it: a program beside a service."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.process import ServiceProcess
from tests.support.program import AGENTS, ROOT, line_of, printed, program

ANSWER = "I will look. It is 21 °C in Tokyo, and the sky is clear."
STORY = (
    "Every evening the keeper climbed ninety steps and lit the lamp. "
    "One night the oil ran out, so he sang until morning, "
    "and the ships came home by his voice."
)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def address(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Serve the examples' agents, without a key."""
    store = tmp_path_factory.mktemp("store") / "runs.db"
    async with ServiceProcess(AGENTS, store, cwd=ROOT) as service:
        yield service.address


async def test_basic_prints_the_text(address: str) -> None:
    assert await printed("examples.basic", address=address) == f"{ANSWER}\n"


async def test_all_events_prints_the_whole_log(address: str) -> None:
    lines = (await printed("examples.all_events", address=address)).splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(1, 25))
    assert [line[5:].rstrip() for line in lines[:11]] == [
        "agent_start",
        "step_start    llm:1",
        "text_delta    'I'",
        "text_delta    ' will'",
        "text_delta    ' look.'",
        "text_delta    ' '",
        'tool_call     get_weather({"city": "Tokyo"})',
        "step_finish   llm:1",
        "step_start    get_weather",
        "step_finish   get_weather -> {'city': 'Tokyo', 'celsius': 21, 'sky': 'clear'}",
        "step_start    llm:2",
    ]
    assert re.fullmatch(r" 24  agent_finish  \d+ tokens", lines[-1])


async def test_order_waits_for_a_person(address: str) -> None:
    lines = (await printed("examples.order", address=address)).splitlines()
    assert "? Sell tea?" in lines
    assert "resume_approve" in lines
    assert lines[-2:] == ["workflow_finish", "paid 900 for tea, shipped"]


async def test_router_passes_questions_on(address: str) -> None:
    assert await printed("examples.router", address=address) == (
        "a ticket: The lamp is broken.\n"
        "desk: We will look at it; a new one costs 20 EUR.\n"
        "sales: A new lamp costs 20 EUR.\n"
        "support: A technician will look at the lamp.\n"
        "['sales completed', 'support completed']\n"
    )


async def test_lifecycle_tells_what_the_agent_does(address: str) -> None:
    text = await printed("examples.lifecycle", address=address)
    assert re.sub(r"Tokens: \d+", "Tokens: N", text) == (
        "🚀 Agent started\n"
        "⏳ Running step: llm:1\n"
        "I will look. \n"
        "🔧 Calling tool: get_weather\n"
        "✓ Completed step: llm:1\n"
        "⏳ Running step: get_weather\n\n"
        "✓ Completed step: get_weather\n"
        "⏳ Running step: llm:2\n"
        "It is 21 °C in Tokyo, and the sky is clear.\n"
        "✓ Completed step: llm:2\n"
        "✅ Agent finished - Tokens: N\n"
    )


async def test_invoke_and_listen_hears_a_run_that_does_not_stream(address: str) -> None:
    lines = (await printed("examples.invoke_and_listen", address=address)).splitlines()
    assert lines[0] == "Step started: llm:1"
    assert '"name": "get_weather"' in lines[1]
    assert lines[2:] == [
        "Step started: get_weather",
        'Step finished: {"city": "Tokyo", "celsius": 21, "sky": "clear"}',
        "Step started: llm:2",
        (
            'Step finished: {"content": "It is 21 °C in Tokyo, and the sky is clear.", '
            '"tool_calls": []}'
        ),
        "Agent finished",
        "The run is completed: It is 21 °C in Tokyo, and the sky is clear.",
    ]


async def test_final_text_prints_the_whole_answer(address: str) -> None:
    assert await printed("examples.final_text", address=address) == f"{STORY}\n"


async def test_result_prints_what_the_run_was_made_of(address: str) -> None:
    lines = (await printed("examples.result", address=address)).splitlines()
    tokens = lines.pop(3)
    assert lines == [
        "Result: It is 21 °C in Tokyo, and the sky is clear.",
        "Finish reason: stop",
        "Total steps: 2",
        "Cost: unknown",
        "Tool: get_weather completed",
        "Input: {'city': 'Tokyo'}",
        "Output: {'city': 'Tokyo', 'celsius': 21, 'sky': 'clear'}",
    ]
    assert re.fullmatch(r"Tokens used: [1-9]\d*", tokens)


async def test_extract_prints_drafts_and_typed_data(address: str) -> None:
    lines = (await printed("examples.extract", address=address)).splitlines()
    assert lines[-4:] == [
        "2 x lamp at 45.50",
        "1 x oil at 9.00",
        "Lamp & Oil, 2026-05-02: 100.00",
        "__main__.Invoice after 2 model calls",
    ]
    assert lines[-5] == (
        "{'seller': 'Lamp & Oil', 'day': '2026-05-02', 'lines': ["
        "{'item': 'lamp', 'count': 2, 'price': 45.5}, {'item': 'oil', 'count': 1, 'price': 9.0}]}"
    )


async def test_error_handling_tells_each_failure(address: str) -> None:
    assert (await printed("examples.error_handling", address=address)).splitlines() == [
        "Let me see",
        "Error: There is no model 'no-such-model'. (model_not_found)",
        (
            "The run failed: There is no model 'no-such-model'. Another try will not help. "
            "It had said 'Let me see'."
        ),
        "Refused: There is no agent or workflow 'stranger'. Loaded: risky, storyteller, weather.",
    ]


async def test_approval_approves_changes_and_rejects() -> None:
    """It serves itself, so there is nobody at the address."""
    lines = (await printed("examples.approval", address="127.0.0.1:1")).splitlines()
    assert lines[0] == "asked: The agent has a question "
    shown = "asked: Approve the call of pay {'to': 'Ann', 'amount': 100.0, 'currency': 'EUR'}"
    assert shown in lines
    assert lines[-4] == "ask_user completed {'response': 'Ann and Mallory'}"
    assert sorted(lines[-3:-1]) == [  # in the order in which they end
        "pay completed Paid 50 EUR to Ann.",
        (
            "pay failed The user rejected the call of the tool pay. It was not called. "
            "The user's feedback: We do not know Mallory."
        ),
    ]
    assert lines[-1] == "Ann has got 50 EUR. Mallory has got nothing."


async def test_parallel_tools_start_before_the_first_has_ended() -> None:
    # It has a service of its own; nobody listens on this address.
    lines = (await printed("examples.parallel_tools", address="127.0.0.1:1")).splitlines()
    assert sorted(lines[:3]) == [f"step_start measure{one}" for one in ("", ":2", ":3")]
    assert sorted(lines[3:6]) == [f"step_finish measure{one}" for one in ("", ":2", ":3")]
    assert lines[6] == "All three are measured."
    assert re.fullmatch(r"All measurements, of 0.5 s each, took \d+\.\d s\.", lines[7])


async def test_many_streams_are_whole_and_of_different_runs(address: str) -> None:
    text = await printed("examples.many_streams", "30", address=address)
    assert re.fullmatch(rf"30 runs, {30 * len(STORY.split())} pieces of text, [\d.]+ s\n", text)


async def test_resume_neither_misses_nor_repeats_a_word(address: str) -> None:
    text = await printed("examples.resume", address=address)
    assert text == (
        "Every evening the keeper climbed\n[left after event 7]\n"
        + STORY.removeprefix("Every evening the keeper climbed")
        + "\n"
    )


async def test_relay_passes_streams_and_errors_on(address: str) -> None:
    async with program("examples.relay_service", "127.0.0.1:0", address=address) as relay:
        through = (await line_of(relay, "listens on")).split()[-1]
        assert through != address
        assert await printed("examples.relay_client", address=through) == (
            f"{STORY}\n[agent_finish after 34 events]\n"
        )
        assert await printed("examples.basic", address=through) == f"{ANSWER}\n"
        assert "Refused: There is no agent or workflow 'stranger'." in await printed(
            "examples.error_handling", address=through
        )
        assert "[left after event 7]" in await printed("examples.resume", address=through)


async def test_every_example_is_listed_and_short() -> None:
    readme = (ROOT / "examples" / "README.md").read_text()
    ours = [path for path in (ROOT / "examples").glob("*.py") if "demo" not in path.name]
    names = {path.stem for path in ours} - {"agents", "small_model"}
    assert set(re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE)) == names
    assert [path.name for path in ours if len(path.read_text().splitlines()) >= 80] == []
