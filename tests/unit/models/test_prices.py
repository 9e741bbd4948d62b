"""An operator's own prices: which entry counts, what it comes to, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from polos.v1.event_pb2 import Usage
from polos_service.models.configured import ProviderConfig
from polos_service.models.openai.presets import PRESETS
from polos_service.models.prices import MAX_BYTES, Prices, PricesInvalidError
from polos_service.models.remote import Remote
from tests.support.mock_answers import finish, say, tokens
from tests.support.mock_provider import MockProvider
from tests.support.models import ask

HERE = "http://127.0.0.1:11434/v1"
MILLION = Usage(input_tokens=1_000_000, output_tokens=1_000_000, total_tokens=2_000_000)
FULL = {"model": "m", "input": 1, "output": 5, "cached_input": 0.1, "cache_write": 1.25}


def load(folder: Path, *entries: Any) -> Prices:
    path = folder / "prices.json"
    path.write_text(json.dumps(entries))
    return Prices.load(path)


def micros(
    prices: Prices,
    usage: Usage = MILLION,
    model: str = "m",
    provider: str = "ollama",
    base_url: str = HERE,
) -> int | None:
    found = prices.cost(usage, model, provider, base_url)
    return None if found is None else found.usd_micros


def test_a_million_tokens_cost_what_the_entry_says(tmp_path: Path) -> None:
    assert micros(load(tmp_path, {"model": "m", "input": 0.15, "output": 0.6})) == 750_000


def test_cached_tokens_have_prices_of_their_own(tmp_path: Path) -> None:
    used = Usage(
        input_tokens=1000,
        output_tokens=100,
        cache_read_input_tokens=400,
        cache_creation_input_tokens=200,
        reasoning_tokens=60,
    )
    assert micros(load(tmp_path, FULL), used) == 400 + 40 + 250 + 500
    plain = {name: FULL[name] for name in ("model", "input", "output")}
    assert micros(load(tmp_path, plain), used) == 1000 + 500


def test_a_price_may_be_0_and_what_no_entry_is_for_is_unknown(tmp_path: Path) -> None:
    prices = load(tmp_path, {"model": "m", "input": 0, "output": 0})
    assert micros(prices) == 0
    assert micros(prices, model="n") is None
    assert micros(Prices()) is None


def test_counts_that_contradict_each_other_have_an_unknown_cost(tmp_path: Path) -> None:
    used = Usage(input_tokens=10, cache_read_input_tokens=20)
    assert micros(load(tmp_path, FULL), used) is None


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, 1),
        ({"provider": "vllm"}, 2),
        ({"base_url": "http://gpu:8000/v1"}, 3),
        ({"base_url": "http://gpu:8000/v1", "provider": "vllm"}, 4),
        ({"base_url": "http://gpu:8000/v1/own"}, 5),
        ({"base_url": "http://gpu:80/v1"}, 1),
        ({"model": "other"}, 6),
        ({"model": "other", "base_url": "http://gpu:8000"}, 7),
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_the_most_exact_entry_counts_wherever_it_stands(
    tmp_path: Path, asked: dict[str, str], expected: int, *, backwards: bool
) -> None:
    scopes: list[dict[str, str]] = [
        {"model": "m"},
        {"model": "m", "provider": "vllm"},
        {"model": "m", "base_url": "http://gpu:8000"},
        {"model": "m", "base_url": "http://gpu:8000/", "provider": "vllm"},
        {"model": "m", "base_url": "http://gpu:8000/v1/own"},
        {"model": "*"},
        {"model": "*", "base_url": "http://gpu:8000/"},
    ]
    entries = [{**one, "input": n, "output": 0} for n, one in enumerate(scopes, 1)]
    prices = load(tmp_path, *(reversed(entries) if backwards else entries))
    one = Usage(input_tokens=1)
    assert micros(prices, one, **asked) == expected


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ([{"model": "m", "input": 1}], "entry 1 (m): output is missing"),
        ([FULL, {**FULL, "model": "n", "output": -1}], "entry 2 (n): output is -1; it should be "),
        ([{**FULL, "output": "much"}], "entry 1 (m): output is 'much'; "),
        ([{**FULL, "output": float("nan")}], "entry 1 (m): output is nan; "),
        ([{**FULL, "output": 1e9}], "entry 1 (m): output is "),
        ([{**FULL, "output": True}], "entry 1 (m): output is True; "),
        ([{**FULL, "outptu": 1}], "entry 1 (m): outptu is unknown; an entry has model, "),
        ([{**FULL, "model": ""}], "entry 1 (): model is ''; "),
        ([{**FULL, "provider": 5}], "entry 1 (m): provider is 5; "),
        ([{**FULL, "base_url": "localhost:8000"}], "entry 1 (m): base_url does not start with "),
        (["m"], "entry 1: is not an object, as "),
        ([FULL, {**FULL, "input": 2}], "entry 2 (m) is for the same calls as entry 1"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named(
    tmp_path: Path, entries: list[Any], what: str
) -> None:
    with pytest.raises(PricesInvalidError) as raised:
        load(tmp_path, *entries)
    assert str(raised.value).startswith(what)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is not valid JSON: "),
        (b"\xff", "is not valid JSON: "),
        (b"[" * 100_000, "is not valid JSON: "),
        (b'{"m": {"input": 1}}', "is not a list of entries, as "),
        (b" " * (MAX_BYTES + 1), f"exceeds {MAX_BYTES} bytes"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes | None, what: str
) -> None:
    path = tmp_path / "prices.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PricesInvalidError) as raised:
        Prices.load(path)
    assert str(raised.value).startswith(f"{path} {what}")


async def test_an_answer_costs_what_the_file_says_before_the_list_is_asked(
    tmp_path: Path, provider: MockProvider
) -> None:
    prices = load(
        tmp_path,
        {"model": "gpt-4o-mini", "input": 1, "output": 2},
        {"model": "free", "input": 0, "output": 0},
    )
    environment = {"GROQ_BASE_URL": provider.url}
    config = ProviderConfig(environment=environment, prices=prices)
    model = Remote(PRESETS["groq"], config.account(PRESETS["groq"]))
    costs = []
    for name in ("gpt-4o-mini", "free", "llama-3.3-70b-versatile", "of-nobody"):
        provider.reply(say("x"), finish(usage=tokens(1000, 10)))
        answer, _ = await ask(model, model=name)
        costs.append(None if answer.cost is None else answer.cost.usd_micros)
    await model.close()
    # Those of the file; that of groq, though at an address that the list does not know; none.
    assert costs == [1020, 0, 598, None]


async def test_another_server_of_the_api_of_openai_has_no_listed_price(
    provider: MockProvider,
) -> None:
    provider.reply(say("x"), finish(usage=tokens(1000, 10)))
    config = ProviderConfig(environment={"OPENAI_BASE_URL": provider.url})
    model = Remote(PRESETS["openai"], config.account(PRESETS["openai"]))
    answer, _ = await ask(model, model="gpt-4o-mini")
    await model.close()
    assert answer.cost is None


@pytest.mark.parametrize(("model", "known"), [("m", True), ("another", False)])
def test_whether_a_price_is_known_is_told_before_a_call(
    tmp_path: Path, model: str, *, known: bool
) -> None:
    config = ProviderConfig(environment={"OPENAI_BASE_URL": HERE}, prices=load(tmp_path, FULL))
    remote = Remote(PRESETS["openai"], config.account(PRESETS["openai"]))
    assert remote.priced(model, None) is known
