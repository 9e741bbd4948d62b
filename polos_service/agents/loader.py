"""Finds the agents that a file or a module defines."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from polos_client.agent import Agent
from polos_client.errors import DefinitionError


def load(target: str) -> list[Agent]:
    """Import `path/to/app.py` or `package.module`, and return the agents at its top level.

    The file's folder, or the working folder for a module, comes first on the import
    path, as it does for `python app.py` and `python -m package.module`.

    Raises:
        DefinitionError: there is no such file or module, or it defines no agent.
        Exception: whatever the module itself raises.

    """
    module = from_file(Path(target)) if target.endswith(".py") else from_name(target)
    found = {id(agent): agent for agent in vars(module).values() if isinstance(agent, Agent)}
    if not found:
        raise DefinitionError(
            f"{target} defines no agent. Give it one at the top level: "
            "agent = Agent(id=..., provider=..., model=...)."
        )
    return list(found.values())


def from_file(path: Path) -> ModuleType:
    """Import a file as the module of its name."""
    if not path.is_file():
        raise DefinitionError(f"There is no file {path} (looked in {Path.cwd()}).")
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise DefinitionError(f"{path} cannot be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def from_name(name: str) -> ModuleType:
    """Import a module by its dotted name."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise  # it was found, and something that it imports was not
        raise DefinitionError(
            f"There is no module {name!r} (looked in {Path.cwd()} and what is installed). "
            "For a file, give its path, ending in .py."
        ) from None
