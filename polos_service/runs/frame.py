"""Frames: events as they are stored and sent.

A frame is the encoding of a `StreamRunResponse` (`StreamWorkflowResponse` has the same
shape). Encodings of protobuf messages concatenate, so frames joined are a frame, and
what a reader gets are the bytes that were written when the event happened.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2 import StreamRunResponse
from polos_service.runs.lineage import Lineage

FIELD = {
    GetMessageClass(field.message_type): field.name
    for field in Event.DESCRIPTOR.oneofs_by_name["payload"].fields
    if field.message_type is not None
}
"""The name of the `Event` field that holds a payload, by the payload's class."""

SECOND = 1_000_000_000
"""Nanoseconds in a second."""

EVENT_TAG = 0x0A
"""The byte before each event of a frame: the tag of field 1, which is length-delimited."""

MAX_SHIFT = 21
"""The shift of the last byte that a length may have: four bytes are enough for any event."""


class Encoder:
    """Encodes the events of one run. It reuses one message: a new one each takes twice the time.

    Attributes:
        lineage: the run.
        branches: the numbers of the child and of the children above it; none of a root run.

    """

    def __init__(self, lineage: Lineage, branches: frozenset[int] = frozenset()) -> None:
        self.lineage = lineage
        self.branches = branches
        self._frame = StreamRunResponse()
        self._event = self._frame.events.add(run_id=lineage.run_id, workflow_id=lineage.workflow_id)
        if (origin := lineage.origin) is not None:
            self._event.parent_run_id = origin.run_id
            self._event.parent_step_key = origin.step_key
            self._event.parent_attempt = origin.attempt
        self._time = self._event.create_time

    def encode(
        self, payload: Message, *, sequence: int, time: int, terminal: bool = False
    ) -> bytes:
        """Return a frame of one event.

        Args:
            payload: what happened; its type is one of those in `Event`.
            sequence: the event's number in the log, from 1.
            time: nanoseconds since the epoch.
            terminal: True if the event ends the root run.

        """
        event = self._event
        event.sequence = sequence
        event.terminal = terminal
        self._time.seconds, self._time.nanos = divmod(time, SECOND)
        getattr(event, FIELD[type(payload)]).CopyFrom(payload)
        return self._frame.SerializeToString()


def decode(data: bytes) -> list[Event]:
    """Return the events of one or more frames."""
    return list(StreamRunResponse.FromString(data).events)


def split(data: bytes) -> list[bytes]:
    """Return the events of one or more frames, each encoded: far quicker than to decode them."""
    return list(_ENCODED.FromString(data).events)


def _encoded() -> Any:
    """Return the class of a message that reads a frame, and leaves its events as they are."""
    events = FieldDescriptorProto(
        name="events",
        number=1,
        type=FieldDescriptorProto.TYPE_BYTES,
        label=FieldDescriptorProto.LABEL_REPEATED,
    )
    file = FileDescriptorProto(name="encoded.proto")
    file.message_type.add(name="Encoded", field=[events])
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("Encoded"))


_ENCODED = _encoded()


def cut(data: bytes, skip: int, limit: int) -> tuple[bytes, int]:
    """Cut a piece out of a frame between whole events; nothing is decoded.

    Args:
        data: the frame.
        skip: events before the piece.
        limit: bytes of the piece at most, unless its first event alone is larger.

    Returns:
        The piece, and how many events it has.

    Raises:
        ValueError: the frame is damaged, or has fewer events than are to be skipped.

    """
    start = 0
    for _ in range(skip):
        start = after_event(data, start)
    end = start
    events = 0
    while end < len(data):
        following = after_event(data, end)
        if events and following - start > limit:
            break
        end = following
        events += 1
    return data[start:end], events


def after_event(data: bytes, at: int) -> int:
    """Return where the event ends that begins at `at`: a tag, a length, and as many bytes.

    Raises:
        ValueError: there is no whole event: the frame is damaged.

    """
    try:
        tag, length = data[at], data[at + 1]
        at += 2
        shift = 7
        while length >> shift and shift <= MAX_SHIFT:
            length = (length & ((1 << shift) - 1)) | (data[at] << shift)
            at += 1
            shift += 7
    except IndexError:
        tag = length = -1
    end = at + length
    if tag != EVENT_TAG or length >> shift or end > len(data):
        raise ValueError("A frame of the log is damaged: it does not consist of whole events.")
    return end


def position(latest: int, covered: int = 0) -> bytes:
    """Return what tells the newest sequence: appended to a frame, or alone as a heartbeat.

    `covered` is the last sequence looked at in a stream that has a part of the log; else 0.
    """
    return StreamRunResponse(latest_sequence=latest, covered_through=covered).SerializeToString()
