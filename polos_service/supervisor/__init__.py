"""`polos serve --workers N`: worker processes on one address and one store, kept running.

From below: `pipes` carry what children print; `address` is held for the workers; `nats` runs a
server of the service's own; `worker` is one process, `slot` the place in which there always is
one; `supervisor` keeps all of it together. A worker is `polos serve` with the hidden option
`--lifeline`; what it does otherwise is in `polos_service/lifeline.py`.
"""

from __future__ import annotations

from polos_service.supervisor.supervisor import Supervisor
from polos_service.supervisor.worker import WorkerFailedError

__all__ = ["Supervisor", "WorkerFailedError"]
