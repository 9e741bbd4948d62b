"""Those who answer the questions of a run: at once, several together, early, late, or wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from chaos.questions import NOWHERE, Question, Said
from chaos.story import Story
from chaos.tree import branches
from chaos.work import Work
from polos import CallError, ConnectionLost, Event, PolosClient
from polos.v1.run_service_pb2 import ResumeRunRequest
from polos.v1.run_service_pb2_grpc import RunServiceStub

Place = tuple[str, str]
"""A run, the root or a child, and a key in it."""


class Answering:
    """Answers what one run and its children ask, and notes which answers were accepted."""

    def __init__(
        self, story: Story, clients: Sequence[PolosClient], group: asyncio.TaskGroup
    ) -> None:
        self._story = story
        self._clients = clients
        self._group = group
        self._questions: dict[Place, Question] = {}
        self._over: dict[Place, asyncio.Event] = {}
        self._planned: dict[Place, Work] = {}
        self._known: set[str] = set()
        self._expect(story.run_id, story.plan)

    def early(self) -> None:
        """Send the answers that are to come before their question."""
        for (run_id, _), question in self._questions.items():
            if question.early:
                racing = [one for one in question.answers if one.way == "racing"]
                self._send(run_id, question, 0, racing)

    def see(self, event: Event) -> None:
        """Answer the question that this event asks, if it asks one, of the root run or a child."""
        run_id, told = event.proto.run_id, event.proto
        if run_id not in self._known:
            work = self._planned.get((told.parent_run_id, told.parent_step_key))
            if work is not None:
                self._expect(run_id, work)
        if over := self._over.get((run_id, told.resumed.step_key)):
            over.set()
        question = self._questions.get((run_id, told.suspended.step_key))
        if question is not None:
            answers = [one for one in question.answers if one.way != "racing" or not question.early]
            self._send(run_id, question, told.sequence, answers)
        if told.terminal:
            for one in self._over.values():
                one.set()

    def _expect(self, run_id: str, work: Work) -> None:
        """Learn what a run, the root or a child, asks, and what it starts."""
        self._known.add(run_id)
        for one in work.questions:
            self._questions[run_id, one.key] = one
            self._over[run_id, one.key] = asyncio.Event()
        self._planned |= {(run_id, one.key): one.work for one in branches(work)}

    def _send(self, run_id: str, question: Question, wait_id: int, answers: Sequence[Said]) -> None:
        for number, said in enumerate(answers):
            for copy in range(said.times):
                client = self._clients[
                    (self._story.plan.client + number + copy) % len(self._clients)
                ]
                asked = self._request(run_id, question, wait_id, said)
                over = self._over[run_id, question.key]
                self._group.create_task(self._answer(client, asked, said, over))

    def _request(
        self, run_id: str, question: Question, wait_id: int, said: Said
    ) -> ResumeRunRequest:
        """Return an answer; it names the run that waits, or its root."""
        key = question.key
        if said.way == "misdirected":
            others = self._known - {run_id, self._story.run_id}
            if others and said.named:
                run_id = min(others)
            else:
                key = NOWHERE
        return ResumeRunRequest(
            run_id=run_id if said.named else self._story.run_id,
            step_key=key,
            wait_id=wait_id,
            data_json=said.data_json,
            request_id=said.request_id,
        )

    async def _answer(
        self, client: PolosClient, request: ResumeRunRequest, said: Said, over: asyncio.Event
    ) -> None:
        if said.way == "late":
            await over.wait()
        await asyncio.sleep(said.delay)
        try:
            await self._told(client, request)
        except CallError as error:
            self._story.refused[said.request_id].append(error.reason)
        else:
            self._story.accepted[said.request_id] += 1
            over.set()

    async def _told(self, client: PolosClient, request: ResumeRunRequest) -> None:
        """Send an answer until somebody says what has become of it."""
        while True:
            try:
                await client.call(lambda channel: RunServiceStub(channel).ResumeRun, request)
            except ConnectionLost:
                await asyncio.sleep(0.1)
            else:
                return
