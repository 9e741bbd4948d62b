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
