"""Bounds on a model's silence: until its first sign of life, and between two."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models import ModelRequest

LOOK_SECONDS = 0.05
"""How long what came while this process was busy has to be read, once the bound is over."""


class SilentError(StepError):
    """A model said nothing for too long."""


class Silence:
    """Ends a call of a model that says nothing for too long.

    Any sign of life counts, not only text: for example reasoning that is not shown. While what came
    is handled the model is not waited for, and so is not silent, however long that takes.
    """

    def __init__(self, request: ModelRequest, model: str) -> None:
        """Take the bounds from the request; `model` is how the failure calls it."""
        self._request = request
        self._model = model
        self._limit = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + request.first_token
        self._looked = 0.0
        self._heard = False
        self._listening = True
        self._arm(self._due)

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._timer.cancel()
        with self._told():
            await self._limit.__aexit__(*raised)  # type: ignore[arg-type]  # handed on as it is

    def heard(self) -> None:
        """Note a sign of life; the clock stands until `listen`."""
        self._heard = True
        self._listening = False

    def listen(self) -> None:
        """Wait for the next one; the timer mostly stays: to set it anew costs more than a token."""
        self._listening = True
        self._due = self._loop.time() + self._request.token_gap
        if self._due < self._armed:
            self._timer.cancel()
            self._arm(self._due)

    def _arm(self, when: float) -> None:
        self._armed = when
        self._timer = self._loop.call_at(when, self._check)

    def _check(self) -> None:
        now = self._loop.time()
        if not self._listening:
            self._arm(now + self._request.token_gap)
        elif now < self._due:
            self._arm(self._due)
        elif self._looked != self._due:
            # If the loop was held until now, what the model sent meanwhile is not read yet.
            self._looked = self._due
            self._arm(now + LOOK_SECONDS)
        else:
            self._limit.reschedule(now)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise self._error() from None

    def _error(self) -> SilentError:
        if self._heard:
            return SilentError(
                FailureReason.FAILURE_REASON_MODEL_STALLED,
                f"{self._model} sent nothing in the middle of its answer for "
                f"{self._request.token_gap:g} s.",
                retryable=True,
            )
        return SilentError(
            FailureReason.FAILURE_REASON_MODEL_FIRST_TOKEN_TIMEOUT,
            f"{self._model} sent nothing for {self._request.first_token:g} s.",
            retryable=True,
        )
