"""Those who answer the questions of a run: at once, several together, early, late, or wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from chaos.questions import NOWHERE, Question, Said
from chaos.story import Story
from polos import CallError, ConnectionLost, Event, PolosClient
from polos.v1.run_service_pb2 import ResumeRunRequest
from polos.v1.run_service_pb2_grpc import RunServiceStub


class Answering:
    """Answers what one run asks, and notes in its story which answers were accepted."""

    def __init__(
        self, story: Story, clients: Sequence[PolosClient], group: asyncio.TaskGroup
    ) -> None:
        self._story = story
        self._clients = clients
        self._group = group
        self._questions = {one.key: one for one in story.plan.questions}
        self._over = {one.key: asyncio.Event() for one in story.plan.questions}

    def early(self) -> None:
        """Send the answers that are to come before their question."""
        for question in self._questions.values():
            if question.early:
                self._send(question, 0, [one for one in question.answers if one.way == "racing"])

    def see(self, event: Event) -> None:
        """Answer the question that this event asks, if it asks one."""
        if over := self._over.get(event.proto.resumed.step_key):
            over.set()
        question = self._questions.get(event.proto.suspended.step_key)
        if question is not None:
            answers = [one for one in question.answers if one.way != "racing" or not question.early]
            self._send(question, event.proto.sequence, answers)
        if event.proto.terminal:
            for one in self._over.values():
                one.set()

    def _send(self, question: Question, wait_id: int, answers: Sequence[Said]) -> None:
        for number, said in enumerate(answers):
            for copy in range(said.times):
                client = self._clients[
                    (self._story.plan.client + number + copy) % len(self._clients)
                ]
                self._group.create_task(self._answer(client, question, wait_id, said))

    async def _answer(
        self, client: PolosClient, question: Question, wait_id: int, said: Said
    ) -> None:
        if said.way == "late":
            await self._over[question.key].wait()
        await asyncio.sleep(said.delay)
        request = ResumeRunRequest(
            run_id=self._story.run_id,
            step_key=NOWHERE if said.way == "misdirected" else question.key,
            wait_id=wait_id,
            data_json=said.data_json,
            request_id=said.request_id,
        )
        try:
            await self._told(client, request)
        except CallError as error:
            self._story.refused[said.request_id].append(error.reason)
        else:
            self._story.accepted[said.request_id] += 1
            self._over[question.key].set()

    async def _told(self, client: PolosClient, request: ResumeRunRequest) -> None:
        """Send an answer until somebody says what has become of it."""
        while True:
            try:
                await client.call(lambda channel: RunServiceStub(channel).ResumeRun, request)
            except ConnectionLost:
                await asyncio.sleep(0.1)
            else:
                return
