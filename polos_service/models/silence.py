"""Bounds on a model's silence: until its first sign of life, and between two."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models import ModelRequest


class SilentError(StepError):
    """A model said nothing for too long."""


class Silence:
    """Ends a call of a model that says nothing for too long.

    Any sign of life counts, not only text: reasoning that is not shown, say.
    """

    def __init__(self, request: ModelRequest, model: str) -> None:
        """Take the bounds from the request; `model` is how the failure calls it."""
        self._request = request
        self._model = model
        self._limit = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + request.first_token
        self._arm()
        self._heard = False

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._timer.cancel()
        with self._told():
            await self._limit.__aexit__(*raised)  # type: ignore[arg-type]  # handed on as it is

    def heard(self) -> None:
        """Note a sign of life; the timer mostly stays: to set it anew costs more than a token."""
        self._heard = True
        self._due = self._loop.time() + self._request.token_gap
        if self._due < self._armed:
            self._timer.cancel()
            self._arm()

    def _arm(self) -> None:
        self._armed = self._due
        self._timer = self._loop.call_at(self._due, self._check)

    def _check(self) -> None:
        if self._loop.time() < self._due:
            self._arm()
        else:
            self._limit.reschedule(self._due)

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
