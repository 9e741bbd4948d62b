"""The modules of the client import each other in one direction, wherever an import stands."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import polos_client

ROOT = Path(polos_client.__file__).parent


def name_of(path: Path) -> str:
    """Return the module that the file is."""
    parts = ("polos_client", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in ROOT.rglob("*.py")}


def imported(path: Path) -> set[str]:
    """Return the modules of the client that a file imports: lazily and for types, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            below = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= below or {str(node.module)}
    return found & MODULES.keys()


def test_no_module_imports_itself_over_others() -> None:
    graph = {name: imported(path) for name, path in MODULES.items()}
    assert len(graph) > 20
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def test_calls_know_no_definitions() -> None:
    for name, path in MODULES.items():
        if name.startswith("polos_client.calls"):
            assert not [one for one in imported(path) if one.startswith("polos_client.define")]
