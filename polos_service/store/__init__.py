"""The RunStore port: an ordered, durable log for each run, and who may write it.

Every record and every read is keyed by project first. To a store, frames and commands are
bytes: it does not know what the events in a frame mean, or what a command asks for.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from polos.v1.run_pb2 import RunState

CANCEL = "cancel"
"""The kind of a command that cancels, and the id of the one that cancels a root run. No other
command has that id. An inbox takes that one even when it is full."""

EARLY = "early"
"""The kind of a command that the run has not come to yet. These have room of their own in an
inbox, so that they never take that of the others."""

SETTLED = "settled"
"""The kind of a command that the run has done with, or that asks for nothing. It keeps its id, and
takes no room."""

INBOX_LIMIT = 1000
"""Commands that a run's inbox holds at most. The one whose id is CANCEL does not count, nor do
those of the kinds EARLY and SETTLED."""

INBOX_BYTES = 8 * 1024 * 1024
"""Bytes that the payloads of the same commands have at most."""

EARLY_LIMIT = 100
"""Commands of the kind EARLY that a run's inbox holds at most."""

EARLY_BYTES = 1024 * 1024
"""Bytes that their payloads have at most."""

OPEN_LIMIT = 1000
"""Open waits of a run that are returned at most."""

OPEN_BYTES = 8 * 1024 * 1024
"""Bytes of the data of open waits of a run that are returned at most."""

PARKED = "parked"
"""The member of a release's private line that tells that the run was suspended."""

LEFT_LIMIT = 1024
"""Characters of the text that says why a run was left, at most."""

ENDED = frozenset(
    {RunState.RUN_STATE_COMPLETED, RunState.RUN_STATE_FAILED, RunState.RUN_STATE_CANCELLED}
)
"""The states that a terminal frame leaves a run in."""

Key = tuple[str, str]
"""Project and id of a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """The step that has started a run which has a log of its own.

    Attributes:
        root: the root run in whose log the step is.
        run_id: the run whose step it is: that root run, or a child.
        step_key: the step; it starts one run at most.
        depth: how many runs are above the one that was started, from 1.

    """

    root: str
    run_id: str
    step_key: str
    depth: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRun:
    """A run to be created. Times are nanoseconds since the epoch.

    Attributes:
        request_id: makes the creation idempotent within the project, unless it is None.
        digest: hash of the payload, to tell a repeated request from a reused request id.
        definition: everything that the run is started with. Of it, only the input is ever served.
        deadline: when the run must have ended; None if it may take any time.
        parent: the step that starts it; None if a caller does. With `digest` it makes the creation
            idempotent, as a request id does, and no request id is ever taken for it.
        input_preview: the beginning of the input, for lists; empty if they do not show it.

    """

    project: str
    run_id: str
    workflow_id: str
    request_id: str | None
    digest: bytes
    definition: bytes
    session_id: str | None
    user_id: str | None
    streaming: bool
    create_time: int
    deadline: int | None
    parent: Parent | None = None
    input_preview: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """What is known of a run besides its log. Times are nanoseconds since the epoch.

    Attributes:
        latest: sequence of the newest event, 0 if there is none.
        left: why the last process that had the run left it to others; empty if none did, or the
            run has gone on since: it has had an event, or was suspended.
        parent: the step that has started it; None if a caller has.
        input_preview: as the run was created with it.

    """

    run_id: str
    workflow_id: str
    state: RunState.ValueType
    session_id: str | None
    user_id: str | None
    streaming: bool
    create_time: int
    start_time: int | None
    finish_time: int | None
    latest: int
    left: str = ""
    parent: Parent | None = None
    input_preview: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A message to a run, for the holder of its claim.

    Attributes:
        id: unique in the inbox of a root run, at most 128 characters. A command with the id of
            an earlier one is ignored. CANCEL is the id of the command that cancels the root run.
        kind: what is asked for, for example CANCEL. A holder ignores kinds that it does not know.
        run_id: the run that the command is for: the root, or one of its children.
        step_key: the step that the command is for; empty if it is for the whole run.
        payload: JSON text of at most 480 KiB; empty if there is none.

    """

    id: str
    kind: str
    run_id: str
    step_key: str = ""
    payload: bytes = b""

    def cancels(self, run_id: str) -> bool:
        """Return whether it cancels this run, and not only a child of it."""
        return self.kind == CANCEL and self.run_id == run_id


