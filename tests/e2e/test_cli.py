"""The command `polos`: what it says, where, and with which exit code."""

from __future__ import annotations

import socket
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.process import PATIENCE, POLOS, ServiceProcess, environment

AGENT = """
from polos import Agent, scripted, tool

@tool(description="Add")
def add(a: int, b: int) -> int:
    return a + b

helper = Agent("helper", "scripted", scripted.script("Hi"), tools=[add])
same_again = helper
"""
TWINS = AGENT + 'twin = Agent("helper", "scripted", scripted.script("Ho"))\n'
RAISES = "def configure():\n    raise RuntimeError('no settings')\n\nconfigure()\n"
NOT_PYTHON = "def (:\n"
IMPORTS_WHAT_IS_NOT_THERE = "import no_such_package_anywhere\n"


def polos(
    folder: Path, *arguments: str, listen: str = "127.0.0.1:0", **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in the folder until it ends, which it must."""
    return subprocess.run(
        [POLOS, *arguments],
        env=environment(
            **{"POLOS_LISTEN": listen, "POLOS_STORE": f"sqlite://{folder}/runs.db", **env}
        ),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def assert_one_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Assert that the command failed with one line on standard error that has these words."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("Error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    done = polos(tmp_path, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"polos {version('polos-grpc')}\n",
        "",
    )


async def test_serve_says_where_it_listens_what_it_serves_and_where_it_stores(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text(AGENT)
    quiet = {"POLOS_LOG_LEVEL": "warning"}
    async with ServiceProcess(tmp_path / "app.py", tmp_path / "runs.db", **quiet) as service:
        pass
    assert service.lines == [
        f"polos {version('polos-grpc')} listens on 127.0.0.1:{service.port}",
        "  agent helper (scripted; add)",
        f"  store sqlite://{tmp_path}/runs.db",
        f"Try it: polos run helper Hello --address {service.address}",
    ]
    assert (tmp_path / "runs.db").exists()


async def test_a_module_is_served_from_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "agents.py").write_text(AGENT)
    async with ServiceProcess("package.agents", tmp_path / "runs.db", cwd=tmp_path) as service:
        await service.said("^  agent helper ")


async def test_a_file_imports_what_stands_beside_it(tmp_path: Path) -> None:
    (tmp_path / "shared_prompt.py").write_text('PROMPT = "Be brief."\n')
    (tmp_path / "app.py").write_text("from shared_prompt import PROMPT\n" + AGENT)
    async with ServiceProcess(tmp_path / "app.py", tmp_path / "runs.db", cwd=Path("/")) as service:
        await service.said("^  agent helper ")


async def test_variables_choose_address_and_store_and_arguments_win(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(AGENT)
    env = {"POLOS_LISTEN": "nonsense", "POLOS_STORE": "nonsense"}
    async with ServiceProcess(tmp_path / "app.py", tmp_path / "runs.db", **env) as service:
        assert f"  store sqlite://{tmp_path}/runs.db" in service.lines
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = polos(tmp_path, "serve", "app.py", listen=address)
    assert address in done.stderr
    done = polos(tmp_path, "serve", "app.py", POLOS_STORE="sqlite:///")
    assert "'sqlite:///'" in done.stderr


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert_one_sentence(polos(tmp_path, "serve", "nowhere/app.py"), "nowhere/app.py", str(tmp_path))


@pytest.mark.parametrize("name", ["nowhere", "package.nowhere", "app.txt"])
def test_a_module_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "package").mkdir()
    assert_one_sentence(polos(tmp_path, "serve", name), repr(name), ".py")


@pytest.mark.parametrize("name", ["", ".app", "package..app", "/package"])
def test_what_is_neither_a_file_nor_a_module_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "package").mkdir()
    assert_one_sentence(polos(tmp_path, "serve", name), repr(name))


@pytest.mark.parametrize("name", ["./package", "package/"])
def test_a_package_without_agents_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "package").mkdir()
    assert_one_sentence(polos(tmp_path, "serve", name), name, "Agent(")


def test_a_folder_that_cannot_be_a_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my-app").mkdir()
    assert_one_sentence(polos(tmp_path, "serve", "my-app"), "my-app", "polos serve my-app/*.py")


def test_a_module_without_agents_is_refused(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("x = 1\n")
    assert_one_sentence(polos(tmp_path, "serve", "app.py"), "app.py", "Agent(")


def test_two_agents_with_one_id_are_refused(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(TWINS)
    assert_one_sentence(polos(tmp_path, "serve", "app.py"), "'helper'")


@pytest.mark.parametrize(
    ("text", "last"),
    [
        (RAISES, "RuntimeError: no settings"),
        (NOT_PYTHON, "SyntaxError: invalid syntax"),
        (
            IMPORTS_WHAT_IS_NOT_THERE,
            "ModuleNotFoundError: No module named 'no_such_package_anywhere'",
        ),
    ],
    ids=["raises", "no Python", "imports what is not there"],
)
@pytest.mark.parametrize("target", ["app.py", "app"])
def test_a_module_that_raises_shows_its_own_traceback_and_none_of_ours(
    tmp_path: Path, target: str, text: str, last: str
) -> None:
    (tmp_path / "app.py").write_text(text)
    done = polos(tmp_path, "serve", target)
    assert done.returncode == 1
    assert f'File "{tmp_path}/app.py", line ' in done.stderr
    assert last in done.stderr.splitlines()
    assert "polos_service" not in done.stderr
    assert "typer" not in done.stderr


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(AGENT)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = polos(tmp_path, "serve", "app.py", "--listen", address)
    assert_one_sentence(done, address, "--listen")


async def test_a_port_of_another_service_is_refused_and_that_one_goes_on(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(AGENT)
    async with ServiceProcess(tmp_path / "app.py", tmp_path / "first.db") as service:
        done = polos(tmp_path, "serve", "app.py", "--listen", service.address)
        assert done.returncode == 1
        with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE):
            pass


def test_after_a_refused_start_the_store_is_free(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(TWINS)
    polos(tmp_path, "serve", "app.py")
    assert_one_sentence(polos(tmp_path, "serve", "app.py"), "'helper'")


async def test_a_store_in_use_is_named(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(AGENT)
    async with ServiceProcess(tmp_path / "app.py", tmp_path / "runs.db"):
        done = polos(tmp_path, "serve", "app.py")
    assert_one_sentence(done, f"{tmp_path}/runs.db", "in use by another process", "--store")


def test_a_store_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(AGENT)
    for path in (f"{tmp_path}/app.py/runs.db", f"{tmp_path}/app.py", f"{tmp_path}"):
        done = polos(tmp_path, "serve", "app.py", "--store", f"sqlite://{path}")
        assert_one_sentence(done, f"The store {path} cannot be opened")
    assert (tmp_path / "app.py").read_text() == AGENT


@pytest.mark.parametrize(
    "address", ["nonsense", "127.0.0.1", "127.0.0.1:", ":50051", "[::1]:99999"]
)
def test_what_is_no_address_is_refused(tmp_path: Path, address: str) -> None:
    (tmp_path / "app.py").write_text(AGENT)
    for done in (
        polos(tmp_path, "serve", "app.py", "--listen", address),
        polos(tmp_path, "serve", "app.py", listen=address),
    ):
        assert_one_sentence(done, repr(address), "HOST:PORT", "127.0.0.1:50051")


@pytest.mark.parametrize("store", ["nonsense", "sqlite://runs.db", "sqlite:///", "postgres://db"])
def test_what_is_no_store_is_refused(tmp_path: Path, store: str) -> None:
    (tmp_path / "app.py").write_text(AGENT)
    done = polos(tmp_path, "serve", "app.py", "--store", store)
    assert_one_sentence(done, repr(store), "sqlite:///ABSOLUTE/PATH")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POLOS_MAX_RUNS", "many"),
        ("POLOS_MAX_RUNS", "0"),
        ("POLOS_GRACE", "-1"),
        ("POLOS_PROVIDER_KEYS", "secret-and-no-json"),
        ("POLOS_PROVIDER_KEYS", '["secret"]'),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_if_it_is_no_secret(
    tmp_path: Path, name: str, value: str
) -> None:
    (tmp_path / "app.py").write_text(AGENT)
    done = polos(tmp_path, "serve", "app.py", **{name: value})
    assert_one_sentence(done, name.removeprefix("POLOS_").lower())
    assert "secret" not in done.stderr


@pytest.mark.parametrize("arguments", [["serve"], ["serve", "app.py", "--nope"], ["nope"]])
def test_wrong_usage_is_explained(tmp_path: Path, arguments: list[str]) -> None:
    done = polos(tmp_path, *arguments)
    assert done.returncode == 2
    assert "Usage: polos" in done.stderr
