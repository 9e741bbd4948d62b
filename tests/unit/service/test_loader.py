"""What `polos serve` finds in a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from polos_client.define.agent import Agent
from polos_client.define.workflow import Workflow
from polos_client.errors import DefinitionError
from polos_service.loader import LoadError, load

APP = """
from polos import Agent, WorkflowContext, WorkflowState, tool, workflow
from polos.core.workflow import get_workflow

@workflow
async def order(ctx: WorkflowContext, payload: dict) -> dict:
    return payload

again = order
agent = Agent("helper", "scripted", "[]")
hidden = [Agent("hidden", "scripted", "[]")]

@tool
def add(a: int, b: int) -> int:
    return a + b
"""


@pytest.fixture(autouse=True)
def imports() -> Iterator[None]:
    """Take the module and its folder out of what is imported."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def written(folder: Path, text: str) -> str:
    """Write an app and return its path."""
    path = folder / "shop_app.py"
    path.write_text(text)
    return str(path)


def test_agents_and_workflows_at_the_top_level_are_found_once(tmp_path: Path) -> None:
    order, agent = load(written(tmp_path, APP))
    assert (order.id, agent.id) == ("order", "helper")
    assert isinstance(order, Workflow)
    assert isinstance(agent, Agent)


def test_a_file_of_workflows_alone_is_enough(tmp_path: Path) -> None:
    text = "from polos import workflow\nnap = workflow(id='nap')(lambda ctx: None)\n"
    assert [one.id for one in load(written(tmp_path, text))] == ["nap"]


def test_a_file_without_definitions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="does not define an agent or a workflow"):
        load(written(tmp_path, "from polos import workflow, Workflow\n"))


def test_a_workflow_that_cannot_be_is_the_app_s_fault(tmp_path: Path) -> None:
    text = "from polos import workflow\n@workflow\ndef f(ctx, payload): ...\n"
    with pytest.raises(LoadError, match=r"shop_app.py(?s:.*)payload' needs a type"):
        load(written(tmp_path, text))


ONE = "from polos import Agent\n{name} = Agent({name!r}, 'scripted', '[]')\n"


def files(folder: Path, texts: dict[str, str]) -> list[str]:
    """Write files of a project and return their paths."""
    paths = [folder / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(map(str, paths))


def ids(*targets: str) -> list[str]:
    return [one.id for one in load(*targets)]


def test_several_files_are_loaded_each_once(tmp_path: Path) -> None:
    orders = "from shop_tea import tea\n" + ONE.format(name="orders")
    first, second = files(
        tmp_path, {"shop_orders.py": orders, "shop_tea.py": ONE.format(name="tea")}
    )
    assert ids(first, second) == ["tea", "orders"]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    text = ONE.format(name="tea")
    first, second = files(tmp_path, {"one/shop_app.py": text, "two/shop_app.py": text})
    with pytest.raises(DefinitionError, match="both are the module 'shop_app'"):
        load(first, second)


def test_a_package_is_what_it_defines_or_else_its_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(
        tmp_path,
        {
            "shop_pack/tea.py": ONE.format(name="tea"),
            "shop_pack/_hidden.py": "raise ValueError",
            "shop_pack/orders.py": "from .tea import tea as _tea\n" + ONE.format(name="orders"),
            "shop_whole/__init__.py": ONE.format(name="whole"),
            "shop_whole/more.py": ONE.format(name="more"),
        },
    )
    assert ids(f"{tmp_path}/shop_pack/") == ["tea", "orders"]
    monkeypatch.chdir(tmp_path)
    assert ids("shop_whole", "shop_pack.tea") == ["whole", "tea"]


def test_a_relative_import_in_a_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    app, *_ = files(
        tmp_path, {"shop/pack/app.py": "from . import tea\n", "shop/pack/__init__.py": ""}
    )
    with pytest.raises(LoadError) as raised:
        load(app)
    *_, error, hint = str(raised.value).splitlines()
    assert error == "ImportError: attempted relative import with no known parent package"
    assert hint.endswith(f"cd {tmp_path}/shop && polos serve pack.app")
