"""AgentStream: a run that was started to be read as it goes."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn, Self

from polos.v1 import event_pb2 as pb
from polos_client.calls.connection import Connection
from polos_client.calls.follow import LogCall, events, fold, follow
from polos_client.calls.handle import ExecutionHandle
from polos_client.draft import Draft
from polos_client.errors import DefinitionError
from polos_client.event import Event
from polos_client.fold import RunAccumulator
from polos_client.result import AgentResult


class TextChunk(str):
    """A piece of an agent's text.

    Attributes:
        reset: True in an empty chunk that voids every earlier chunk with the same `step_key`: that
            model call starts over, or its text is not part of the result of an agent with an
            output_schema.
        step_key: the model call that generated the text, for example `llm:1`.

    """

    __slots__ = ("reset", "step_key")
    reset: bool
    step_key: str

    def __new__(cls, text: str, *, step_key: str, reset: bool = False) -> Self:
        """Make a chunk of `text`."""
        chunk = super().__new__(cls, text)
        chunk.step_key = step_key
        chunk.reset = reset
        return chunk


class AgentStream:
    """The stream of a run.

    Its members may be used in any order, more than once, and concurrently: the first one reads the
    run live, the others read it from its log. Leaving a loop early leaks nothing. Dropping the
    stream detaches from the run, which continues.

    Attributes:
        client: the client of the service.
        handle: the run's handle; the stream has its attributes as well.
        agent_run_id: the run, as `id`.
        topic: where its events are published: `workflow/{workflow_id}/{id}`.

    """

    def __init__(
        self, client: Connection, handle: ExecutionHandle, opened: LogCall, output: Any = None
    ) -> None:
        """Take over `opened`, a call that reads the log of the handle's run from the start.

        `output` is the type of the agent's answers; None if it answers with text.
        """
        self.client = client
        self.handle = handle
        self.id = self.agent_run_id = handle.id
        self.topic = f"workflow/{handle.workflow_id}/{handle.id}"
        self.workflow_id = handle.workflow_id
        self.created_at = handle.created_at
        self.parent_execution_id = handle.parent_execution_id
        self.root_workflow_id = handle.root_workflow_id
        self.root_execution_id = handle.root_execution_id
        self.session_id = handle.session_id
        self.user_id = handle.user_id
        self.step_key = handle.step_key
        self._opened: LogCall | None = opened
        self._output = output
        self._folded: RunAccumulator | None = None
        # grpc itself does not end a call that nobody refers to any more (ran).
        self._unread = weakref.finalize(self, opened.cancel)
        self._unread.atexit = False

    def __repr__(self) -> str:
        return f"<AgentStream {self.agent_run_id}>"

    if not TYPE_CHECKING:  # checkers refuse the loop by themselves, where there is no such method

        def __aiter__(self) -> NoReturn:
            """Refuse: there are several ways to go through a stream."""
            raise TypeError(
                "an AgentStream is not iterated itself: `async for` goes over stream.events, "
                "stream.text_chunks or stream.partial"
            )

    @property
    def events(self) -> AsyncGenerator[Event, None]:
        """Every event from the start, until the terminal one. A failed run raises nothing.

        Raises:
            ConnectionLost: the service could not be reached, or violated its protocol.
            CallError: the service refused, for example because the run was removed.

        """
        return events(self.client, self.id, self.workflow_id, opened=self._take())

    @property
    def text_chunks(self) -> AsyncGenerator[TextChunk, None]:
        """The text of the agent's own model calls, as it is generated.

        Raises:
            RunError: at the end, if the run failed, was cancelled or timed out.
            ConnectionLost: the service could not be reached, or violated its protocol.
            CallError: the service refused, for example because the run was removed.

        """
        return self._text_chunks()

    @property
    def partial(self) -> AsyncGenerator[Any, None]:
        """The answer of an agent with an output_schema, as far as it is written, as JSON values.

        Each draft is the whole answer so far and replaces the previous one; the last one is the
        complete answer, as `json.loads` returns it. Earlier drafts are dicts, lists or strings.
        Drafts are not validated, because members are missing until the model has written them:
        `result()` returns the instance. A string in a draft may be incomplete; a number, `true`,
        `false` or `null` appears once it is complete. If a model call is retried, or its answer is
        invalid, the next draft starts from nothing. At most one draft is made for each message of
        the service, and a long text grows by 1/128 between two drafts.

        Raises:
            DefinitionError: the agent has no output_schema.
            RunError: at the end, if the run failed, was cancelled or timed out.
            ConnectionLost: the service could not be reached, or violated its protocol.
            CallError: the service refused, for example because the run was removed.

        """
        return self._partial()

    async def text(self) -> str:
        """Return the whole text of the agent's own model calls, once the run has ended.

        For an agent with an output_schema, it is the JSON text of the result.

        Raises:
            RunError: the run failed, was cancelled or timed out.
            ConnectionLost: the service could not be reached, or violated its protocol.
            CallError: the service refused, for example because the run was removed.

        """
        folded = await self._fold()
        folded.check()
        return folded.text

    async def result(self) -> AgentResult:
        """Return the result, with all tool results, once the run has ended.

        Raises:
            RunError: the run failed, was cancelled or timed out.
            ConnectionLost: the service could not be reached, or violated its protocol.
            CallError: the service refused, for example because the run was removed.
            ResultMismatch: the result is of a class that this process does not have.

        """
        return (await self._fold()).result(self._output)

    async def get(self) -> dict[str, Any]:
        """Return the state of the run, as `ExecutionHandle.get` does."""
        return await self.handle.get(self.client)

    async def cancel(self) -> bool:
        """Cancel the run; False if it had already ended otherwise."""
        return await self.handle.cancel(self.client)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes of the handle, with `agent_run_id` and `topic`."""
        return {**self.handle.to_dict(), "agent_run_id": self.id, "topic": self.topic}

    def _batches(self) -> AsyncGenerator[Sequence[pb.Event], None]:
        return follow(self.client, self.id, opened=self._take())

    def _take(self) -> LogCall | None:
        """Return the call that `agent.stream` opened, to the first who asks."""
        self._unread.detach()
        opened, self._opened = self._opened, None
        return opened

    async def _fold(self) -> RunAccumulator:
        if self._folded is None:
            self._folded = await fold(self.client, self.id, opened=self._take())
        return self._folded

    async def _text_chunks(self) -> AsyncGenerator[TextChunk, None]:
        folded = RunAccumulator(self.agent_run_id)
        said: set[str] = set()
        async with aclosing(self._batches()) as batches:
            async for batch in batches:
                folded.add(batch)
                for event in batch:
                    own = event.run_id == self.agent_run_id
                    if own and (chunk := _chunk(event, said, folded)) is not None:
                        yield chunk
        folded.check()  # raises what the run ended with: a cut answer is no whole one

    async def _partial(self) -> AsyncGenerator[Any, None]:
        folded, draft = RunAccumulator(self.agent_run_id), Draft()
        async with aclosing(self._batches()) as batches:
            async for batch in batches:
                folded.add(batch)
                if folded.is_typed is False:
                    raise DefinitionError(
                        f"The agent {self.workflow_id!r} has no output_schema: its answer is text. "
                        "Define it with an output_schema, or read stream.text_chunks."
                    )
                for value in draft.changed(folded.pieces):
                    yield value
        folded.check()
        for value in draft.ended(folded.text):
            yield value


def _chunk(event: pb.Event, said: set[str], folded: RunAccumulator) -> TextChunk | None:
    """Return what an event adds to its run's text; None if it adds nothing.

    Args:
        event: an event of the run.
        said: the steps whose text was said and not taken back; kept up to date.
        folded: the events up to this one, and perhaps some after it.

    """
    if event.HasField("text_delta"):
        delta = event.text_delta
        said.add(delta.step_key)
        return TextChunk(delta.content, step_key=delta.step_key)
    if event.HasField("step_retry"):
        key = event.step_retry.step_key
    elif event.HasField("step_finish") and folded.takes_back(event.step_finish):
        key = event.step_finish.step_key
    else:
        return None
    if key not in said:
        return None
    said.remove(key)
    return TextChunk("", step_key=key, reset=True)
