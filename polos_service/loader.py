"""Finds the agents and workflows that a file or a module defines."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TypeVar, cast

from polos_client.define.agent import Agent
from polos_client.define.agent_tool import AgentTool
from polos_client.define.workflow import Workflow
from polos_client.errors import DefinitionError, PolosError

Definition = TypeVar("Definition", bound=Agent | Workflow)


class LoadError(PolosError):
    """The user's module raised; the message is their traceback, without our frames."""


def load(target: str) -> list[Agent | Workflow]:
    """Import `path/to/app.py` or `package.module`; return the definitions at its top level.

    With an agent come those that are its tools.

    The file's folder, or the working folder for a module, comes first on the import
    path, as it does for `python app.py` and `python -m package.module`.

    Raises:
        DefinitionError: there is no such file or module, or it defines nothing to run.
        LoadError: the module raised.

    """
    module = from_file(Path(target)) if target.endswith(".py") else from_name(target)
    found = {id(one): one for one in vars(module).values() if isinstance(one, Agent | Workflow)}
    if not found:
        raise DefinitionError(
            f"{target} does not define an agent or a workflow. Define one at the top level: "
            "agent = Agent(id=..., provider=..., model=...), or a function with @workflow."
        )
    return with_tools(found.values())


def with_tools(definitions: Iterable[Definition]) -> list[Definition]:
    """Return definitions with the agents that are tools of theirs, and of those, each once."""
    found: dict[int, Definition] = {}
    left = list(definitions)
    while left:
        one = left.pop(0)
        if id(one) not in found:
            found[id(one)] = one
            tools = one.tools if isinstance(one, Agent) else ()
            left += [cast("Definition", it.agent) for it in tools if isinstance(it, AgentTool)]
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
    with reraise_as_load_error(path.name):
        spec.loader.exec_module(module)
    return module


def from_name(name: str) -> ModuleType:
    """Import a module by its dotted name."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise DefinitionError(
            f"{name!r} is neither a file that ends in .py nor the name of a module."
        )
    sys.path.insert(0, str(Path.cwd()))
    with reraise_as_load_error(name):
        return importlib.import_module(name)


@contextmanager
def reraise_as_load_error(name: str) -> Iterator[None]:
    """Raise what an import raises as a LoadError that its author can read."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and missing(name, error):
            raise DefinitionError(
                f"There is no module {name!r} (looked in {Path.cwd()} and what is installed). "
                "For a file, give its path, ending in .py."
            ) from None
        lines = traceback.format_exception(type(error), error, without_ours(error.__traceback__))
        raise LoadError(f"{name} cannot be loaded.\n{''.join(lines).rstrip()}") from error


def missing(name: str, error: ModuleNotFoundError) -> bool:
    """Return whether the module itself is missing, and not something that it imports."""
    return error.name is not None and (name == error.name or name.startswith(f"{error.name}."))


def without_ours(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the first frame that is neither ours nor the import system's."""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file != __file__ and not file.startswith(("<frozen importlib", importlib.__file__)):
            return trace
        trace = trace.tb_next
    return None
