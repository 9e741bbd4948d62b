"""Write `generated/` anew from `proto/`: messages, stubs and their types."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"

PACKAGE = '''"""The generated part of `polos`; the public names stand in the other folder."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
'''
"""`__init__.py` of `polos` in `generated/`: one package in two folders, here and in the root.

The wheel takes that of the root instead, where both folders become one.
"""


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
    (package_dir / "__init__.py").write_text(PACKAGE)
    (package_dir / "py.typed").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "generated")
