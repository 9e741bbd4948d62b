"""A service that cannot start: what it says, its exit code, and what is left of the store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chaos.process import free_port
from polos_client.calls.client import PolosClient
from polos_client.errors import DefinitionError, StoreUnavailable
from polos_service.listening import ListenError
from polos_service.models.built_in import BUILT_IN
from polos_service.models.openai.presets import OPENAI
from polos_service.outlet import STOPPING
from polos_service.server import Service
from tests.failures.scene import contents
from tests.support.process import PATIENCE, POLOS, ServiceProcess, environment, until
from tests.support.service import scripted, serving, settings_for

FINE = scripted("fine", id="fine")
TWIN = scripted("other", id="fine")

HEAD = "from polos import Agent, scripted, tool\n\n"
GOOD = HEAD + 'fine = Agent("fine", "scripted", scripted.script("fine"))\n'
TWINS = GOOD + 'twin = Agent("fine", "scripted", scripted.script("other"))\n'
NO_TOOL = HEAD + (
    "def add(a: int) -> int:\n"
    "    return a\n\n"
    'adder = Agent("adder", "scripted", scripted.script("fine"), tools=[add])\n'
)
NO_SUCH_TOOL = HEAD + 'adder = Agent("adder", "openai", "mock", tools=[missing])\n'
NO_MODULE = "import no_such_package_anywhere\n" + GOOD
RAISES = "def configure():\n    raise RuntimeError('no settings')\n\n\nconfigure()\n" + GOOD
NO_PROVIDER = GOOD + 'clever = Agent("clever", "opnai", "m")\n'
NO_API = GOOD + 'clever = Agent("clever", "openai", "m", provider_llm_api="response")\n'
NO_PYTHON = "def (:\n"


@dataclass(frozen=True)
class App:
    """An app that cannot be served; {app} in what is said is its file's path."""

    text: str
    says: tuple[str, ...]


NEAR_API = " (did you mean 'responses'?)" if "responses" in OPENAI.apis else ""

TRACE = ("Error: app.py cannot be loaded.", "Traceback (most recent call last):")
APPS = {
    "imports what is not there": App(
        NO_MODULE,
        (
            *TRACE,
            '  File "{app}", line 1, in <module>',
            "    import no_such_package_anywhere",
            "ModuleNotFoundError: No module named 'no_such_package_anywhere'",
        ),
    ),
    "raises": App(
        RAISES,
        (
            *TRACE,
            '  File "{app}", line 5, in <module>',
            "    configure()",
            '  File "{app}", line 2, in configure',
            "    raise RuntimeError('no settings')",
            "RuntimeError: no settings",
        ),
    ),
    "no Python": App(
        NO_PYTHON,
        (
            TRACE[0],
            '  File "{app}", line 1',
            "    def (:",
            "SyntaxError: invalid syntax",
        ),
    ),
    "a name that is not defined as tool": App(
        NO_SUCH_TOOL,
        (
            *TRACE,
            '  File "{app}", line 3, in <module>',
            '    adder = Agent("adder", "openai", "mock", tools=[missing])',
            "NameError: name 'missing' is not defined",
        ),
    ),
    "two agents with one id": App(
        TWINS, ("Error: Two agents have the id 'fine'. Give one of them another id.",)
    ),
    "an API that the provider does not have": App(
        NO_API,
        (
            (
                "Error: The agent 'clever': the provider 'openai' has no provider_llm_api "
                f"'response'{NEAR_API}; it has {', '.join(OPENAI.apis)}."
            ),
        ),
    ),
    "a provider that does not exist": App(
        NO_PROVIDER,
        (
            (
                "Error: The agent 'clever': there is no provider 'opnai' (did you mean 'openai'?); "
                f"there are {', '.join(sorted(BUILT_IN))}."
            ),
        ),
    ),
    "no agent": App(
        "x = 1\n",
        (
            (
                "Error: app.py does not define an agent or a workflow. Define one at the top "
                "level: agent = Agent(id=..., provider=..., model=...), or a function with "
                "@workflow."
            ),
        ),
    ),
}


