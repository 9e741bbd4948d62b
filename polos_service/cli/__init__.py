"""The `polos` command: a module a command."""

from __future__ import annotations

import os
import sys

from polos_service.cli.descriptors import fill_missing


def main() -> None:
    """Run the command, and leave with its exit code."""
    fill_missing()  # before any file is opened
    # Before grpc is loaded: its own lines say in its words what our errors say in one sentence.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        # Imported late, so that the name `app` of this package is always the module.
        from polos_service.cli.app import app  # noqa: PLC0415
    except ModuleNotFoundError as error:
        sys.exit(
            f"polos needs {error.name}, which is not installed: "
            "pip install 'polos-grpc[service]', or '.[service]' in a checkout."
        )
    app()
