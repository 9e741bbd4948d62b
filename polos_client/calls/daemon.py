"""Work that blocks, done in a thread that the end of the program does not wait for."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_Result = TypeVar("_Result")


def in_daemon(work: Callable[[], _Result]) -> Future[_Result]:
    """Return what `work` will return or raise, called in a thread of its own.

    A pool would do for the work, but the end of an event loop waits for the threads of its pool:
    a name server that does not answer would hold up a program that is done.
    """
    future: Future[_Result] = Future()
    future.set_running_or_notify_cancel()  # whoever stops to wait does not cancel it for others
    context = contextvars.copy_context()

    def do() -> None:
        try:
            result = context.run(work)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=do, daemon=True, name="polos-client").start()
    return future
