"""The command `polos` of another checkout: `python -m bench.revision CHECKOUT serve app.py ...`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

PACKAGES = ("polos", "polos_client", "polos_service")
"""The packages of the product: all that differs between two revisions."""


def import_only_from(checkout: Path) -> None:
    """Let the product's packages be found in a checkout, and nowhere else.

    Whatever else leads to them is removed from the import path, such as the working folder
    and the editable install of the environment.

    Raises:
        RuntimeError: a package is found elsewhere all the same.

    """
    others = [
        entry for entry in sys.path if not any(Path(entry, name).is_dir() for name in PACKAGES)
    ]
    sys.path[:] = [str(checkout), str(checkout / "generated"), *others]
    for name in PACKAGES:
        for folder in import_module(name).__path__:  # where all its modules are found
            if not Path(folder).is_relative_to(checkout):
                raise RuntimeError(f"{name} is imported from {folder}, not from {checkout}")


def main() -> None:
    """Run the command of the checkout that the first argument names."""
    import_only_from(Path(sys.argv.pop(1)))
    from polos_service.cli import main as polos  # noqa: PLC0415 - it is found only now

    polos()


if __name__ == "__main__":
    main()
