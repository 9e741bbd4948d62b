"""Frames: events as they are stored and sent.

A frame is the encoding of a `StreamRunResponse` (`StreamWorkflowResponse` has the same
shape). Encodings of protobuf messages concatenate, so frames joined are a frame, and
what a reader gets are the bytes that were written when the event happened.
"""

from __future__ import annotations

from google.protobuf.message import Message

from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2 import StreamRunResponse

FIELD = {
    field.message_type.full_name: field.name
    for field in Event.DESCRIPTOR.oneofs_by_name["payload"].fields
    if field.message_type is not None
}
"""The name of the `Event` field that holds a payload, by the payload's full name."""

SECOND = 1_000_000_000


class Encoder:
    """Encodes a run's events, all on one message: to make one for each took twice the time."""

    def __init__(self, run_id: str, workflow_id: str) -> None:
        self._frame = StreamRunResponse()
        self._event = self._frame.events.add(run_id=run_id, workflow_id=workflow_id)
        self._time = self._event.create_time

    def encode(
        self, payload: Message, *, sequence: int, time: int, terminal: bool = False
    ) -> bytes:
        """Return a frame of one event; `time` is nanoseconds since the epoch."""
        event = self._event
        event.sequence = sequence
        event.terminal = terminal
        self._time.seconds, self._time.nanos = divmod(time, SECOND)
        getattr(event, FIELD[payload.DESCRIPTOR.full_name]).CopyFrom(payload)
        return self._frame.SerializeToString()


def decode(data: bytes) -> list[Event]:
    """Return the events of one or more frames."""
    return list(StreamRunResponse.FromString(data).events)


def cut(data: bytes, after: int) -> bytes:
    """Return the frame without its events up to `after`."""
    events = [event for event in decode(data) if event.sequence > after]
    return StreamRunResponse(events=events).SerializeToString()


def position(latest: int) -> bytes:
    """Return what, behind a frame, tells the newest sequence; alone, it is a heartbeat."""
    return StreamRunResponse(latest_sequence=latest).SerializeToString()
