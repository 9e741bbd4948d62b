"""LLMock: a mock of many providers in a process of its own, and what it is told to do wrong.

What it does is decided per model: each test, and each run of a test, asks for a model of its own.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.process import environment

Behavior = dict[str, Any]
"""What a request meets, as LLMock's `POST /_llmock/scenario` takes it."""


def reply(text: str | None = None, *calls: tuple[str, dict[str, Any]], **more: Any) -> Behavior:
    """The model says this, or calls these tools."""
    named = [{"name": name, "arguments": arguments} for name, arguments in calls]
    return {"type": "reply", "text": text, "tool_calls": named, **more}


def fail(status: int, **more: Any) -> Behavior:
    """The provider answers with a status."""
    return {"type": "fail", "status": status, **more}


def fault(kind: str, after: int, **more: Any) -> Behavior:
    """The stream breaks instead of its event number `after`, counted from 0."""
    return {"type": "stream_fault", "kind": kind, "after_chunks": after, **more}


class LLMock:
    """The running process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._numbers = itertools.count(1)

    def model(self, *behaviors: Behavior) -> str:
        """Return the name of a new model, whose requests meet these."""
        name = f"model-{next(self._numbers)}"
        if behaviors:
            told = [one | {"match": {"model": name}} for one in behaviors]
            self._call("POST", "scenario", {"behaviors": told})
        return name

    def requests(self, model: str) -> list[dict[str, Any]]:
        """Return what LLMock wrote down of each request for the model."""
        told = self._call("GET", "requests")["requests"]
        return [one for one in told if one["model"] == model]

    def findings(self, model: str) -> list[str]:
        """Return what LLMock finds wrong with how the model was asked."""
        numbers = {one["seq"] for one in self.requests(model)}
        found = self._call("GET", "verdict")["findings"]
        return [one["code"] for one in found if numbers.intersection(one["requests"])]

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.url}/_llmock/{path}"
        request = urllib.request.Request(url, data, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)


@contextmanager
def llmock(*options: str) -> Iterator[LLMock]:
    """Run LLMock for as long as the block."""
    with subprocess.Popen(
        [sys.executable, "-c", "from llmock.cli import app; app()", "serve", "--port=0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(NO_COLOR="1"),
    ) as process:
        try:
            url = _listening(process)
            # What it prints is read on: it would wait for a reader once the pipe is full.
            assert process.stdout is not None
            threading.Thread(target=process.stdout.read).start()
            yield LLMock(url)
        finally:
            process.kill()


def _listening(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if found := re.search(r"running on (http://\S+)", line):
            return found[1]
    raise AssertionError("LLMock ended without listening:\n" + "".join(printed))
