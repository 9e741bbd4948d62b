"""The children of one run: how its steps begin them, and which ones the log has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

from google.protobuf.message import Message

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.runs.attempt import Attempt, check_start
from polos_service.runs.branch import Branch, Child
from polos_service.runs.journal import Journal
from polos_service.runs.lineage import Lineage, Origin
from polos_service.runs.private import child_line

MAX_DEPTH = 32
"""Runs above a child, one inside the other, at most."""

C_co = TypeVar("C_co", bound=Child, covariant=True)


class ChildRuns(Generic[C_co]):
    """The children of one run, while its code is run once."""

    def __init__(
        self, branch: Branch, depth: int, context: Callable[[Branch, int, int], C_co]
    ) -> None:
        """Begin with what the log has.

        Args:
            branch: the run.
            depth: how many runs are above it, in other logs, too.
            context: returns the context of a child: of its branch, its creation time in
                nanoseconds since the epoch, and its depth.

        """
        self._branch = branch
        self._depth = depth
        self._context = context
        self._holding = branch.holding
        self._origins: set[Origin] = set()

    @property
    def are_too_deep(self) -> bool:
        """Whether there are MAX_DEPTH runs above this one, so that it cannot begin children."""
        return self._depth == MAX_DEPTH

    def require_depth(self, step_key: str) -> None:
        """Refuse to start a run in a step, a child or one with a log of its own.

        Raises:
            StepError: there are MAX_DEPTH runs above that run.

        """
        if self.are_too_deep:
            raise StepError(
                FailureReason.FAILURE_REASON_TOO_DEEP,
                f"The step {step_key!r} cannot start a run: there are {MAX_DEPTH} runs above it, "
                "one inside the other, which is the limit.",
            )

    def recorded(self, attempt: Attempt) -> Journal | None:
        """Return what the log has of the child of an attempt; None if it has nothing."""
        return self._found(attempt.key, attempt.number)

    def last(self, key: str) -> Journal | None:
        """Return what the log has of the child of a step's last attempt; None if nothing."""
        return self._found(key, self._branch.journal.attempts.get(key, 0))

    def _found(self, key: str, attempt: int) -> Journal | None:
        return self._holding.journals.child(Origin(self._branch.run_id, key, attempt))

    async def begin(
        self,
        attempt: Attempt,
        workflow_id: str,
        payload: Message,
        *,
        definition: bytes = b"",
        deadline: int | None = None,
    ) -> C_co:
        """Return the context of the child that this attempt of a step begins, or has begun.

        When this returns the child's first event is durable: its code may begin, and its id
        be told. The child ends with `RunContext.finish`.

        Args:
            attempt: an attempt of a step of this run; it begins one child at most.
            workflow_id: the agent or workflow that the child executes.
            payload: the child's first event, if it begins now.
            definition: what it is started with, stored beside that event.
            deadline: when it must have ended, in nanoseconds since the epoch; None: never.

        Raises:
            StepError: the first event or the definition is larger than every store takes, or
                there are MAX_DEPTH runs above the child.
            ValueError: the attempt has begun a child before.

        """
        origin = Origin(self._branch.run_id, attempt.key, attempt.number)
        if origin in self._origins:
            raise ValueError(
                f"Step {attempt.key!r} of run {self._branch.run_id} has a child already."
            )
        self._origins.add(origin)
        attempt.spoke = True
        journal = self._holding.journals.child(origin)
        if journal is None or journal.lineage is None:
            return await self._begun(origin, workflow_id, payload, definition, deadline)
        recorded = journal.lineage.workflow_id
        if recorded != workflow_id:
            await self._branch.leave(
                self._branch.nondeterministic(attempt.key, "the child", recorded, workflow_id)
            )
        return self._go_on(attempt.key, journal)

    def take_up(self, key: str, attempt: int) -> None:
        """Have the child under way that the log has of an attempt of a step, if it has one."""
        journal = self._found(key, attempt)
        if journal is not None and key not in self._branch.children:
            self._go_on(key, journal)

    async def _begun(
        self,
        origin: Origin,
        workflow_id: str,
        payload: Message,
        definition: bytes,
        deadline: int | None,
    ) -> C_co:
        """Return the context of a child that begins now."""
        self.require_depth(origin.step_key)
        writer = self._holding.writer
        run_id = f"{self._holding.root}:{writer.latest + 1}"
        private = child_line(run_id, definition, deadline) if definition else b""
        check_start(workflow_id, len(private))
        lineage = Lineage(run_id, workflow_id, origin)
        journal = Journal(lineage, definition=definition, deadline=deadline)
        branch = Branch(self._holding, lineage, journal, self._branch.numbers)
        child = self._context(branch, self._holding.clock.now(), self._depth + 1)
        branch.emit(payload, private)
        self._branch.children[origin.step_key] = child  # whoever gives the step up finds it
        await writer.flush()
        return child

    def _go_on(self, key: str, journal: Journal) -> C_co:
        """Return the context of a child that the log has."""
        lineage = cast("Lineage", journal.lineage)
        branch = Branch(self._holding, lineage, journal, self._branch.numbers)
        child = self._context(branch, journal.start_time, self._depth + 1)
        self._branch.children[key] = child
        return child
