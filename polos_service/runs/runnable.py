"""What can be started by its id, and what a start asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import uuid_utils
from google.protobuf.message import Message

from polos_client.deadlines import Deadlines
from polos_service.caller import Caller
from polos_service.runs.context import RunContext
from polos_service.runs.frame import SECOND
from polos_service.runs.preview import preview_of
from polos_service.runs.spending import TreeBudget
from polos_service.store import NewRun, Parent

AGENT: Literal["agent"] = "agent"
"""The kind of what takes a conversation; everything else takes a payload."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """A start: what is to run, with what, for whom.

    Attributes:
        caller: who starts it; the run belongs to their project.
        runnable_id: what is to run.
        payload: what it is given, a JSON value; an agent takes a conversation, which is a
            list of messages in the form of the OpenAI chat API.
        payload_json: what a workflow is given, as JSON text; None if there is nothing, and for
            an agent.
        digest: the same for two starts that ask for the same run; tells a repeated
            `request_id` from a reused one.
        size: bytes that the start had when it was received.
        model_options: parameters of the provider's API.
        initial_state: what tools find in their context, as JSON values.
        deadlines: those of this run; what is None is up to the runnable.
        session_id: groups runs; at most 256 characters.
        user_id: whom it is for; at most 256 characters.
        streaming: whether the log carries text and tool calls as they come.
        request_id: makes the start idempotent within the project; at most 128 characters.
        parent: the step that starts it, as an independent run; None if a caller does.
        budget: what it and its children may use; None: any. Children have that of the root run.

    """

    caller: Caller
    runnable_id: str
    payload: Any
    payload_json: str | None = None
    digest: bytes
    size: int
    model_options: Mapping[str, Any]
    initial_state: Mapping[str, Any]
    deadlines: Deadlines
    session_id: str | None = None
    user_id: str | None = None
    streaming: bool = False
    request_id: str | None = None
    parent: Parent | None = None
    budget: TreeBudget | None = None


class Runnable(Protocol):
    """What can be started by its id: an agent, for example."""

    @property
    def kind(self) -> str:
        """What it is: `agent`."""
        ...

    @property
    def id(self) -> str:
        """Its id, unique in a service."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds that a run takes at most, waits included, if its start names no other bound.

        None: `work_limit` counts instead.
        """
        ...

    @property
    def work_limit(self) -> float | None:
        """Seconds that a run without a timeout works at most, not counting its waits; None: any."""
        ...

    def pin(self, request: RunRequest) -> bytes:
        """Return the definition of a run, as `runs.pinned` says.

        Called in a thread if the request is large.

        Raises:
            InvalidRequest: the runnable cannot be started with this.

        """
        ...

    def other_version(self, pinned: bytes) -> str | None:
        """Return the version of the code that a run was started with; None if it is this one.

        Raises:
            Unable: the definition is of another kind, or a newer version.
            ValueError: it is damaged.

        """
        ...

    async def first(self, pinned: bytes) -> Message:
        """Return the payload of the event that a run of a definition begins with.

        Raises:
            Unable: the definition is of another kind, or a newer version.
            ValueError: it is damaged.

        """
        ...

    async def run(self, ctx: RunContext, pinned: bytes) -> Message:
        """Run a definition, whatever the code says by now, and return the terminal payload.

        Raises:
            StepError: a step failed for good.

        """
        ...


def new_run(runnable: Runnable, request: RunRequest, definition: bytes, now: int) -> NewRun:
    """Return the run that a start makes.

    Args:
        runnable: what is to run.
        request: the start.
        definition: what the runnable has pinned for it.
        now: the time, in nanoseconds since the epoch.

    """
    timeout = request.deadlines.run or runnable.timeout
    return NewRun(
        project=request.caller.project,
        run_id=str(uuid_utils.uuid7()),
        workflow_id=runnable.id,
        request_id=request.request_id,
        digest=request.digest,
        definition=definition,
        session_id=request.session_id,
        user_id=request.user_id,
        streaming=request.streaming,
        create_time=now,
        deadline=now + round(timeout * SECOND) if timeout else None,
        parent=request.parent,
        input_preview=preview_of(
            request.payload if request.payload_json is None else request.payload_json
        ),
    )
