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


def made(provider: str, api: str | None) -> Any:
    """Return a provider of the checkout.

    Raises:
        LacksError: there is none of that name, or it has no such API.

    """
    if find_spec(f"{MODELS}.built_in") is None:
        return import_module(f"{MODELS}.openai").OpenAI()
    factory = import_module(f"{MODELS}.built_in").BUILT_IN.get(provider)
    if factory is None:
        raise LacksError(f"there is no provider {provider}")
    model = factory(import_module(f"{MODELS}.configured").ProviderConfig())
    if api is not None and api not in model.apis:
        raise LacksError(f"the provider {provider} has no API {api}")
    return model


def request_of(prompt: Prompt, base_url: str, api: str | None) -> Any:
    """Return the request of the prompt, in the form of the checkout."""
    request = import_module(MODELS).ModelRequest
    if find_spec(f"{MODELS}.messages") is None:
        said = {"role": "user", "content": str(prompt)}
        return request(model="mock", messages=[said], base_url=base_url)
    messages = import_module(f"{MODELS}.messages")
    user = messages.Message(role="user", parts=(messages.Text(text=str(prompt)),))
    return request(model="mock", messages=[user], base_url=base_url, api=api)


async def seconds_per_token(model: Any, request: Any, tokens: int) -> float:
    """Let the model answer; return the CPU seconds that a token took."""
    before = time.process_time()
    answer = await model.answer(request, Dropped())
    spent = time.process_time() - before
    assert answer.usage.output_tokens == tokens, "the answer is not whole"
    return spent / tokens


async def serve(address: str) -> None:
    """Answer each line of the standard input."""
    known: dict[tuple[str, str | None], Any] = {}
    while line := await asyncio.to_thread(sys.stdin.readline):
        wanted = json.loads(line)
        key = wanted["provider"], wanted["api"]
        try:
            if key not in known:
                known[key] = made(*key)
            prompt = Prompt(wanted["tokens"], wanted["rate"])
            request = request_of(prompt, f"http://{address}{wanted['path']}", wanted["api"])
            seconds = await seconds_per_token(known[key], request, prompt.tokens)
            told: dict[str, Any] = {"seconds": seconds}
        except LacksError as error:
            told = {"lacks": str(error)}
        print(json.dumps(told), flush=True)
    for model in known.values():
        await model.close()


if __name__ == "__main__":
    import_only_from(Path(sys.argv[1]))
    uvloop.run(serve(sys.argv[2]))
