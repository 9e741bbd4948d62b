"""Reading the events of any run; `from polos import events` is this module."""

from typing import TYPE_CHECKING

from polos_client.calls.events import stream_workflow
from polos_client.event import Event as StreamEvent
from polos_client.unbuilt import not_built_yet

__all__ = ["StreamEvent", "stream_workflow"]

if not TYPE_CHECKING:  # checkers refuse what is not built
    _UNBUILT = (
        "BatchEventPayload",
        "EventData",
        "EventPayload",
        "batch_publish",
        "publish",
        "stream_topic",
    )
    __getattr__ = not_built_yet(__name__, _UNBUILT)
