"""The `polos` command: a module a command."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command, and leave with its exit code."""
    # Before grpc is loaded: its own lines say in its words what our errors say in one sentence.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Imported late, so that the name `app` of this package is always the module.
    from polos_service.cli.app import app  # noqa: PLC0415

    app()
