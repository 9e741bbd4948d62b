"""Finds the agents and workflows that files, modules and packages define."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TypeVar, cast

from polos_client.define.agent import Agent
from polos_client.define.agent_tool import AgentTool
from polos_client.define.workflow import Workflow
from polos_client.errors import DefinitionError, PolosError

Definition = TypeVar("Definition", bound=Agent | Workflow)

NO_PACKAGE = "attempted relative import with no known parent package"
"""What Python says of a relative import in a file that was not imported as part of a package."""


class LoadError(PolosError):
    """The user's module raised; the message is their traceback, without our frames."""


def load(*targets: str) -> list[Agent | Workflow]:
    """Import apps; return the definitions at their top levels.

    An app is a file, `path/to/app.py`; a module, `package.module`; or a package, by its name or
    its folder. Of a package that defines nothing itself, it is the modules directly in it, except
    those whose names begin with an underscore. With an agent come those that are its tools.

    The folder that has the file or the package, or the working folder for a name, comes first on
    the import path, as it does for `python app.py` and `python -m package.module`.

    Raises:
        DefinitionError: there is no such app, it defines nothing to run, or two files would be
            modules of the same name.
        LoadError: a module raised.

    """
    known = set(sys.modules)
    found: list[Agent | Workflow] = []
    for target in targets:
        definitions = [one for module in modules_of(target, known) for one in defined_in(module)]
        if not definitions:
            raise DefinitionError(
                f"{target} does not define an agent or a workflow. Define one at the top level: "
                "agent = Agent(id=..., provider=..., model=...), or a function with @workflow."
            )
        found += definitions
    return with_tools(found)


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


def defined_in(module: ModuleType) -> list[Agent | Workflow]:
    """Return the definitions at the top level of a module."""
    return [one for one in vars(module).values() if isinstance(one, Agent | Workflow)]


def modules_of(target: str, known: AbstractSet[str]) -> Iterator[ModuleType]:
    """Import an app and yield its modules; `known` are the modules from before all apps."""
    if target.endswith(".py"):
        yield from_file(Path(target), known)
        return
    is_folder = bool(target) and Path(target).is_dir()
    module = from_folder(Path(target)) if is_folder else from_name(target, Path.cwd())
    yield module
    if hasattr(module, "__path__") and not defined_in(module):
        for one in pkgutil.iter_modules(module.__path__, f"{module.__name__}."):
            if not one.ispkg and not one.name.rpartition(".")[2].startswith("_"):
                with reraise_as_load_error(one.name):
                    yield importlib.import_module(one.name)


def from_file(path: Path, known: AbstractSet[str]) -> ModuleType:
    """Import a file as the module of its name, unless another app has imported it."""
    if not path.is_file():
        raise DefinitionError(f"There is no file {path} (looked in {Path.cwd()}).")
    file = path.resolve()
    loaded = None if path.stem in known else sys.modules.get(path.stem)
    if loaded is not None:
        if loaded.__file__ == str(file):
            return loaded
        raise DefinitionError(
            f"{path} cannot be loaded together with {loaded.__file__}: both are the module "
            f"{path.stem!r}. Rename one of them."
        )
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(path.stem, file)
    if spec is None or spec.loader is None:
        raise DefinitionError(f"{path} cannot be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    with reraise_as_load_error(path.name, hint=how_to_serve_as_module(file)):
        spec.loader.exec_module(module)
    return module


def how_to_serve_as_module(file: Path) -> str:
    """Return what to do about a file with relative imports."""
    folder, parts = file.parent, [file.stem]
    while (folder / "__init__.py").exists() or len(parts) == 1:
        parts.insert(0, folder.name)
        folder = folder.parent
    command = shlex.join(["polos", "serve", ".".join(parts)])
    return (
        "The file was loaded by itself, so a relative import has no package to start from. Serve "
        f"it as a module of its package: cd {shlex.quote(str(folder))} && {command}"
    )


def from_folder(path: Path) -> ModuleType:
    """Import the package whose folder this is."""
    folder = path.resolve()
    if not folder.name.isidentifier():
        raise DefinitionError(
            f"The folder {path} cannot be a package: {folder.name!r} is not a name in Python. "
            f"Serve its files: polos serve {path}/*.py"
        )
    return from_name(folder.name, folder.parent)


def from_name(name: str, folder: Path) -> ModuleType:
    """Import a module by its dotted name; it is looked for in the folder first."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise DefinitionError(
            f"{name!r} is neither a file that ends in .py nor the name of a module or package."
        )
    sys.path.insert(0, str(folder))
    with reraise_as_load_error(name):
        return importlib.import_module(name)


@contextmanager
def reraise_as_load_error(name: str, *, hint: str = "") -> Iterator[None]:
    """Raise what an import raises as a LoadError that its author can read.

    `hint` says what to do about a relative import that has no package.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and missing(name, error):
            raise DefinitionError(
                f"There is no module {name!r} (looked in {Path.cwd()} and what is installed). "
                "For a file, give its path, ending in .py."
            ) from None
        lines = traceback.format_exception(type(error), error, without_ours(error.__traceback__))
        advice = f"\n{hint}" if hint and NO_PACKAGE in str(error) else ""
        told = "".join(lines).rstrip()
        raise LoadError(f"{name} cannot be loaded.\n{told}{advice}") from error


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
