"""Those who answer the questions of a run: at once, several together, or before it asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from chaos.moves import answer_json, key_of
from chaos.story import Story
from polos import CallError, ConnectionLost, Event, PolosClient
from polos.v1.run_service_pb2 import ResumeRunRequest
from polos.v1.run_service_pb2_grpc import RunServiceStub


class Answering:
    """Answers what one run asks; `story.accepted` has the answers that were accepted."""

    def __init__(
        self, story: Story, clients: Sequence[PolosClient], group: asyncio.TaskGroup
    ) -> None:
        self._story = story
        self._clients = clients
        self._group = group
        self._asked: set[str] = set()

    def early(self) -> None:
        """Answer the questions that are to be answered before they are asked."""
        for number, move in enumerate(self._story.plan.moves):
            if move.kind == "ask" and move.early:
                self._answer(number)

    def see(self, event: Event) -> None:
        """Answer a question, if this event is one that nobody has answered."""
        key = event.proto.suspended.step_key
        for number, move in enumerate(self._story.plan.moves):
            if move.kind == "ask" and key == key_of(number):
                self._answer(number)

    def _answer(self, number: int) -> None:
        key = key_of(number)
        if key in self._asked:
            return
        self._asked.add(key)
        for one in range(self._story.plan.moves[number].answers):
            client = self._clients[(self._story.plan.client + one) % len(self._clients)]
            self._group.create_task(self._send(client, key, one))

    async def _send(self, client: PolosClient, key: str, number: int) -> None:
        """Send an answer until somebody says what has become of it."""
        request = ResumeRunRequest(
            run_id=self._story.run_id,
            step_key=key,
            data_json=answer_json(number),
            request_id=f"{self._story.plan.name}-{key}-{number}",
        )
        while True:
            try:
                await client.call(lambda channel: RunServiceStub(channel).ResumeRun, request)
            except ConnectionLost:
                await asyncio.sleep(0.1)
                continue
            except CallError as error:
                if error.reason not in {"ALREADY_ANSWERED", "WAIT_EXPIRED", "WAIT_NOT_OPEN"}:
                    self._story.problems.append(f"answer: {key} was refused: {error!r}")
                return
            self._story.accepted[key].append(number)
            return
