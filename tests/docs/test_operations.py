"""What the page about operations says of NATS holds: its streams, its backup, its permissions."""

from __future__ import annotations

import re
from pathlib import Path

from polos_service.store import WaitRecord
from polos_service.store.nats import Endpoint, NatsStore, subjects
from polos_service.store.usage import Spent
from tests.docs.pages import DOCS, blocks_of
from tests.support.nats import NatsServer
from tests.support.stores import cancel, claimed, first_claim, frame, new_run, soon

PAGE = DOCS / "operations.md"

STREAMS = {
    name
    for name in vars(subjects).values()
    if isinstance(name, str) and re.fullmatch(r"(KV_)?POLOS_[A-Z]+", name)
}
"""The streams that the service makes."""


def test_the_table_has_every_stream() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| .* \| `[$p]", PAGE.read_text(), re.MULTILINE)
    assert set(rows) == STREAMS


def test_a_backup_copies_every_stream_and_the_logs_last() -> None:
    (script,) = (one for one in blocks_of(PAGE, "sh") if "stream backup" in one.code)
    names = re.findall(r"(?:KV_)?POLOS_[A-Z]+", script.code)
    assert set(names) == STREAMS
    assert len(names) == len(STREAMS)
    assert names[-1] == subjects.LOG


async def test_the_permissions_are_enough(tmp_path: Path) -> None:
    (text,) = (one.code for one in blocks_of(PAGE, "text") if one.code.startswith("permissions:"))
    config = tmp_path / "nats.conf"
    config.write_text(
        f"accounts {{ A {{ users: [{{ user: me, password: pw, {text} }}], jetstream: enabled }} }}"
    )
    with NatsServer(tmp_path, "--config", str(config)) as server:
        endpoint = Endpoint(servers=(f"nats://me:pw@127.0.0.1:{server.port}",), patience=2.0)
        store = await NatsStore.open(endpoint)
        try:
            await soon(every_bucket(store))
        finally:
            await soon(store.close())


async def every_bucket(store: NatsStore) -> None:
    """Write to every bucket, and wake a suspended run."""
    root = await claimed(store, request_id="once")
    await store.append(root, frame(1))
    other = new_run()
    await store.create(other)
    assert await store.watch("default", other.run_id, root.run_id)
    wait = WaitRecord(run_id=root.run_id, wait_id=1, create_time=1, data=b"w")
    await store.open_wait("default", wait)
    assert await store.suspend(root, wake_at=2**62, seen=0, deadline=None)
    await store.command("default", root.run_id, cancel(root.run_id))
    assert await store.open_waits("default", root.run_id) == [wait]
    assert await store.access.put("name", b"value", 0) > 0
    await store.usage.spend("default", 1, Spent(tokens=3))
    assert await store.usage.spent("default", 1) == Spent(tokens=3)
    assert (await first_claim(store, {root.workflow_id})).run_id in (root.run_id, other.run_id)
