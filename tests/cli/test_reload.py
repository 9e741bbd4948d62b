"""`polos serve --reload`: the service starts anew when its code changes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polos_service.cli.imported import Importer, answer_in_thread
from tests.cli.commands import Cli, write_app
from tests.support.process import PATIENCE, POLOS, environment, until

MORE = 'more = agent("more", "I am new.")\n'


class Reloading:
    """`polos serve --reload` and what it prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.lines: list[str] = []
        self.process = process
        self._reading = asyncio.create_task(self._read())

    @property
    def cli(self) -> Cli:
        """The command, at the address that was said first."""
        said = re.search(r" listens on (\S+)", "\n".join(self.lines))
        assert said is not None
        return Cli(said[1])

    async def said(self, text: str, times: int = 1) -> None:
        """Wait until so many lines have the text."""
        await until(lambda: sum(text in line for line in self.lines) >= times, text)

    async def ended(self) -> int:
        """Wait for the end of the process and of what it prints, and return the exit code."""
        async with asyncio.timeout(PATIENCE):
            await self._reading  # ends when no child has standard output any more either
            return await self.process.wait()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode().rstrip("\n"))


@pytest.fixture
async def app(tmp_path: Path) -> Path:
    return write_app(tmp_path)


@pytest.fixture
async def reloading(app: Path) -> AsyncIterator[Reloading]:
    process = await asyncio.create_subprocess_exec(
        *(POLOS, "serve", app, "--reload", "--listen", "127.0.0.1:0"),
        *("--store", f"sqlite://{app.with_name('runs.db')}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(),
    )
    started = Reloading(process)
    try:
        await started.said(" listens on ")
        yield started
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await started.ended()


def append(app: Path, text: str) -> None:
    """Save the app with more in it."""
    app.write_text(app.read_text() + text)


async def test_an_edit_is_served_at_the_same_address(reloading: Reloading, app: Path) -> None:
    cli = reloading.cli
    append(app, MORE)
    await reloading.said("agent more (scripted", 1)
    assert (await cli("run", "more", "Who are you?")).out == "I am new.\n"


async def test_only_a_file_that_is_imported_restarts_and_is_named(
    reloading: Reloading, app: Path
) -> None:
    (tried := app.with_name("tried.py")).write_text("")
    (app.parent / "more").mkdir()
    (app.parent / "more" / "words.py").write_text('WORDS = "I am new."\n')
    append(app, 'from more.words import WORDS\nmore = agent("more", WORDS)\n')
    await reloading.said("app.py has changed: restarting.")
    await reloading.said("agent more (scripted")
    tried.write_text("import nothing\n")
    (app.parent / "more" / "words.py").write_text('WORDS = "I am newer."\n')
    await reloading.said("agent more (scripted", 2)
    changes = [line for line in reloading.lines if line.endswith("has changed: restarting.")]
    assert [Path(line.split()[0]).name for line in changes] == ["app.py", "words.py"]
    assert (await reloading.cli("run", "more", "Who are you?")).out == "I am newer.\n"


async def test_a_broken_edit_is_told_and_the_next_one_is_served(
    reloading: Reloading, app: Path
) -> None:
    append(app, "nothing = there_is_no_such_name\n")
    await reloading.said("It restarts after the next change.")
    trace = reloading.lines[reloading.lines.index("Traceback (most recent call last):") :]
    assert trace[1].startswith(f'  File "{app}", line ')
    assert "NameError: name 'there_is_no_such_name' is not defined" in trace
    assert not any("polos_service" in line for line in trace)
    append(write_app(app.parent), MORE)
    await reloading.said("agent more (scripted")


async def test_an_unfinished_run_goes_on_after_an_edit(reloading: Reloading, app: Path) -> None:
    run = await reloading.cli.start("run", "gated", "Go.", "--json")
    assert run.stdout is not None
    while b'"step_type": "tool"' not in (await run.stdout.readline()):
        assert not run.stdout.at_eof()
    await until(app.with_name("waiting").exists, "the tool waits")
    app.with_name("open").touch()
    append(app, MORE)
    rest, err = await run.communicate()
    assert run.returncode == 0
    assert set(err.splitlines()) <= {b"Connection lost, trying again.", b"Connected again."}
    assert [json.loads(line)["event_type"] for line in rest.splitlines()][-1] == "agent_finish"
    assert b'"step_retry"' in rest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_both_processes(reloading: Reloading, number: signal.Signals) -> None:
    reloading.process.send_signal(number)
    assert await reloading.ended() == 0
    assert any(line.startswith("Stopping.") for line in reloading.lines)


async def test_a_service_says_which_files_it_has_imported() -> None:
    importer = Importer()
    answer_in_thread(os.dup(importer.child_end))
    importer.started()
    assert await importer.has_imported(["/nowhere.py", os.__file__]) == [os.__file__]
    assert await importer.has_imported(["/nowhere.py"]) == []
    importer.close()


async def test_a_service_that_is_gone_may_have_imported_everything() -> None:
    importer = Importer()
    importer.started()
    assert await importer.has_imported(["/nowhere.py"]) == ["/nowhere.py"]
    importer.close()