ENDED_RUN = "ended-"
"""What the ids of the commands begin with that tell the ends of other runs."""


def end_of(run_id: str, root: str) -> Command:
    """Return the command that tells a root run of the end of another run.

    It is of the kind SETTLED: there is always room for it.
    """
    digest = hashlib.sha256(run_id.encode(errors="surrogatepass")).hexdigest()[:40]
    return Command(id=ENDED_RUN + digest, kind=SETTLED, run_id=root, payload=SAYS_NOTHING)


SAYS_NOTHING = b'{"ending":"answered","digest":""}'
"""The payload of that command: versions that do not know it pass over it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitRecord:
    """An open wait, as the index of open waits has it. It is a cache: the log is the truth.

    Attributes:
        run_id: the root run.
        wait_id: sequence of the wait's event in the log of the root run.
        create_time: when the wait began, in nanoseconds since the epoch.
        data: what is told of it; at most 300 KiB, and not decoded by the store.
        order: grows with the time at which waits were opened, where the store does not order them
            by `create_time`.

    """

    run_id: str
    wait_id: int
    create_time: int
    data: bytes
    order: int | None = field(default=None, compare=False)

    @property
    def place(self) -> tuple[int, str, int]:
        """Where it stands among the waits of its project: oldest first."""
        first = self.create_time if self.order is None else self.order
        return first, self.run_id, self.wait_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Overdue:
    """A run that is open though it should have ended. `held` tells whether somebody holds it."""

    project: str
    run_id: str
    held: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """The right to write a run's log, until a claim with a greater epoch begins.

    Attributes:
        epoch: 1 for the run's first claim, before which its log is empty; greater for each
            further one.
        latest: sequence of the newest event when the claim began, 0 if there was none.
        commands: what the run's inbox held when the claim began, in order of arrival.
        parent: the step that has started the run; None if a caller has.

    """

    project: str
    run_id: str
    workflow_id: str
    epoch: int
    latest: int
    create_time: int
    deadline: int | None
    definition: bytes
    commands: tuple[Command, ...]
    parent: Parent | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Events `first` to `last`, encoded.

    Attributes:
        outcome: the state that a terminal frame leads to.
        branches: the numbers under which the frame is found by `read`: of the children that its
            events belong to, and of the children above these. None: not known.

    """

    first: int
    last: int
    data: bytes
    outcome: RunState.ValueType | None = None
    branches: frozenset[int] | None = field(default=None, compare=False)

    def may_hold(self, branch: int) -> bool:
        """Return whether it may hold events of a branch."""
        return self.branches is None or branch in self.branches


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """A piece of a log. If `ended`, no event after `latest` will ever come.

    Attributes:
        covered: the last sequence of the piece, the frames that were left out included.

    """

    frames: Sequence[Frame]
    latest: int
    ended: bool
    covered: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A frame of the log with its private part. A claim frame has no data."""

    data: bytes
    private: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class RunQuery:
    """Which runs to list, newest first. Every filter that is not None must hold.

    Attributes:
        before: only runs with a smaller, that is older, id; the cursor of a page.
        created_from: nanoseconds since the epoch, inclusive.
        created_before: nanoseconds since the epoch, exclusive.
        parent_root: only runs that a step in the log of this root run has started.
        parent_run_id: only runs that a step of this run has started, a root run or a child.

    """

    limit: int
    before: str | None = None
    workflow_id: str | None = None
    state: RunState.ValueType | None = None
    session_id: str | None = None
    user_id: str | None = None
    created_from: int | None = None
    created_before: int | None = None
    parent_root: str | None = None
    parent_run_id: str | None = None


class RunStore(Protocol):
    """Durable logs. Every method may raise StoreUnavailable."""

    @property
    def shared(self) -> bool:
        """Whether several processes may work on it at once."""
        ...

    async def create(self, run: NewRun) -> str:
        """Store a queued run; return its id, or that of the run that its request id has made.

        The same holds for the step that starts a run: it makes one run.

        Raises:
            RequestIdReused: the request id, or the step, made a run with another digest.
            TooManyRuns: as many runs are queued as the store was opened with as its bound.

        """
        ...

    async def claim(self, workflows: Collection[str], limit: int) -> Sequence[Claim]:
        """Wait for queued runs of these workflows, and claim up to `limit` of them.

        Projects take turns as `fairness` describes. Within a project the oldest run comes first;
        on a store of many processes, the oldest of each workflow. Returns one claim at least, and
        does not wait for more. Each claim frame is durable then, and every earlier claim is
        fenced. `workflows` is read again whenever a run is queued.
        Cancelling the wait leaves no claim behind.
        """
        ...

    async def claim_run(self, project: str, run_id: str, *, force: bool = False) -> Claim | None:
        """Claim this run, which has to end, if it is queued; None if it is held or has ended.

        With `force`, a run that is held is taken from its holder, who is fenced: for one
        whose holder does not end it. This works for every workflow and decodes nothing, so
        that a run with a damaged log can be ended as well; a definition that the store has
        lost is empty.
        """
        ...

    async def overdue(self, now: int, stuck: int) -> Sequence[Overdue]:
        """Return some open runs that should have ended: at their deadline, or when cancelled.

        They are queued, and should have ended at or before `now`, or held, and should have
        ended at or before `stuck`: their holder does not end them. Both are nanoseconds since
        the epoch. The cost does not grow with the number of runs that are queued or have ended.
        """
        ...

    async def waiting(self) -> Mapping[str, int]:
        """Return how many runs are queued, by workflow."""
        ...

    async def release(self, claim: Claim, *, failed: bool = False, left: str = "") -> None:
        """Queue the claim's run again, for anyone. Nothing happens if it was lost or ended.

        `failed` says that the claim ended by a failure. It is noted in the log, and such a
        claim counts towards giving the run up. `left` says in at most LEFT_LIMIT characters why
        its holder cannot go on with the run: see `RunRecord`.
        """
        ...

    def append(self, claim: Claim, frame: Frame, private: bytes = b"") -> Awaitable[None]:
        """Append a frame. It is durable when this is done, and readers are woken.

        The frame is stored even if whoever awaits this is cancelled.

        Raises:
            Fenced: the claim was lost, or the run has ended.
            ValueError: the frame does not begin at the newest sequence plus 1.

        """
        ...

    async def read(
        self, project: str, run_id: str, after: int, limit: int, branch: int | None = None
    ) -> Slice:
        """Return the frames that hold events after `after`, whole, in order.

        Stops at the frame that reaches `limit` bytes, or earlier: only a Slice that covers nothing
        after `after` says that there are no more. The first frame may begin at or before `after`.

        Args:
            project: the run's project.
            run_id: the root run.
            after: the cursor.
            limit: bytes.
            branch: the number of a child. Frames that hold no event of it, nor of the runs below
                it, may be left out; the last one of a run that has ended never is. A store leaves
                out what it can without reading it.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.

        """
        ...

    async def wait(self, project: str, run_id: str, after: int) -> None:
        """Return when the log holds an event after `after`, or the run has ended.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.

        """
        ...

    def follow(self, project: str, run_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called whenever the log has grown, or the run has ended or was removed.

        It is called in the loop, must not raise, and may be called without a reason. Follow
        first, then read: only a run that was read is followed for certain.

        Returns:
            What ends it; to be called once.

        """
        ...

    def history(self, claim: Claim) -> AsyncIterator[Entry]:
        """Yield the whole log with its private parts, for the holder to fold."""
        ...

    async def command(self, project: str, run_id: str, command: Command) -> Command | None:
        """Put a command last into the inbox of a root run, and wake the run or its holder.

        It is durable when this returns, and a suspended run is queued again. If the inbox holds
        a command with this id, whatever else is in it, nothing happens: the first writer wins.
        The command that cancels the root run is always taken; from then on the run is overdue.

        Returns:
            The command that stands in the inbox under this id: this one, or the earlier one.
            None if the run has ended: nothing happens then.

        Raises:
            ValueError: it has the id CANCEL and does not cancel the root run, or it cancels
                the root run and has another id.
            RunExpired: the run was removed by `expire`.
            RunNotFound: there is no such run.
            TooManyCommands: the inbox would hold more than INBOX_LIMIT commands or
                INBOX_BYTES bytes of payloads, or more than EARLY_LIMIT or EARLY_BYTES for
                one of the kind EARLY. One of the kind SETTLED always finds room.

        """
        ...

    async def settle(self, project: str, run_id: str, command: Command) -> None:
        """Put a command of the kind SETTLED in the place of the one that has its id.

        The place in the order of arrival stays, and whoever has seen the one has seen the other.
        Nothing happens if the inbox has none with this id, or one of the kind SETTLED.

        Raises:
            RunExpired: the run was removed by `expire`.
            RunNotFound: there is no such run.

        """
        ...

    async def commands(self, claim: Claim, seen: int) -> Sequence[Command]:
        """Wait until the run's inbox holds more than `seen` commands; return those behind them.

        They are in order of arrival. An inbox keeps its commands until the run has ended.

        Raises:
            Fenced: the claim was lost, as far as a store of many processes can tell.

        """
        ...

    async def inbox(self, project: str, run_id: str) -> Sequence[Command]:
        """Return what the run's inbox holds now, in order of arrival; nothing once it has ended.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.

        """
        ...

    async def suspend(
        self, claim: Claim, *, wake_at: int | None, seen: int, deadline: int | None
    ) -> bool:
        """Release the claim and suspend its run, until a command comes or a time has come.

        Then the run is queued again, as `release` does it, whatever bound there is on queued runs.
        The release is marked in the log as one that lost nothing, with PARKED in its private
        part. A suspended run is not overdue and not in `waiting`.

        Args:
            claim: the claim; everything that was appended with it is durable.
            wake_at: when the run is queued again, in nanoseconds since the epoch; None: only by a
                command. At its deadline it is queued again in any case.
            seen: commands in the inbox that the holder has seen.
            deadline: the run's deadline from now on; None if it has none.

        Returns:
            False if the inbox holds more than `seen` commands: the claim is still held, and
            nothing has happened.

        Raises:
            Fenced: the claim was lost, or the run has ended.

        """
        ...

    async def wake(self, project: str, run_id: str) -> bool:
        """Queue a run again now, if it is suspended; return whether it was."""
        ...

    def on_room(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called whenever runs have left the queue, until the returned function is.

        On a store of many processes: whenever this process has claimed runs.
        """
        ...

    async def watch(self, project: str, run_id: str, root: str) -> bool:
        """Have the end of a run told to a root run that waits for it; again is the same as once.

        Then the command `end_of` is in the inbox of the root run, which is woken by it. On a store
        for one process it is there as soon as the end is; on others, before the run's last holder
        has let go of it, or by whoever finds that it has not.

        Returns:
            False if the run has ended: nothing is told then.

        Raises:
            RunExpired: the run was removed by `expire`.
            RunNotFound: there is no such run.

        """
        ...

    async def watched(self, project: str, run_id: str) -> bool:
        """Return whether the end of a run is told to anybody: `watch` has said so before.

        It may have said so for a wait that is over by now.
        """
        ...

    async def open_wait(self, project: str, wait: WaitRecord) -> None:
        """Put a wait into the index of open waits; again is the same as once.

        It leaves the index by `close_wait`, or when the run has ended or was removed.
        """
        ...

    async def close_wait(self, project: str, run_id: str, wait_id: int) -> None:
        """Take a wait out of the index, if it is there."""
        ...

    async def open_waits(self, project: str, run_id: str) -> Sequence[WaitRecord]:
        """Return the waits of a root run that are in the index, oldest first.

        At most OPEN_LIMIT, and as many as have OPEN_BYTES of data.
        """
        ...

    async def list_waits(
        self, project: str, limit: int, after: tuple[int, str, int] | None = None
    ) -> Sequence[WaitRecord]:
        """Return up to `limit` waits of a project that are in the index, oldest first.

        Args:
            project: whose runs wait.
            limit: how many to return at most.
            after: the `place` of the last one of the page before; None: from the first.

        """
        ...

    async def get(self, project: str, run_id: str) -> RunRecord:
        """Return the run's record.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.

        """
        ...

    async def list(self, project: str, query: RunQuery) -> Sequence[RunRecord]:
        """Return the runs that the query asks for."""
        ...

    async def definition(self, project: str, run_id: str) -> bytes:
        """Return what a root run was created with; nothing if the store has lost it.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.

        """
        ...

    async def private(self, project: str, run_id: str, sequence: int) -> bytes:
        """Return what is stored beside the event of a root run's log, and beside those around it.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.

        """
        ...

    async def delete(self, project: str, run_id: str) -> None:
        """Remove an ended run, whole.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.
            RunNotFinished: it has not ended.

        """
        ...

    async def expire(self, before: int) -> bool:
        """Remove a piece of a run that ended before this time; False if there is none.

        The tombstone comes first: from then on every read of the run raises RunExpired.
        """
        ...

    async def healthy(self) -> bool:
        """Return whether the store answers now."""
        ...

    async def close(self) -> None:
        """Finish what was submitted and release the store."""
        ...
