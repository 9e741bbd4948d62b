"""Write `generated/` anew from `proto/`: messages, stubs, types, and the `polos` package."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"

PUBLIC = {
    "polos_client.define.agent": ["Agent"],
    "polos_client.calls.client": ["PolosClient"],
    "polos_client.define.context": ["WorkflowContext"],
    "polos_client.deadlines": ["Deadlines"],
    "polos_client.errors": [
        "AgentNotFound",
        "CallError",
        "ConnectionLost",
        "CursorAhead",
        "DefinitionError",
        "Draining",
        "InternalError",
        "InvalidRequest",
        "PermissionDenied",
        "PolosError",
        "RequestIdReused",
        "RunCancelled",
        "RunError",
        "RunExpired",
        "RunFailed",
        "RunNotFinished",
        "RunNotFound",
        "RunTimeout",
        "StoreUnavailable",
        "TooLarge",
        "TooManyRuns",
        "Unauthenticated",
    ],
    "polos_client.event": ["Event"],
    "polos_client.calls.handle": ["ExecutionHandle"],
    "polos_client.result": ["AgentResult", "ToolResult", "Usage"],
    "polos_client.define.stop": [
        "ExecutedToolConfig",
        "HasTextConfig",
        "MaxStepsConfig",
        "MaxTokensConfig",
        "Step",
        "StopConditionContext",
        "executed_tool",
        "has_text",
        "max_steps",
        "max_tokens",
        "stop_condition",
    ],
    "polos_client.calls.stream": ["AgentStream", "TextChunk"],
    "polos_client.define.tool": ["Tool", "tool"],
    "polos_client.define.workflow": ["workflow"],
    "polos_service.embedded": ["Polos"],
}
"""The names that `polos` shows, by the module that defines them."""

MODULES = {"events": "polos_client.calls", "scripted": "polos_client.define"}
"""Modules that `polos` shows as they are, and the packages that they stand in."""

HEADER = '''"""The public names of Polos, each loaded when it is first used."""

# Written by scripts/generate.py; do not edit.

from importlib import import_module
from typing import TYPE_CHECKING, Any
'''

LOADER = """
def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = import_module(f"{_MODULES[name]}.{name}")
    elif name in _HOMES:
        value = getattr(_load(name, _HOMES[name]), name)
    else:
        raise AttributeError(f"module 'polos' has no attribute {name!r}")
    globals()[name] = value
    return value


def _load(name: str, home: str) -> Any:
    try:
        return import_module(home)
    except ModuleNotFoundError as error:
        if not home.startswith("polos_service.") or str(error.name).startswith("polos"):
            raise
        raise ImportError(
            f"polos.{name} needs the service, and its package {error.name!r} is not installed: "
            "pip install 'polos-grpc[service]'"
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
"""


def package() -> str:
    """Return the text of `polos/__init__.py`."""
    homes = {name: module for module, names in PUBLIC.items() for name in names}
    typed = [(package, name) for name, package in MODULES.items()]
    typed += [(module, name) for name, module in homes.items()]
    lines = [HEADER, "if TYPE_CHECKING:"]
    lines += [f"    from {module} import {name} as {name}" for module, name in typed]
    lines += ["", "_HOMES = {", *(f'    "{name}": "{homes[name]}",' for name in sorted(homes)), "}"]
    lines += ["_MODULES = {", *(f'    "{name}": "{p}",' for name, p in MODULES.items()), "}", ""]
    lines += ["__all__ = [", *(f'    "{name}",' for name in sorted([*homes, *MODULES])), "]", ""]
    return "\n".join([*lines, LOADER])


def protoc(target: Path, protos: list[str], *kinds: str) -> None:
    """Run protoc over `protos`, with the plugins of this interpreter's environment."""
    scripts = sysconfig.get_path("scripts")
    plugins = [f"--plugin={scripts}/protoc-gen-{kind}" for kind in ("mypy", "mypy_grpc")]
    outs = [f"--{kind}_out={target}" for kind in kinds]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", *plugins, *outs, *protos]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(result.stderr)


def main(target: Path) -> None:
    """Write everything below `target`, which is emptied first."""
    shutil.rmtree(target, ignore_errors=True)
    package_dir = target / "polos"
    (package_dir / "v1").mkdir(parents=True)
    protos = sorted(str(path) for path in PROTO.rglob("*.proto"))
    services = [path for path in protos if path.endswith("_service.proto")]
    protoc(target, protos, "python", "mypy")
    protoc(target, services, "grpc_python", "mypy_grpc")
    (package_dir / "v1" / "__init__.py").write_text('"""The messages and stubs of polos.v1."""\n')
    (package_dir / "__init__.py").write_text(package())
    (package_dir / "py.typed").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "generated")
