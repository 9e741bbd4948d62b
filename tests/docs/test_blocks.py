"""Every Python block of the documentation runs, and prints what the page says."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polos import PolosClient
from tests.docs.obliging import weather_service
from tests.docs.pages import PAGES, ROOT, Block, blocks, blocks_of, write_files
from tests.support.process import PATIENCE, environment


class Session:
    """What a reader does who runs a page's blocks one after the other."""

    def __init__(self, page: Path, folder: Path, env: dict[str, str]) -> None:
        self._page = page
        self._folder = folder
        self._env = env
        self._names: dict[str, Any] = {"__name__": "__main__", "PAGE": page.read_text()}

    async def run(self, block: Block, capsys: pytest.CaptureFixture[str]) -> str:
        """Run a block and return what it printed."""
        capsys.readouterr()
        if block.file is None:
            await self._execute(block)
        elif block.is_program:
            return await self._program(block.file)
        else:
            module = importlib.import_module(block.file.removesuffix(".py"))
            self._names |= {k: v for k, v in vars(module).items() if not k.startswith("_")}
        return capsys.readouterr().out

    async def close(self) -> None:
        """Close the clients that the blocks made."""
        for value in self._names.values():
            if isinstance(value, PolosClient):
                await value.close()

    async def _execute(self, block: Block) -> None:
        source = "\n" * (block.line - 1) + block.code
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(source, self._page, "exec", flags=flags, dont_inherit=True)
        async with asyncio.timeout(PATIENCE):
            if code.co_flags & inspect.CO_COROUTINE:
                await eval(code, self._names)
            else:  # it may block, and the provider works in this loop
                await asyncio.to_thread(eval, code, self._names)

    async def _program(self, name: str) -> str:
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", self._folder / name),
            env=environment(**self._env),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(running.communicate(), PATIENCE)
        assert running.returncode == 0
        return output.decode()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder whose modules can be imported, and are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks_of(page, "python")],
    ids=lambda page: str(page.relative_to(ROOT)),
)
async def test_blocks_of_page_run_and_print_what_it_says(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(page, folder)
    async with weather_service(folder) as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        session = Session(page, folder, env)
        try:
            for block in blocks_of(page, "python"):
                printed = await session.run(block, capsys)
                if block.prints is not None:
                    assert printed.rstrip("\n") == block.prints.rstrip("\n"), f"line {block.line}"
        finally:
            await session.close()


def test_blocks_are_found_with_their_lines_and_output() -> None:
    shown = (
        "# A page\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n<!-- python\nassert x\n-->\n"
    )
    python, text, hidden = blocks(shown)
    assert (python.code, python.line, python.prints) == ("print(1)\n", 4, "1\n")
    assert (text.language, text.prints) == ("text", None)
    assert (hidden.code, hidden.line, hidden.hidden) == ("assert x\n", 12, True)


def test_documentation_shows_the_program_in_javascript() -> None:
    (shown,) = blocks_of(ROOT / "docs" / "other-languages.md", "js")
    assert shown.code == (ROOT / "examples" / "node" / "run.js").read_text()