@pytest.mark.parametrize("name", APPS)
def test_an_app_that_cannot_be_served_says_why_and_leaves_the_store_alone(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "app.py").write_text(APPS[name].text)
    done = serve(tmp_path)
    said = [line for line in done.stderr.splitlines() if line.strip(" ~^")]  # no underlining
    assert (done.returncode, done.stdout) == (1, "")
    assert said == [line.format(app=tmp_path / "app.py") for line in APPS[name].says]
    if (tmp_path / "runs.db").exists():
        assert not any(contents(tmp_path / "runs.db").values())


def test_an_agent_whose_tool_is_none_is_told_where_it_is_defined(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(NO_TOOL)
    done = serve(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    first, *_ = done.stderr.splitlines()
    assert first == "Error: app.py cannot be loaded."
    assert f'File "{tmp_path}/app.py", line 6, in <module>' in done.stderr
    assert "is a plain function: put @tool on it" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "runs.db").exists()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('[{"model": "m", "input": 1}]', "entry 1 (m): output is missing"),
        ("{", "{path} is not valid JSON: "),
    ],
)
def test_prices_that_cannot_be_used_stop_the_start(tmp_path: Path, content: str, what: str) -> None:
    (tmp_path / "app.py").write_text(GOOD)
    path = tmp_path / "prices.json"
    path.write_text(content)
    done = serve(tmp_path, POLOS_PRICES=str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "Error: POLOS_PRICES (prices): " + what.replace("{path}", f"{path}")
    )


def test_a_variable_of_a_provider_that_cannot_be_used_stops_those_who_use_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text(HEAD + 'far = Agent("far", "groq", "m")\n')
    done = serve(tmp_path, GROQ_BASE_URL="api.groq.com", GROQ_API_KEY="secret")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: GROQ_BASE_URL: does not start with http:// or https://\n"


async def test_two_agents_with_one_id_leave_the_runs_of_before_as_they_are(tmp_path: Path) -> None:
    before = await with_a_run(tmp_path)
    with pytest.raises(DefinitionError) as raised:
        await Service.start(settings_for(tmp_path), [FINE, TWIN])
    assert str(raised.value) == "Two agents have the id 'fine'. Give one of them another id."
    await assert_usable(tmp_path, before)


async def test_a_port_in_use_is_named_and_leaves_the_runs_of_before_as_they_are(
    tmp_path: Path,
) -> None:
    before = await with_a_run(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError) as raised:
            await Service.start(settings_for(tmp_path, listen=address), [FINE])
    assert str(raised.value) == (
        f"Cannot listen on {address}: the port is in use. Stop the program that uses it, or choose "
        "another one (--listen, POLOS_LISTEN)."
    )
    await assert_usable(tmp_path, before)


