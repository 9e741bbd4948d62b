"""Bounds on what is open at once: in all, for each connection, and for each project."""

from __future__ import annotations

from collections import Counter
from typing import Any

import grpc.aio

from polos_client.errors import TooManyCalls
from polos_service.quotas import Quotas, exceeded

RETRY_AFTER = 1.0
"""Seconds after which a caller that was refused may find a place."""


class ProjectStreams:
    """Places for the streams of each project, at this process."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self.taken: Counter[str] = Counter()
        """How many places each project has taken. Only projects with a limit are counted."""

    def take(self, project: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Take a place until the call is over.

        Raises:
            QuotaExceeded: the project has none left.

        """
        limit = self._quotas.of(project).streams
        if limit is None:
            return
        if self.taken[project] >= limit:
            what = f"{self.taken[project]} streams are open. Wait until some have ended."
            raise exceeded("streams", limit, project, what, retry_after=RETRY_AFTER)
        self.taken[project] += 1

        def free(_: object) -> None:
            self.taken[project] -= 1
            if not self.taken[project]:
                del self.taken[project]

        context.add_done_callback(free)  # type: ignore[arg-type]  # the stubs want no function


class Slots:
    """Places for calls of one kind. A call has its place until its last byte has left.

    Attributes:
        taken: how many places are taken.

    """

    def __init__(self, kind: str, limit: int, connection_limit: int) -> None:
        """Make places.

        Args:
            kind: what takes a place, for the error: "call" or "stream".
            limit: places in all.
            connection_limit: places that one connection may take of them.

        """
        self._kind = kind
        self._limit = limit
        self._connection_limit = connection_limit
        self._taken: Counter[str] = Counter()
        self.taken = 0

    def take(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Take a place until the call is over.

        Raises:
            TooManyCalls: there is none.

        """
        peer = context.peer()
        if self._taken[peer] >= self._connection_limit:
            raise self._refusal("this connection", self._connection_limit)
        if self.taken >= self._limit:
            raise self._refusal("the service", self._limit)
        self._taken[peer] += 1
        self.taken += 1

        def free(_: object) -> None:
            self.taken -= 1
            self._taken[peer] -= 1
            if not self._taken[peer]:
                del self._taken[peer]

        context.add_done_callback(free)  # type: ignore[arg-type]  # the stubs want no function

    def _refusal(self, where: str, limit: int) -> TooManyCalls:
        return TooManyCalls(
            f"The limit of {limit} open {self._kind}s is reached for {where}. "
            "Wait until some have ended.",
            retry_after=RETRY_AFTER,
            kind=self._kind,
            limit=str(limit),
        )
