"""Rounds of attacks on one service, and what must hold after each."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from grpc.aio import insecure_channel  # tests that patch it mean other callers

from fuzz import raw
from fuzz.bystander import Bystander
from fuzz.calls import Answer, Caller, Metadata, methods_of, plan
from fuzz.credentials import BAD, MIXED, KeyedChannel
from fuzz.messages import Messages
from fuzz.raw import attack, connected, opening
from fuzz.vitals import Vitals
from polos.v1.run_pb2 import Run, RunState
from polos.v1.run_service_pb2 import CancelRunRequest, ListRunsRequest
from polos.v1.run_service_pb2_grpc import RunServiceStub
from tests.support.access import BOOTSTRAP
from tests.support.process import PATIENCE, ServiceProcess

APP = Path(__file__).with_name("app.py")

ATTACKS = 500
"""Attacks of a round, by default."""

CALLS = 0.8
"""The share of calls among the attacks; the others are connections that do not come from a gRPC
client."""

AT_ONCE = 12
HELD = 20
"""Connections that stay open and unfinished throughout a round."""

IDLE = 2.0
"""Seconds for which the bystander is measured alone."""

SAME = 3
"""Findings of a method with the same status that are told; the others are counted."""

GROWTH, GROWTH_OVER_ALL = 50_000_000, 150_000_000
"""Bytes that the service may hold more after the same attacks again, and after any number of
others: what was freed goes back to the system late and in part, and comes and goes meanwhile."""

MORE_THREADS = 4
"""Threads by which the pools of gRPC may differ between two looks."""

TIMES_SLOWER, ALWAYS_FINE = 50, 5.0
"""How much slower than the 99th percentile when idle a bystander's slowest call may be, and the
seconds that it may always take: the machine may have other work."""

ENDED = {RunState.RUN_STATE_COMPLETED, RunState.RUN_STATE_FAILED, RunState.RUN_STATE_CANCELLED}


@dataclass
class Report:
    """What came of the rounds.

    Attributes:
        seed: what the attacks are made of.
        attacks: how many a round has.
        answers: how many calls of a method ended with a status.
        vitals: what the service held after each round.
        runs: how many runs there were at the end.
        findings: what must not be, a sentence each.

    """

    seed: int
    attacks: int = ATTACKS
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    vitals: list[Vitals] = field(default_factory=list)
    runs: int = 0
    findings: list[str] = field(default_factory=list)

    def add(self, answers: Iterable[Answer]) -> None:
        """Count answers; one that no input may get is a finding."""
        for answer in answers:
            self.answers[answer.method, answer.code.name] += 1
            if answer.bad and self.answers[answer.method, answer.code.name] <= SAME:
                self.findings.append(str(answer))

    def __str__(self) -> str:
        """Return the counts and the findings, a line each."""
        counts = [
            f"{count:6} {method} {code}" for (method, code), count in sorted(self.answers.items())
        ]
        held = [
            f"{one.memory / 1e6:6.0f} MB, {one.files} files, {one.threads} threads"
            for one in self.vitals
        ]
        found = self.findings or ["0 findings"]
        return "\n".join(
            [f"seed {self.seed}, {self.runs} runs", *counts, "after each round:", *held, *found]
        )


async def play(
    seed: int,
    folder: Path,
    more: Callable[[], bool] = lambda: False,
    attacks: int = ATTACKS,
    *,
    credentials: bool = False,
) -> Report:
    """Attack a service twice in the same way, then in others while there is to be `more`.

    With `credentials`, the service asks for them. A first round has none that it takes, and must
    not start anything; in the others, every other caller has the good key.
    """
    report = Report(seed, attacks)
    key = {"POLOS_BOOTSTRAP_KEY": BOOTSTRAP} if credentials else {}
    notes = folder / "notes"
    notes.touch()
    async with ServiceProcess(APP, folder / "runs.db", NOTES=str(notes), **key) as service:
        with grpc.insecure_channel(service.address) as channel:
            methods = await asyncio.to_thread(methods_of, KeyedChannel(channel))
        async with Bystander(service.address, BOOTSTRAP) as idle:
            await asyncio.sleep(IDLE)
        async with Bystander(service.address, BOOTSTRAP) as beside:
            if credentials:
                await one_round(report, service, methods, 0, BAD)
                report.findings += started_without(report, notes.read_text())
                report.vitals.clear()  # later rounds do more
            sent = MIXED if credentials else ((),)
            await one_round(report, service, methods, 0, sent)
            await one_round(report, service, methods, 0, sent)
            number = 0
            while more():
                number += 1
                await one_round(report, service, methods, number, sent)
        await settled(report, service)
        report.findings += starved(idle, beside)
        report.findings += ran_twice(notes.read_text().splitlines())
    return report


async def one_round(
    report: Report,
    service: ServiceProcess,
    methods: Sequence[MethodDescriptor],
    number: int,
    credentials: Sequence[Metadata],
) -> None:
    """Attack with these credentials, end every run, and look at the service."""
    at_once = asyncio.Semaphore(AT_ONCE)
    async with insecure_channel(service.address) as channel:
        caller = Caller(channel)
        messages = Messages(caller.run_ids)

        async def one(index: int) -> None:
            random = Random(f"{report.seed} {number} {index}")
            async with at_once:
                if random.random() < CALLS:
                    method = methods[index % len(methods)]  # however few attacks there are
                    await caller.make(plan(method, messages, random, credentials))
                    return
                pieces = random.choice(raw.ATTACKS)(random)
                await attack(service.address, pieces, reset=random.random() < 0.5)

        async with held(service.address, Random(f"{report.seed} {number}")):
            await asyncio.gather(*map(one, range(report.attacks)))
        report.add(caller.answers)
    report.runs = await end_all(report, service)
    report.vitals.append(Vitals.of(service.pid))


@asynccontextmanager
async def held(address: str, random: Random) -> AsyncIterator[None]:
    """Keep connections that begin something and never go on."""
    async with AsyncExitStack() as stack:
        for _ in range(HELD):
            _, writer = await stack.enter_async_context(connected(address, reset=False))
            whole = opening()
            writer.write(whole[: random.randrange(len(whole) + 1)])
        yield


async def end_all(report: Report, service: ServiceProcess) -> int:
    """Cancel every run that has not ended; those that do not end then are findings."""
    async with insecure_channel(service.address) as channel:
        keyed: Any = KeyedChannel(channel)
        runs: Any = RunServiceStub(keyed)
        found = await every_run(runs)
        for run in found:
            if run.state not in ENDED:
                await runs.CancelRun(CancelRunRequest(run_id=run.run_id), timeout=PATIENCE)
        end = time.monotonic() + PATIENCE
        while left := [run for run in await every_run(runs) if run.state not in ENDED]:
            if time.monotonic() > end:
                names = ", ".join(f"{run.run_id} {RunState.Name(run.state)}" for run in left)
                report.findings.append(f"cancelled runs that do not end: {names}")
                break
            await asyncio.sleep(0.05)
    return len(found)


async def every_run(runs: Any) -> list[Run]:
    """Return all runs, page by page."""
    found: list[Run] = []
    token = ""
    while True:
        page = await runs.ListRuns(ListRunsRequest(page_size=1000, page_token=token))
        found += page.runs
        token = page.next_page_token
        if not token:
            return found


async def settled(report: Report, service: ServiceProcess) -> None:
    """Wait until the service holds what it held after the first round; else say what it holds."""
    first, *more = report.vitals
    bound = GROWTH if len(more) == 1 else GROWTH_OVER_ALL
    end = time.monotonic() + PATIENCE
    while wrong := grown(first, Vitals.of(service.pid), bound):
        if time.monotonic() > end:
            report.findings += wrong
            return
        await asyncio.sleep(0.1)


def grown(before: Vitals, now: Vitals, bound: int) -> list[str]:
    """Return what did not come back; memory has a bound, in bytes."""
    found = []
    if now.memory - before.memory > bound:
        found.append(f"memory grew from {before.memory:,} to {now.memory:,} bytes")
    if now.files > before.files:
        found.append(f"open files grew from {before.files} to {now.files}")
    if now.threads > before.threads + MORE_THREADS:
        found.append(f"threads grew from {before.threads} to {now.threads}")
    return found


def starved(idle: Bystander, beside: Bystander) -> list[str]:
    """Return how a bystander was made to suffer."""
    found = [f"a bystander's call failed: {status}" for status in beside.failed]
    if beside.slowest > max(TIMES_SLOWER * idle.p99, ALWAYS_FINE):
        found.append(f"a bystander waited {beside.slowest:.2f} s; idle: {idle.p99:.4f} s")
    return found


def started_without(report: Report, notes: str) -> list[str]:
    """Return what callers without credentials have started."""
    found = [f"{report.runs} runs were started without credentials"] if report.runs else []
    if notes:
        found.append(f"a tool was called without credentials: {notes}")
    return found


def ran_twice(keys: Sequence[str]) -> list[str]:
    """Return which calls of a tool were made more than once."""
    if not keys:
        return ["no tool was called: the attack reaches nothing"]
    return [
        f"tool call {key} ran {times} times" for key, times in Counter(keys).items() if times > 1
    ]
