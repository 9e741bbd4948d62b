"""Somebody else in the account of the service, who publishes under its subjects."""

from __future__ import annotations

import random
from collections.abc import Sequence

from chaos.cluster.logs import jetstream
from polos_service.store.nats.subjects import LOG

MESSAGES = 30
"""Messages of one blow."""

NEWEST = 20
"""Runs whose logs are met: the newest, of which most have not ended."""

ELSEWHERE = (
    "polos.log.20260101.default.nobody",
    "polos.log.x",
    "polos.work.agent.default.nobody",
    "polos.work.nobody.default.nobody",
    "polos.work.x",
    "$KV.POLOS_RUNS.20260101.default.nobody",
    "$KV.POLOS_REQUESTS.default.nobody",
    "$KV.POLOS_DEFINITIONS.default.nobody.0",
    "$KV.POLOS_COMMANDS.default.nobody",
    "$KV.POLOS_COMMANDS.=!",
    "$KV.POLOS_ALARMS.default.nobody.1",
    "$KV.POLOS_WAITS.default.nobody.1.1",
)
"""Where no run has anything. In a bucket a message takes the place of the one before it."""

PAYLOADS = (b"", b"garbage", b'["default", 7, "x"]', b'{"run_id": null}', b"x" * 200_000)
"""Payloads that are published."""

HEADERS = (
    None,
    {"Polos-Frame": "1 2 3"},
    {"Polos-Frame": "1 1 1 1 1 x paused 0 0"},
    {"Status": "404"},
    {"Nats-Sequence": "x"},
)
"""Headers that any of the payloads is published with."""


async def publish(ports: Sequence[int], chance: random.Random) -> None:
    """Publish under random subjects, half of them those of logs under way."""
    async with jetstream(ports) as stream:
        info = await stream.stream_info(LOG, subjects_filter="polos.log.>")
        logs = sorted(info.state.subjects or {})[-NEWEST:]
        for _ in range(MESSAGES):
            subject = chance.choice(logs if logs and chance.random() < 1 / 2 else ELSEWHERE)
            headers = chance.choice(HEADERS)
            await stream.publish(subject, chance.choice(PAYLOADS), headers=headers, timeout=20)
