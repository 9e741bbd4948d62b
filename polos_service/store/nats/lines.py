"""The lines of the queue: one for each agent and project, with a consumer that hands out its runs.

The project `default` keeps the subjects and consumers of versions that knew no lines. Those
versions read all subjects of an agent, so that the runs of other projects are queued beside
them: under the agent's token with LINE before it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from polos_service.quotas import Quotas
from polos_service.store.fairness import Weights, urgency
from polos_service.store.nats.jetstream import JetStream
from polos_service.store.nats.messages import SECOND, seconds_of
from polos_service.store.nats.subjects import DEFAULT, HASHED, LINE, WORK, token

PULL = 5.0
"""Seconds that JetStream keeps a request for an item."""

PENDING_LIMIT = 10_000_000
"""Items of one line that may be held at a time, by all replicas."""

NAME_LIMIT = 200
"""Characters of a consumer's name beyond which it is hashed; JetStream takes 255."""

SUBJECT = ("polos", "work")
"""The first tokens of a work item's subject."""

WORK_TOKENS = 5
"""Tokens of a work item's subject."""


class Line(NamedTuple):
    """The runs of an agent and a project that wait; both are tokens of a subject."""

    workflow: str
    project: str

    @classmethod
    def of(cls, subject: str) -> Line:
        """Return the line that a subject of the queue belongs to, or that a filter selects.

        Raises:
            ValueError: it is not one of the queue.

        """
        tokens = subject.split(".")
        if tuple(tokens[:2]) != SUBJECT or len(tokens) not in (WORK_TOKENS - 1, WORK_TOKENS):
            raise ValueError(f"{subject} is not a subject of the queue")
        if tokens[2].startswith(LINE):
            return cls(tokens[2].removeprefix(LINE), tokens[3])
        return cls(tokens[2], DEFAULT)

    @property
    def shared(self) -> bool:
        """Whether versions that know no lines hand out its runs, too."""
        return self.project == DEFAULT

    @property
    def subjects(self) -> str:
        """The subjects of its items."""
        if self.shared:
            return f"polos.work.{self.workflow}.>"
        return f"polos.work.{LINE}{self.workflow}.{self.project}.>"

    @property
    def consumer(self) -> str:
        """The name of its consumer."""
        if self.shared:
            return self.workflow
        name = f"{self.workflow}{LINE}{self.project}"
        if len(name) > NAME_LIMIT:
            name = HASHED + hashlib.sha256(name.encode()).hexdigest()
        return LINE + name


class Lines:
    """The lines that a replica knows, and which of them is next."""

    def __init__(
        self,
        jetstream: JetStream,
        claim_timeout: float,
        weights: Weights,
        quotas: Quotas,
        held: Callable[[], Mapping[str, int]],
    ) -> None:
        """`held` tells how many runs each project holds, by its token."""
        self._jetstream = jetstream
        self._claim_timeout = claim_timeout
        self._weights = {token(project): weight for project, weight in weights.items()}
        self._quotas = quotas.renamed(token)
        self._held = held
        self._known: dict[str, dict[Line, None]] = {}
        """Lines of projects other than `default`, by workflow, in the order in which they came."""
        self._made: set[Line] = set()
        self._empty: dict[Line, float] = {}
        """Until when a line is taken for empty, as a time of the loop."""
        self._started: dict[str, int] = {}
        """When the last run of a project began, in nanoseconds since the epoch."""
        self._served: dict[Line, int] = {}
        """The same for each line."""

    async def start(self) -> None:
        """Find the lines that there are: each has its consumer before its first item."""
        seen = 0
        while True:
            page = await self._jetstream.request(f"CONSUMER.LIST.{WORK}", {"offset": seen})
            consumers = page["consumers"] or []
            for one in consumers:
                self.find(str(one["config"].get("filter_subject", "")))
            seen += len(consumers)
            if not consumers or seen >= page["total"]:
                return

    def find(self, subject: str) -> bool:
        """Take note that there is an item in the line of a subject; return whether it is new."""
        try:
            line = Line.of(subject)
        except ValueError:
            return False  # it is looked at when it is handed out
        self.fill(line)
        known = self._known.setdefault(line.workflow, {})
        if line.shared or line in known:
            return False
        known[line] = None
        return True

    def of(self, workflows: Collection[str]) -> list[Line]:
        """Return the lines of these workflows whose projects may have another run."""
        found: list[Line] = []
        for workflow in map(token, workflows):
            found.append(Line(workflow, DEFAULT))
            found += self._known.get(workflow, ())
        return [line for line in found if self.has_room(line)] if self.bound_runs else found

    @property
    def bound_runs(self) -> bool:
        """Whether any project may only have so many runs at once."""
        return self._quotas.bound_runs

    def has_room(self, line: Line) -> bool:
        """Return whether the line's project may have another run, as far as is known."""
        return self._quotas.room(line.project, self._held().get(line.project, 0)) != 0

    def in_turn(self, lines: Collection[Line]) -> list[Line]:
        """Return these lines in the order in which they are served."""
        now, held = time.time_ns(), self._held()
        turns = {
            project: urgency(
                project,
                self._weights,
                held=held.get(project, 0),
                started=self._started.get(project),
                now=now,
            )
            for project in {line.project for line in lines}
        }
        return sorted(lines, key=lambda line: (turns[line.project], self._served.get(line, 0)))

    def serve(self, line: Line) -> None:
        """Take note that a run of the line begins."""
        self._started[line.project] = self._served[line] = time.time_ns()

    def fill(self, line: Line) -> None:
        """Take note that there may be an item in the line."""
        self._empty.pop(line, None)

    def empty(self, line: Line) -> None:
        """Take note that there was none; others may have put one back after a while."""
        self._empty[line] = asyncio.get_running_loop().time() + PULL

    def is_empty(self, line: Line) -> bool:
        """Return whether there is no item in the line, as far as is known."""
        return self._empty.get(line, 0.0) > asyncio.get_running_loop().time()

    def lose(self, line: Line) -> None:
        """Take note that the line's consumer may be gone."""
        self._made.discard(line)

    async def make_all(self, lines: Collection[Line]) -> None:
        """Make the consumers of these lines, as far as that succeeds now."""
        new = [line for line in lines if line not in self._made]
        await asyncio.gather(*map(self.make, new), return_exceptions=True)

    async def make(self, line: Line) -> None:
        """Make the line's consumer, unless that was done."""
        if line in self._made:
            return
        config = {
            "name": line.consumer,
            "durable_name": line.consumer,
            "filter_subject": line.subjects,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": round(self._claim_timeout * 1e9),
            "max_deliver": -1,
            "max_ack_pending": PENDING_LIMIT,
        }
        info = await self._jetstream.request(
            f"CONSUMER.CREATE.{WORK}.{line.consumer}.{line.subjects}",
            {"stream_name": WORK, "config": config},
        )
        self._made.add(line)
        started = last_active(info)
        if started is not None:
            former = self._started.get(line.project, 0)
            self._started[line.project] = max(former, started)


def last_active(info: Mapping[str, Any]) -> int | None:
    """Return when a consumer last gave out an item, in nanoseconds since the epoch."""
    try:
        return round(seconds_of(info["delivered"]["last_active"]) * SECOND)
    except (KeyError, TypeError, ValueError):
        return None
