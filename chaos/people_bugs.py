"""Bugs seeded on purpose into what runs ask people, and into what becomes of the answers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from chaos.faults import Bug, Original, around
from chaos.places import Place
from polos.v1.event_pb2 import Event, Resumed
from polos_client.errors import AlreadyAnswered
from polos_service import waits
from polos_service.agents import body, people
from polos_service.agents.people import UNASKED, Decision, People
from polos_service.reply import Reply
from polos_service.runs import pausing
from polos_service.runs.answers import UNSETTLED, Answer
from polos_service.runs.frame import SECOND
from polos_service.runs.journal import Journal
from polos_service.runs.waiting import Waiting
from polos_service.store import Command
from polos_service.store.nats.store import NatsStore
from polos_service.store.sqlite import SqliteStore, inbox
from polos_service.waits import Waits

EACH = 3
"""A bug that does not show each time shows each so-manieth time."""

EARLY = SECOND // 10
"""Nanoseconds that a clock is ahead."""

Async = Callable[..., Awaitable[Any]]


def asked_again() -> None:
    """Forget, on the first recovery, what was asked."""
    forgotten: set[tuple[str, int]] = set()

    @around(Journal, "add")
    def _(original: Original, journal: Journal, event: Event) -> None:
        place = event.run_id, event.sequence
        wait = event.WhichOneof("payload") in {"suspended", "resumed"}
        if wait and place not in forgotten:
            forgotten.add(place)
        else:
            original(journal, event)


def unasked() -> None:
    """Make some calls without asking anybody."""
    count = itertools.count(1)

    @around(People, "decide")
    async def _(original: Async, *args: Any) -> Decision:
        if next(count) % EACH:
            decision: Decision = await original(*args)
            return decision
        return UNASKED


def unheard_rejection() -> None:
    """Take a rejection for an approval."""

    @around(people, "approval_of")
    def _(original: Original, name: str, shown: str, resumed: Resumed) -> Any:
        if resumed.data_json:
            told = Resumed()
            told.CopyFrom(resumed)
            told.data_json = json.dumps(json.loads(resumed.data_json) | {"approved": True})
            resumed = told
        return original(name, shown, resumed)


def unchanged_arguments() -> None:
    """Make the call as the model wrote it, whatever a person has changed."""

    @around(people, "approval_of")
    def _(original: Original, *args: Any) -> Decision:
        decision: Decision = original(*args)
        if decision.approved is None:
            return decision
        return replace(decision, approved=replace(decision.approved, changes={}))


def called_twice() -> None:
    """Make each approved call twice."""

    @around(body, "call_tool")
    async def _(original: Async, *args: Any) -> Any:
        if args[-1] is not None:
            await original(*args)
        return await original(*args)


def another_result() -> None:
    """Give the model something else than a person has answered."""

    @around(People, "decide")
    async def _(original: Async, *args: Any) -> Decision:
        decision: Decision = await original(*args)
        return decision if decision.answer_json is None else replace(decision, answer_json='"?"')


def lost_answer() -> None:
    """Accept some answers, and do not store them."""
    count = itertools.count(1)

    def plant(store: type[Any]) -> None:
        @around(store, "command")
        async def _(original: Async, *args: Any) -> Any:
            command: Command = args[-1]
            lost = command.kind in UNSETTLED and next(count) % EACH == 0
            return command if lost else await original(*args)

    plant(SqliteStore)
    plant(NatsStore)


def every_answer_accepted() -> None:
    """Tell all who answer a question that their answer counts."""

    @around(waits, "require_own")
    def _(_original: Original, *_args: Any) -> None:
        pass


def refused_answer_counts() -> None:
    """Refuse some answers after they were stored."""
    count = itertools.count(1)

    @around(Waits, "resume")
    async def _(original: Async, waits: Waits, caller: Any, reply: Reply) -> Any:
        wait = await original(waits, caller, reply)
        if next(count) % EACH == 0:
            raise AlreadyAnswered("?", run_id=reply.run_id, step_key=reply.step_key)
        return wait


def refused_repetition() -> None:
    """Refuse an answer that is repeated with its request id."""
    known: set[str] = set()

    @around(waits, "require_own")
    def _(original: Original, reply: Reply, *more: Any) -> None:
        original(reply, *more)
        if reply.request_id in known:
            raise AlreadyAnswered("?", run_id=reply.run_id, step_key=reply.step_key)
        known.add(reply.request_id)


def ignored_key() -> None:
    """Take the answer that names a wait, whichever key it names."""

    @around(Reply, "names")
    def _(original: Original, reply: Reply, wait: Any) -> bool:
        return bool(original(replace(reply, step_key="") if reply.wait_id else reply, wait))


def unchecked_answer() -> None:
    """Take whatever is sent for an approval."""

    @around(Waits, "_check_approval")
    async def _(_original: Original, *_args: Any) -> None:
        pass


def another_command() -> None:
    """Name another answer than the one that ended a wait."""

    @around(pausing, "resumed_by")
    def _(original: Original, wait_id: int, told: Any, answer: Answer | None) -> Any:
        if answer is not None and answer.request_id:
            answer = replace(answer, request_id=answer.request_id[:-1])
        return original(wait_id, told, answer)


def early_expiry() -> None:
    """Let questions expire before their time."""

    @around(Waiting, "_answered")
    async def _(original: Async, waiting: Waiting, run_id: str, key: str, until: int | None) -> Any:
        return await original(waiting, run_id, key, until and until - EARLY)


def early_timer() -> None:
    """Let timers end before their time."""

    @around(Waiting, "_until")
    async def _(original: Async, waiting: Waiting, time: int | None) -> None:
        await original(waiting, time and time - EARLY)


def no_waking() -> None:
    """Leave a parked run parked when its answer comes."""

    @around(inbox, "wake")
    def _(_original: Original, *_args: Any) -> None:
        pass


PEOPLE_BUGS: Mapping[str, Bug] = {
    "asked-again": Bug("a question is asked again", asked_again, Place.DECIDED),
    "unasked": Bug("a tool is called without approval", unasked, Place.KILL),
    "unheard-rejection": Bug("a rejected call is made", unheard_rejection, Place.KILL),
    "unchanged-arguments": Bug("changed arguments are ignored", unchanged_arguments, Place.KILL),
    "called-twice": Bug("an approved call is made twice", called_twice, Place.KILL),
    "another-result": Bug("an answer is not the call's result", another_result, Place.KILL),
    "lost-answer": Bug("an accepted answer is lost", lost_answer, Place.ANSWERED),
    "every-answer-accepted": Bug("two answers are accepted", every_answer_accepted, Place.KILL),
    "refused-answer-counts": Bug("a refused answer counts", refused_answer_counts, Place.KILL),
    "refused-repetition": Bug("a repeated answer is refused", refused_repetition, Place.KILL),
    "ignored-key": Bug("a misdirected answer is taken", ignored_key, Place.KILL),
    "unchecked-answer": Bug("an invalid answer is taken", unchecked_answer, Place.KILL),
    "another-command": Bug("the end of a wait names another answer", another_command, Place.KILL),
    "early-expiry": Bug("a question expires too early", early_expiry, Place.EXPIRED),
    "early-timer": Bug("a timer ends too early", early_timer, Place.TIMER),
    "no-waking": Bug("an answer does not wake its run", no_waking, Place.PARKED),
}
"""The bugs by name."""