async def test_a_store_of_another_process_is_named_and_that_one_goes_on(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(GOOD)
    async with ServiceProcess(app, tmp_path / "runs.db") as owner:
        with pytest.raises(StoreUnavailable) as raised:
            await Service.start(settings_for(tmp_path), [FINE])
        assert str(raised.value) == (
            f"The store {tmp_path}/runs.db is in use by another process. Stop that one, or give "
            "this one a store of its own (--store, POLOS_STORE)."
        )
        async with PolosClient(owner.address) as client:
            assert (await FINE.run(client, "Go.")).result == "fine"


async def test_a_store_that_another_process_has_left_by_force_is_taken_up(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(GOOD)
    async with ServiceProcess(app, tmp_path / "runs.db") as owner:
        async with PolosClient(owner.address) as client:
            result = await FINE.run(client, "Go.")
        await owner.kill()
    async with serving(tmp_path, FINE) as served:
        events = await served.events(result.agent_run_id)
        assert events[-1].agent_finish.result == "fine"


@pytest.mark.parametrize("what", ["folder", "file"])
async def test_a_store_that_is_not_writable_is_named_and_stays_as_it_is(what: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # that of pytest is closed to other users
        folder = Path(name)
        before = await with_a_run(folder)
        protect(folder, what)
        with unprivileged(), pytest.raises(StoreUnavailable) as raised:
            await Service.start(settings_for(folder), [FINE])
        assert str(raised.value).startswith(f"The store {folder}/runs.db cannot be opened: ")
        assert str(raised.value).endswith(NOT_WRITABLE[what].format(store=folder / "runs.db"))
        unprotect(folder)
        await assert_usable(folder, before)


def protect(folder: Path, what: str) -> None:
    """Take away the right to write into the folder, or into the file in it."""
    if what == "folder":
        folder.chmod(0o555)
        return
    folder.chmod(0o777)
    (folder / "runs.db").chmod(0o444)
    (folder / "runs.db.lock").unlink()


def unprotect(folder: Path) -> None:
    """Give everybody every right to the store."""
    folder.chmod(0o777)
    (folder / "runs.db").chmod(0o666)


NOT_WRITABLE = {
    "folder": "[Errno 13] Permission denied: '{store}.lock'.",
    "file": "attempt to write a readonly database.",
}


async def with_a_run(folder: Path) -> object:
    """Make a store that has a run, and return its contents."""
    async with serving(folder, FINE) as served:
        await FINE.run(served.client, "Go.")
    return contents(folder / "runs.db")


async def assert_usable(folder: Path, before: object) -> None:
    """Assert that the store is what it was, and that a service starts on it."""
    assert contents(folder / "runs.db") == before
    async with serving(folder, FINE) as served:
        assert (await FINE.run(served.client, "Go.")).result == "fine"


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a while, if we are root, to whom every file is writable."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def serve(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `polos serve app.py` in the folder to its end, which must come."""
    return subprocess.run(
        [POLOS, "serve", "app.py", "--listen", "127.0.0.1:0"],
        env=environment(POLOS_STORE=f"sqlite://{folder}/runs.db", **variables),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


async def test_the_banner_names_an_agent_that_is_no_tool_of_another(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(GOOD + 'lead = Agent("lead", "scripted", scripted.script("x"), tools=[fine])\n')
    async with ServiceProcess(app, tmp_path / "runs.db") as service:
        await until(lambda: "Try it:" in service.output, "the banner")
        assert f"Try it: polos run lead Hello --address {service.address}" in service.lines


async def test_the_banner_says_what_to_try_and_a_misspelt_variable_is_named(
    tmp_path: Path,
) -> None:
    app = tmp_path / "app.py"
    app.write_text(GOOD)
    more = tmp_path / "more.py"
    more.write_text(HEAD + 'other = Agent("other", "scripted", scripted.script("other"))\n')
    variables = {"POLOS_STOR": "x", "POLOS_LOG_FORMAT": "json"}
    async with ServiceProcess(app, tmp_path / "runs.db", str(more), **variables) as service:
        await until(lambda: "Try it:" in service.output, "the banner")
        assert f"Try it: polos run fine Hello --address {service.address}" in service.lines
        assert "  agent other (scripted; no tools)" in service.lines
        (told,) = [json.loads(line) for line in service.lines if "POLOS_STOR" in line]
        assert told["variable"] == "POLOS_STOR"
        assert told["advice"] == "did you mean POLOS_STORE?"


async def test_standard_error_has_the_log_only_and_the_command_to_try_has_a_name_for_all_addresses(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text(GOOD)
    serving = await asyncio.create_subprocess_exec(
        *(POLOS, "serve", "app.py", "--listen", f"0.0.0.0:{free_port()}", "--insecure"),
        env=environment(POLOS_STORE=f"sqlite://{tmp_path}/runs.db", POLOS_LOG_FORMAT="json"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert serving.stdout is not None
    async with asyncio.timeout(PATIENCE):
        banner = [await serving.stdout.readline()]
        while not banner[-1].startswith(b"Try it:"):
            banner.append(await serving.stdout.readline())
            assert banner[-1], "the service ended"
        serving.terminate()
        out, err = await serving.communicate()
    port = banner[0].decode().strip().rpartition(":")[2]
    assert banner[-1].decode() == f"Try it: polos run fine Hello --address localhost:{port}\n"
    assert out.decode() == f"{STOPPING}\n"
    events = [json.loads(line)["event"] for line in err.splitlines()]
    warnings = ["listens_in_plaintext", "listens_beyond_this_machine"]
    assert events == [*warnings, "service_started", "service_stopping", "service_stopped"]
