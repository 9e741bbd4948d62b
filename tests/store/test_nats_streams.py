"""What a store says about streams that are there already."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from nats.aio.client import Client

from polos_client.errors import StoreUnavailable
from polos_service.store.nats import NatsStore
from polos_service.store.nats.streams import COMMON, STREAMS
from tests.support.nats import NatsServer
from tests.support.stores import claimed

REPUBLISH = {"src": "polos.log.>", "dest": "elsewhere.>"}


async def put_stream(server: NatsServer, name: str, **changed: Any) -> None:
    """Make a stream as the service does, but for what is changed; None leaves it out."""
    wanted = {"name": name, **COMMON, **STREAMS[name], **changed}
    client = Client()
    await client.connect(server.url)
    js = client.jetstream()
    config = {setting: value for setting, value in wanted.items() if value is not None}
    await js._api_request(f"$JS.API.STREAM.CREATE.{name}", orjson.dumps(config))
    await client.close()


@pytest.mark.parametrize(
    ("name", "setting", "value", "shown"),
    [
        ("POLOS_LOG", "subjects", ["other.>"], r'subjects \["other.>"\].* needs \["polos.log.>"\]'),
        ("POLOS_LOG", "republish", None, r"republish null.* needs {.*polos.new"),
        ("POLOS_LOG", "republish", REPUBLISH, r'republish {.*"elsewhere.>".* needs {.*polos.new'),
        ("POLOS_LOG", "discard", "old", r'discard "old".* needs "new"'),
        ("POLOS_LOG", "allow_direct", False, r"allow_direct false.* needs true"),
        ("POLOS_LOG", "retention", "interest", r'retention "interest".* needs "limits"'),
        ("POLOS_WORK", "retention", "limits", r'retention "limits".* needs "workqueue"'),
        ("KV_POLOS_RUNS", "max_msgs_per_subject", 5, "max_msgs_per_subject 5.* needs 1"),
    ],
)
async def test_a_stream_that_cannot_work_is_refused_with_what_differs(
    nats_server: NatsServer, name: str, setting: str, value: Any, shown: str
) -> None:
    await put_stream(nats_server, name, **{setting: value})
    with pytest.raises(StoreUnavailable, match=f"stream {name} .*{shown}.*nats stream edit {name}"):
        await NatsStore.open(nats_server.address())


@pytest.mark.parametrize("name", STREAMS)
async def test_limits_are_the_operators(nats_server: NatsServer, name: str) -> None:
    await put_stream(nats_server, name, storage="memory", max_bytes=10**8, description="ours")
    store = await NatsStore.open(nats_server.address())
    assert (await claimed(store)).epoch == 1
    await store.close()
