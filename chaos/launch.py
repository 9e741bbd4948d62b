"""`polos serve`, with the faults and the bug that the environment asks for.

python -m chaos.launch serve chaos.app ...
"""

from __future__ import annotations

import os
import sys

from chaos.bugs import BUGS
from chaos.cluster.bugs import CLUSTER_BUGS
from chaos.cluster.faults import watch_nats
from chaos.faults import Faults, install

faults = Faults.from_environment()
"""What strikes in this process."""


def main() -> None:
    """Put faults and bug in place, and do what `polos` does."""
    if bug := os.environ.get("CHAOS_BUG"):
        (BUGS | CLUSTER_BUGS)[bug].plant()
    install(faults)
    watch_nats(faults)
    from polos_service import child, cli  # noqa: PLC0415 - after everything they import was patched

    child.COMMAND = (sys.executable, "-m", "chaos.launch")  # for workers
    cli.main()


if __name__ == "__main__":
    # The app imports this module, too, and must find this one and not a second.
    sys.modules["chaos.launch"] = sys.modules["__main__"]
    main()
