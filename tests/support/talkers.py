"""Agents that programs in other languages talk to, and how such a program ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.access import BOOTSTRAP
from tests.support.process import PATIENCE, ServiceProcess
from tests.support.proxies import Authority

APP = """
from polos import Agent, scripted

talker = Agent("talker", "scripted", scripted.script(
    scripted.turn("Hello world", scripted.usage(input_tokens=1, output_tokens=2))
))
cut_off = Agent("cut-off", "scripted", scripted.script(
    scripted.turn("No", scripted.pause(), retried=["Yes."])
))
broken = Agent("broken", "scripted", scripted.script(
    scripted.turn(scripted.fail("model_not_found", "There is no model.", retryable=False))
))
"""


def write_app(folder: Path) -> Path:
    """Write the file of the agents, and return it."""
    path = folder / "app.py"
    path.write_text(APP)
    return path


async def end(program: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    """Wait for the program's end, and return exit code, output and errors."""
    output, errors = await asyncio.wait_for(program.communicate(), PATIENCE)
    return program.returncode, output.decode(), errors.decode()


WRONG = "polos_0123456789abcdef_" + "0" * 64
"""A key that no service has issued."""


class GuardedService(ServiceProcess):
    """`polos serve` of APP over TLS, to callers with a key.

    Attributes:
        caller: the variables of the environment of a program that may call it.

    """

    def __init__(self, folder: Path) -> None:
        """Keep everything in `folder`."""
        Authority().certify(folder, "polos", "localhost")
        tls = ("--tls-cert", f"{folder}/polos.pem", "--tls-key", f"{folder}/polos.key")
        super().__init__(write_app(folder), folder / "runs.db", *tls, POLOS_BOOTSTRAP_KEY=BOOTSTRAP)
        self.caller = {
            "POLOS_ADDRESS": f"localhost:{self.port}",
            "POLOS_API_KEY": BOOTSTRAP,
            "POLOS_TLS": f"{folder}/authority.pem",
        }
