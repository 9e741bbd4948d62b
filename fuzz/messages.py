"""Random messages of any type, and bytes that are almost messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

DEPTH = 4
"""Messages inside each other, at most."""

REPEATED = 3
"""Elements of a repeated field, at most."""

LONG = 70_000
"""Characters of a long text: more than a frame of HTTP/2 holds."""

TEXTS = (
    *("", " ", "\0", "\x1b[31m", "../../etc/passwd", "a" * 129, "a" * 257, "x" * LONG),
    *("\u202e", "\U0001f600" * 65, "%s%n", "'; DROP TABLE runs;--", "no-such-thing"),
    *("{}", "[]", "null", "NaN", "1e999", '{"a": NaN}', '"\\ud800"', '{"\\ud800": 1}', "{"),
    *("[" * 2000, '{"a":' * 2000, '{"temperature": 1e999}', '{"seed": -1}', '{"n": 99}'),
    *('[{"role": "user", "content": "Hi"}]', '[{"role": "\\udfff"}]', '[{"role": 5}]', "[[]]"),
)
"""Texts that somebody is likely to have forgotten."""

INTEGERS = (0, 1, -1, 2, 7, 50, 1000, 1001, 2**31 - 1, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.5, -1.0, 1e308, float("inf"), float("-inf"), float("nan"))

WORKFLOW = "asking"
"""The id that stands for a workflow; the others are those of agents."""

WORDS: Mapping[str, Sequence[Any]] = {
    "agent_id": ("noting", "noting", "talking", "waiting", WORKFLOW),
    "workflow_id": ("noting", "talking", WORKFLOW),
    "payload_json": ("{}", '{"question": "Is it fine?"}'),
    "step_key": ("ok", "later"),
    "wait_id": (0, 2),
    "data_json": ('"yes"', '{"approved": true}'),
    "input": ("Go.", "Hello, world"),
    "service": ("", "polos.v1.RunService"),
}
"""By a field's name, what gets a message past the first look; a new name needs none."""

Values = Callable[[Random, FieldDescriptor], Any]


class Messages:
    """Makes messages, and knows the runs that it may name in them."""

    def __init__(self, run_ids: Sequence[str]) -> None:
        """Name runs out of `run_ids`, which may grow."""
        self._run_ids = run_ids

    def of(self, type_: Descriptor, random: Random, depth: int = 0) -> Message:
        """Return a message of a type with some of its fields set."""
        made = GetMessageClass(type_)()
        for field in type_.fields:
            if field.message_type is not None and depth >= DEPTH:
                continue
            if random.random() < (0.7 if depth == 0 else 0.4):
                self._fill(made, field, random, depth)
        return made

    def plain(self, type_: Descriptor, random: Random) -> Message:
        """Return a message with nothing but what fits the names of its fields."""
        made = GetMessageClass(type_)()
        for field in type_.fields:
            if field.name in WORDS:
                setattr(made, field.name, random.choice(WORDS[field.name]))
            elif "run_id" in field.name and self._run_ids:
                setattr(made, field.name, random.choice(self._run_ids))
        if "payload_json" in type_.fields_by_name:
            starts_workflow = getattr(made, "agent_id", "") == WORKFLOW
            made.ClearField("input" if starts_workflow else "payload_json")
        return made

    def nearly(self, type_: Descriptor, random: Random) -> Message:
        """Return a plain message with one more field, somewhere in it, that may have any value."""
        made = self.plain(type_, random)
        if type_.fields:
            field = random.choice(type_.fields)
            if field.message_type is None or field.is_repeated:
                self._fill(made, field, random, 0)
            else:
                getattr(made, field.name).CopyFrom(self.nearly(field.message_type, random))
        return made

    def _fill(self, made: Message, field: FieldDescriptor, random: Random, depth: int) -> None:
        if field.is_repeated:
            values = [self._value(field, random, depth) for _ in range(random.randrange(REPEATED))]
            if not field_is_map(field):
                getattr(made, field.name).extend(values)
        elif field.message_type is not None:
            getattr(made, field.name).CopyFrom(self._value(field, random, depth))
        else:
            setattr(made, field.name, self._value(field, random, depth))

    def _value(self, field: FieldDescriptor, random: Random, depth: int) -> Any:
        if field.message_type is not None:
            return self.of(field.message_type, random, depth + 1)
        if field.enum_type is not None:
            return random.choice((0, 1, 2, 6, 99, -1, 2**31 - 1))
        return SCALARS[field.type](self, random, field)

    def text(self, random: Random, field: FieldDescriptor) -> str:
        """Return a text: often one that fits the field."""
        if "run_id" in field.name and self._run_ids and random.random() < 0.7:
            return random.choice(self._run_ids)
        if field.name in WORDS and random.random() < 0.8:
            return str(random.choice(WORDS[field.name]))
        return random.choice(TEXTS)

    def bytes(self, random: Random, _field: FieldDescriptor) -> bytes:
        """Return any bytes."""
        return random.randbytes(random.choice((0, 1, 100)))

    def integer(self, random: Random, field: FieldDescriptor) -> int:
        """Return a number that fits the field's type."""
        low, high = BOUNDS[field.type]
        return min(max(random.choice(INTEGERS), low), high)

    def real(self, random: Random, _field: FieldDescriptor) -> float:
        """Return any float."""
        return random.choice(FLOATS)

    def boolean(self, random: Random, _field: FieldDescriptor) -> bool:
        """Return either."""
        return random.random() < 0.5


INT32, INT64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)
UINT32, UINT64 = (0, 2**32 - 1), (0, 2**64 - 1)
BOUNDS = {
    **dict.fromkeys((FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32), INT32),
    **dict.fromkeys((FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64), INT64),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32), UINT32),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64), UINT64),
    FieldDescriptor.TYPE_SFIXED32: INT32,
    FieldDescriptor.TYPE_SFIXED64: INT64,
}
SCALARS: Mapping[int, Callable[[Messages, Random, FieldDescriptor], Any]] = {
    **dict.fromkeys(BOUNDS, Messages.integer),
    FieldDescriptor.TYPE_STRING: Messages.text,
    FieldDescriptor.TYPE_BYTES: Messages.bytes,
    FieldDescriptor.TYPE_BOOL: Messages.boolean,
    FieldDescriptor.TYPE_FLOAT: Messages.real,
    FieldDescriptor.TYPE_DOUBLE: Messages.real,
}


def field_is_map(field: FieldDescriptor) -> bool:
    """Return whether a repeated field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def mutated(data: bytes, random: Random) -> bytes:
    """Return the bytes with a few mistakes in them."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(changed) + 1)
        match random.randrange(5):
            case 0:
                del changed[at:]
            case 1:
                changed[at:at] = random.randbytes(random.randint(1, 8))
            case 2:
                changed[at : at + 1] = bytes([random.randrange(256)])
            case 3:
                changed[at:at] = b"\xff" * 10  # a length, or a number, without end
            case _:
                changed += changed[at:]
    return bytes(changed)
