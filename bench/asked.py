"""The providers of a checkout, asked alone: `python -m bench.asked CHECKOUT ADDRESS`.

Each line of the standard input is JSON: `{"provider", "api", "path", "tokens", "rate"}`. The line
that answers it has the CPU seconds of this process for each token, `{"seconds"}`, or says what the
checkout lacks, `{"lacks"}`. What the model says is dropped.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import uvloop
from pydantic import SecretStr

from bench.prompt import Prompt
from bench.revision import import_only_from

MODELS = "polos_service.models"


class Dropped:
    """Takes an answer and keeps nothing."""

    async def text(self, piece: str) -> None:
        """Take a piece of the text."""

    async def reasoning(self, piece: str) -> None:
        """Take a piece of the reasoning."""

    async def __call__(self, piece: str) -> None:
        """Take a piece of the text, as revisions before `Output` passed it on."""


class LacksError(Exception):
    """The checkout has no such provider or API."""


def made(provider: str, api: str | None, base_url: str) -> Any:
    """Return a provider of the checkout.

    Raises:
        LacksError: there is none of that name, or it has no such API.

    """
    if find_spec(f"{MODELS}.remote") is None:
        module = import_module(f"{MODELS}.openai")
        return module.OpenAI(base_url=base_url, api_key=SecretStr("none"))
    remote = import_module(f"{MODELS}.remote")
    try:
        presets = import_module(f"{MODELS}.{provider}.presets")
    except ModuleNotFoundError:
        raise LacksError(f"there is no provider {provider}") from None
    preset = getattr(presets, provider.upper())
    if api is not None and api not in preset.apis:
        raise LacksError(f"the provider {provider} has no API {api}")
    account = remote.Account(base_url=base_url, key=SecretStr("none"))
    return remote.Remote(preset, account)


def request_of(prompt: Prompt, api: str | None) -> Any:
    """Return the request of the prompt, in the form of the checkout."""
    models = import_module(MODELS)
    if find_spec(f"{MODELS}.messages") is None:
        said = {"role": "user", "content": str(prompt)}
        return models.ModelRequest(model="mock", messages=[said])
    messages = import_module(f"{MODELS}.messages")
    user = messages.Message(role="user", parts=(messages.Text(text=str(prompt)),))
    return models.ModelRequest(model="mock", messages=[user], api=api)


async def seconds_per_token(model: Any, api: str | None, prompt: Prompt) -> float:
    """Let the model answer; return the CPU seconds that a token took."""
    request = request_of(prompt, api)
    before = time.process_time()
    answer = await model.answer(request, Dropped())
    spent = time.process_time() - before
    assert answer.usage.output_tokens == prompt.tokens, "the answer is not whole"
    return spent / prompt.tokens


async def serve(address: str) -> None:
    """Answer each line of the standard input."""
    known: dict[tuple[str, str | None, str], Any] = {}
    while line := await asyncio.to_thread(sys.stdin.readline):
        wanted = json.loads(line)
        key = wanted["provider"], wanted["api"], wanted["path"]
        try:
            if key not in known:
                known[key] = made(*key[:2], f"http://{address}{key[2]}")
            prompt = Prompt(wanted["tokens"], wanted["rate"])
            told: dict[str, Any] = {"seconds": await seconds_per_token(known[key], key[1], prompt)}
        except LacksError as error:
            told = {"lacks": str(error)}
        print(json.dumps(told), flush=True)
    for model in known.values():
        await model.close()


if __name__ == "__main__":
    import_only_from(Path(sys.argv[1]))
    uvloop.run(serve(sys.argv[2]))
