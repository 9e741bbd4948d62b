"""SIGTERM and Ctrl-C: the first is waited for, a second ends the process whatever holds it."""

from __future__ import annotations

import asyncio
import ctypes
import signal
from collections.abc import Callable

STOP = (signal.SIGINT, signal.SIGTERM)
"""The signals that stop a service."""


class StopSignals:
    """Listens for the signals from its making on, in the main thread, beside a running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._first = asyncio.Event()
        # None where C code has set one, which cannot be put back.
        self._former = {number: signal.getsignal(number) or signal.SIG_DFL for number in STOP}
        for number in STOP:
            handle_once(number, self._heard)

    async def first(self) -> None:
        """Return when the first signal has come."""
        await self._first.wait()

    def close(self) -> None:
        """Put the former handlers back."""
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _heard(self, *_: object) -> None:
        """Run between two bytecodes of whatever the main thread does; the loop may be stuck.

        From then on the kernel ends the process at the next signal, whoever holds what.
        """
        for number in STOP:
            signal.signal(number, signal.SIG_DFL)
        self._loop.call_soon_threadsafe(self._first.set)


def handle_once(number: int, handler: Callable[..., None]) -> None:
    """Set the handler of a signal, for one time where the C library lets us.

    Python runs a handler when the interpreter gets to it, which it never does while C code, a
    search with a regular expression for example, holds it. By then the kernel has reset the
    signal to its default, and the next one of the same number ends the process.
    """
    signal.signal(number, handler)
    set_once = getattr(ctypes.CDLL(None), "sysv_signal", None)
    if set_once is None:
        return
    set_once.restype = ctypes.c_void_p
    set_once.argtypes = [ctypes.c_int, ctypes.c_void_p]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    set_once(number, set_once(number, signal.SIG_DFL))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
