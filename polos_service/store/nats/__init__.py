"""Runs in NATS JetStream, for any number of equal replicas on many machines.

A stream of all logs, with a subject for each run, is the truth. A stream of work items says
which runs have not ended, and hands each to one replica. Buckets hold the rest. From the wire
upwards:

- `connection`: a client that comes back by itself; `jetstream`: requests, bounded and repeated;
  `messages`: their forms, and the gate that foreign messages do not pass.
- `subjects` names everything; `streams` makes it, checks it and looks after its health.
- `log` appends and reads; `frames` is a message of it, `positions` remembers where things are.
- `records` and `inbox` are the buckets; `queue` hands out the runs that have not ended, from
  `lines`, and with regard to the `shares` of projects; `bound` limits it.
- `claims` holds runs, each by a `lease`; `feeds` are the logs that readers follow.
- `delivery` brings commands to runs, and wakes them; `watching` tells the ends of runs to others.
- `listing` looks over many runs; `overdue` finds those that should have ended; `upkeep`
  removes and mends them.
- `store` is all of it behind the port. `shielded` tasks go on though their caller leaves.
"""

from __future__ import annotations

from polos_service.store.nats.connection import Endpoint
from polos_service.store.nats.store import NatsStore

__all__ = ["Endpoint", "NatsStore"]
