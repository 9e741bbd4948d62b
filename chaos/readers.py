"""The readers of a run: programs that only iterate, whatever happens to service and links."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import cycle

from chaos.answering import Answering
from chaos.moves import FLOW
from chaos.story import Story
from chaos.tree import apart
from chaos.work import of_work
from polos import (
    Agent,
    AgentStream,
    ConnectionLost,
    Event,
    PolosClient,
    PolosError,
    RunError,
    events,
)
from polos.v1.event_pb2 import Event as EventProto

AGENT = Agent(id="chaos", provider="openai", model="mock")
"""The agent as callers define it: its id is what counts."""

HOP = 5
"""Events after which a reader of a child leaves, if it leaves."""


PATIENCE = 600.0
"""Seconds for which a client tries to reach the service: longer than all processes of a round
take to start on a busy machine. Whether a run hangs shows once the service is up for good."""


class PatientClient(PolosClient):
    """A client that waits longer than that of a program: a round is one long crash loop."""

    def __init__(self, address: str) -> None:
        super().__init__(address, reconnect_timeout=PATIENCE)

    @property
    def patience(self) -> float:
        """Seconds for which a call that reaches nobody is made again."""
        return PATIENCE


class Readers:
    """All readers of a round.

    Attributes:
        stories: the runs that they read, those included that other runs start.
        progress: when one of them saw something new the last time, by the loop's clock.

    """

    def __init__(self, stories: list[Story], saw: Callable[[Story], None]) -> None:
        """Call `saw` whenever a reader of a run has seen something."""
        self.stories = stories
        self._saw = saw
        self.progress = asyncio.get_running_loop().time()

    async def live(self, story: Story, clients: Sequence[PolosClient], life: asyncio.Event) -> None:
        """Start the run by its client and read it to its end in several ways."""
        client = clients[story.plan.client]
        try:
            await life.wait()
            await asyncio.sleep(story.plan.delay)
            story.begun = True
            if story.plan.moves:
                await self._flow(story, clients)
                return
            stream = await AGENT.stream(client, story.plan.name)
            story.run_id = stream.id
            async with asyncio.TaskGroup() as group:
                answering = self._answering(story, clients, group)
                group.create_task(self._iterate(story, stream.events, answering))
                group.create_task(self._hop(story, clients))
                group.create_task(self._listen(story, stream))
                group.create_task(self._cancel(story, client))
            await self._text(story, stream)
            story.done = True
        except* PolosError as errors:
            story.problems += [f"error: {error!r}" for error in errors.exceptions]
        except* asyncio.CancelledError:
            story.problems.append(
                f"terminal: no end came; the reader is at event {len(story.live)}"
            )
            raise

    async def _flow(self, story: Story, clients: Sequence[PolosClient]) -> None:
        """Start a run of the workflow and read it."""
        client = clients[story.plan.client]
        payload = story.plan.told()
        story.run_id = (await client.invoke(FLOW, payload, request_id=story.plan.name)).id
        await self._follow(story, clients)

    async def _follow(self, story: Story, clients: Sequence[PolosClient]) -> None:
        """Read a run and all that it starts to their ends."""
        client = clients[story.plan.client]
        log = events.stream_workflow(client, workflow_run_id=story.run_id)
        async with asyncio.TaskGroup() as group:
            answering = self._answering(story, clients, group)
            group.create_task(self._hop(story, clients))
            group.create_task(self._cancel(story, client))
            await self._iterate(story, self._attended(story, log, clients, group), answering)
        story.done = True

    async def _iterate(
        self,
        story: Story,
        log: AsyncIterator[Event],
        answering: Answering,
    ) -> None:
        async for event in log:
            story.live.append(event.proto)
            self._seen(story)
            answering.see(event)

    async def _attended(
        self,
        story: Story,
        log: AsyncIterator[Event],
        clients: Sequence[PolosClient],
        group: asyncio.TaskGroup,
    ) -> AsyncIterator[Event]:
        """Yield the events of a tree, and let somebody read each run that it starts."""
        async for event in log:
            run_id = event.proto.run_id
            finish = event.proto.step_finish
            if finish.started_run_id:
                self._join(story, finish.started_run_id, finish.step_key, clients, group)
            if run_id != story.run_id and run_id not in story.children:
                seen = story.children[run_id] = []
                client = clients[len(story.children) % len(clients)]
                stays = HOP if len(story.children) % 2 else None
                group.create_task(self._read_child(story, client, run_id, seen, stays))
            yield event
        # A run that was cancelled before its step ended does not tell what that has started.
        async for run in clients[story.plan.client].list_runs(parent_id=story.run_id):
            self._join(story, run.run_id, run.parent_step_key, clients, group)

    def _join(
        self,
        story: Story,
        run_id: str,
        step_key: str,
        clients: Sequence[PolosClient],
        group: asyncio.TaskGroup,
    ) -> None:
        """Let somebody read a run that a step of another has started, unless somebody does."""
        if any(one.run_id == run_id for one in self.stories):
            return
        for number, branch in apart(story.plan):
            if branch.key == step_key:
                plan = of_work(story.plan, branch.work)
                if story.plan.moves[number].kind == "leave":  # the end of its parent is not its own
                    plan = replace(plan, cancel=None)
                joined = Story(plan, run_id, origin=(story.run_id, step_key), begun=True)
                self.stories.append(joined)
                group.create_task(self._follow(joined, clients))
                return
        story.problems.append(f"tree: nobody was to start the run {run_id} in step {step_key}")

    async def _read_child(
        self,
        story: Story,
        client: PolosClient,
        run_id: str,
        seen: list[EventProto],
        stays: int | None,
    ) -> None:
        """Read a child to its end; leave and come back after `stays` events, unless it is None."""
        while not seen or not seen[-1].terminal:
            begin = len(seen)
            source = events.stream_workflow(
                client, workflow_run_id=run_id, last_sequence_id=seen[-1].sequence if seen else 0
            )
            async with aclosing(source) as log:
                async for event in log:
                    seen.append(event.proto)
                    self._seen(story)
                    if len(seen) - begin == stays:
                        break

    def _answering(
        self, story: Story, clients: Sequence[PolosClient], group: asyncio.TaskGroup
    ) -> Answering:
        """Return who answers the run's questions; some answers are on their way already."""
        answering = Answering(story, clients, group)
        answering.early()
        return answering

    async def _hop(self, story: Story, clients: Sequence[PolosClient]) -> None:
        """Read, leave after some events, and come back elsewhere with the cursor, to the end."""
        elsewhere = cycle(clients)
        for stay in story.plan.hops:
            after = story.hopped[-1].sequence if story.hopped else 0
            story.cursors.append(after)
            source = events.stream_workflow(
                next(elsewhere), workflow_run_id=story.run_id, last_sequence_id=after
            )
            begin = len(story.hopped)
            async with aclosing(source) as log:
                async for event in log:
                    story.hopped.append(event.proto)
                    self._seen(story)
                    if len(story.hopped) - begin == stay:
                        break
            if story.hopped and story.hopped[-1].terminal:
                return
        if story.plan.hops:
            after = story.hopped[-1].sequence
            log = events.stream_workflow(
                next(elsewhere), workflow_run_id=story.run_id, last_sequence_id=after
            )
            story.hopped += [event.proto async for event in log]

    async def _listen(self, story: Story, stream: AgentStream) -> None:
        if not story.plan.chunks:
            return
        story.chunks = []
        try:
            async for chunk in stream.text_chunks:
                story.chunks.append(chunk)
                self._seen(story)
        except RunError:
            pass  # what a run ended with is checked by its log

    async def _cancel(self, story: Story, client: PolosClient) -> None:
        """Cancel the run, again if nobody answers."""
        if story.plan.cancel is None or story.origin is not None:
            return
        await asyncio.sleep(story.plan.cancel)
        while not story.cancelled:
            try:
                await client.cancel_run(story.run_id)
                story.cancelled = True
            except ConnectionLost:
                await asyncio.sleep(0.1)

    async def _text(self, story: Story, stream: AgentStream) -> None:
        try:
            story.text = await stream.text()
        except RunError as error:
            story.error = type(error).__name__

    def _seen(self, story: Story) -> None:
        self.progress = asyncio.get_running_loop().time()
        self._saw(story)
