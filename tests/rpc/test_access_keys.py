"""API keys: made, listed, revoked, and good for what they say."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from polos.v1 import admin_service_pb2 as pb
from polos.v1 import agent_service_pb2 as agents_pb
from polos.v1 import run_service_pb2 as runs_pb
from polos.v1.admin_service_pb2_grpc import AdminServiceStub
from polos_client.calls.client import PolosClient
from polos_client.errors import (
    InvalidRequest,
    KeyNotFound,
    PermissionDenied,
    RequestIdReused,
    TooManyKeys,
    Unauthenticated,
)
from polos_service.access import keeper
from polos_service.access.keys import KeyText
from polos_service.config import SettingsInvalidError
from polos_service.embedded import Polos
from tests.support.access import BOOTSTRAP, OPERATOR, bearer, guarded, refusal
from tests.support.service import Served, query, scripted, serving

FINE = scripted("fine")

LIST = runs_pb.ListRunsRequest()


async def test_the_store_has_a_hash_and_not_the_secret(tmp_path: Path) -> None:
    async with guarded(tmp_path, FINE) as (_, admin):
        made = await admin.key()
        secret = made.api_key.rpartition("_")[2]
        ((value,),) = query(tmp_path / "runs.db", "SELECT value FROM access")
    assert KeyText(made.key.key_id, secret).hash.hex() in value.decode()
    assert secret not in value.decode()
    assert made.api_key == f"polos_{made.key.key_id}_{secret}"
    assert len(bytes.fromhex(secret)) == 32


async def test_a_client_of_a_released_version_works_with_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(tmp_path, FINE) as (served, admin):
        monkeypatch.setenv("POLOS_API_KEY", (await admin.key()).api_key)
        async with PolosClient(served.client.address) as client:
            result = await FINE.run(client, "Go.")
            assert result.result == "fine"


async def test_a_repeated_creation_creates_nothing_and_shows_no_secret(tmp_path: Path) -> None:
    async with guarded(tmp_path, FINE) as (_, admin):
        made = await asyncio.gather(*(admin.key("p", request_id="one") for _ in range(5)))
        assert len({one.key.key_id for one in made}) == 1
        assert sum(bool(one.api_key) for one in made) == 1
        listed = await admin.stub.ListKeys(pb.ListKeysRequest(project="p"), metadata=OPERATOR)
        assert len(listed.keys) == 1
        request = pb.CreateKeyRequest(name="other", scopes=["*"], request_id="one")
        reused = await refusal(admin.stub.CreateKey(request, metadata=OPERATOR))
        assert isinstance(reused, RequestIdReused)
        assert reused.metadata == {"request_id": "one", "key_id": made[0].key.key_id}


async def test_request_ids_are_those_of_the_caller_s_project(tmp_path: Path) -> None:
    async with guarded(tmp_path, FINE) as (_, admin):
        request = pb.CreateKeyRequest(name="k", scopes=["runs:read"], request_id="same")
        made = [
            await admin.stub.CreateKey(request, metadata=await admin.header(project, ["admin"]))
            for project in ("mine", "theirs")
        ]
        assert [one.key.project for one in made] == ["mine", "theirs"]
        assert all(one.api_key for one in made)


async def test_keys_are_listed_in_pages(tmp_path: Path) -> None:
    async with guarded(tmp_path, FINE) as (_, admin):
        made = {(await admin.key("p")).key.key_id for _ in range(5)}
        await admin.key("q")
        found: list[str] = []
        request = pb.ListKeysRequest(project="p", page_size=2)
        while True:
            page = await admin.stub.ListKeys(request, metadata=OPERATOR)
            found += [key.key_id for key in page.keys]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    assert found == sorted(made)


async def test_a_revoked_key_stays_revoked_and_listed(tmp_path: Path) -> None:
    async with guarded(tmp_path, FINE) as (served, admin):
        key = await admin.key("p")
        await served.runs.ListRuns(LIST, metadata=bearer(key.api_key))
        await admin.revoke(key)
        refused = await refusal(served.runs.ListRuns(LIST, metadata=bearer(key.api_key)))
        assert isinstance(refused, Unauthenticated)
        assert refused.metadata == {"cause": "revoked"}
        await admin.revoke(key)
        listed = await admin.stub.ListKeys(pb.ListKeysRequest(project="p"), metadata=OPERATOR)
        assert listed.keys[0].HasField("revoke_time")
    async with guarded(tmp_path, FINE) as (served, _):
        refused = await refusal(served.runs.ListRuns(LIST, metadata=bearer(key.api_key)))
        assert refused.metadata == {"cause": "revoked"}


async def test_an_administrator_of_a_project_stays_in_it(tmp_path: Path) -> None:
    async with guarded(tmp_path, FINE) as (_, admin):
        mine = await admin.header("mine", ["admin"])
        theirs = await admin.key("theirs")
        for request in (
            pb.CreateKeyRequest(name="k", project="theirs", scopes=["runs:read"]),
            pb.CreateKeyRequest(name="k", scopes=["*"]),
        ):
            refused = await refusal(admin.stub.CreateKey(request, metadata=mine))
            assert isinstance(refused, PermissionDenied)
            assert refused.metadata == {"scope": "*"}
        for key_id in (theirs.key.key_id, "nobody"):
            revoke = pb.RevokeKeyRequest(key_id=key_id)
            hidden = await refusal(admin.stub.RevokeKey(revoke, metadata=mine))
            assert isinstance(hidden, KeyNotFound)
            assert str(hidden) == f"There is no API key {key_id!r}."
        listed = await admin.stub.ListKeys(pb.ListKeysRequest(), metadata=mine)
        assert {key.project for key in listed.keys} == {"mine"}


async def test_every_wrong_field_is_named(tmp_path: Path) -> None:
    async with guarded(tmp_path, FINE) as (_, admin):
        request = pb.CreateKeyRequest(project="p" * 257, scopes=["runs:read", "write"])
        request.expire_time.FromSeconds(5)
        refused = await refusal(admin.stub.CreateKey(request, metadata=OPERATOR))
        assert isinstance(refused, InvalidRequest)
        assert refused.violations.keys() == {"name", "project", "scopes[1]", "expire_time"}


async def test_a_project_has_so_many_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "KEYS_LIMIT", 2)
    async with guarded(tmp_path, FINE) as (_, admin):
        await admin.key("p")
        await admin.revoke(await admin.key("p"))
        request = pb.CreateKeyRequest(name="k", project="p", scopes=["runs:read"])
        refused = await refusal(admin.stub.CreateKey(request, metadata=OPERATOR))
        assert isinstance(refused, TooManyKeys)
        await admin.key("q")


async def test_access_is_on_as_long_as_the_store_has_a_key(tmp_path: Path) -> None:
    async with guarded(tmp_path, FINE) as (_, admin):
        key = await admin.key()
        await admin.revoke(key)
    async with serving(tmp_path, FINE) as served:
        refused = await refusal(served.runs.ListRuns(LIST))
        assert refused.metadata == {"cause": "missing"}
    with sqlite3.connect(tmp_path / "runs.db") as db:
        db.execute("UPDATE access SET value = x'00'")
    async with serving(tmp_path, FINE) as served:
        refused = await refusal(served.runs.ListRuns(LIST))
        assert refused.metadata == {"cause": "missing"}, "a damaged key opens nothing"


async def test_without_keys_everybody_is_anonymous_and_nobody_an_administrator(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, FINE) as served:
        for header in ((), bearer("anything"), OPERATOR):
            assert not (await served.runs.ListRuns(LIST, metadata=header)).runs
            request = pb.CreateKeyRequest(name="k", scopes=["*"])
            admin = AdminServiceStub(served.channel)
            refused = await refusal(admin.CreateKey(request, metadata=header))
            assert isinstance(refused, PermissionDenied)
            assert "Access is off" in str(refused)


async def test_an_embedded_service_asks_for_no_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(tmp_path, FINE) as (_, admin):
        await admin.key()
    monkeypatch.setenv("POLOS_BOOTSTRAP_KEY", BOOTSTRAP)
    async with Polos([FINE], store=f"sqlite://{tmp_path / 'runs.db'}") as polos:
        assert (await FINE.run(polos, "Go.")).result == "fine"


@pytest.mark.parametrize(
    ("header", "cause"),
    [
        ((), "missing"),
        ((("authorization", "Basic abc"),), "malformed"),
        ((("authorization", "Bearer "),), "malformed"),
        ((("authorization", BOOTSTRAP),), "malformed"),
        ((*OPERATOR, *OPERATOR), "malformed"),
        (bearer(f"{BOOTSTRAP} and more"), "malformed"),
        (bearer(BOOTSTRAP[:-1]), "unknown"),
        (bearer("eyJ.a.b"), "unknown"),
        (bearer("polosrun_ab_cd_" + "0" * 64), "unknown"),
    ],
)
async def test_the_cause_says_what_is_wrong(
    tmp_path: Path, header: tuple[tuple[str, str], ...], cause: str
) -> None:
    async with guarded(tmp_path, FINE) as (served, _):
        refused = await refusal(
            served.agents.ListAgents(agents_pb.ListAgentsRequest(), metadata=header)
        )
        assert isinstance(refused, Unauthenticated)
        assert refused.metadata == {"cause": cause}
        assert "b0b0" not in str(refused)


async def test_the_scheme_is_read_in_any_case(tmp_path: Path) -> None:
    async with guarded(tmp_path, FINE) as (served, _):
        header = (("authorization", f"bearer {BOOTSTRAP}"),)
        await served.runs.ListRuns(LIST, metadata=header)


async def test_a_key_that_may_only_write_learns_nothing_of_results(tmp_path: Path) -> None:
    async with guarded(tmp_path, FINE) as (served, admin):
        run_id = await run_by(served, OPERATOR)
        cancel = runs_pb.CancelRunRequest(run_id=run_id)
        writer = await admin.header("default", ["runs:write"])
        assert not (await served.runs.CancelRun(cancel, metadata=writer)).run.HasField("outcome")
        both = await admin.header("default", ["runs:write", "runs:read"])
        assert (await served.runs.CancelRun(cancel, metadata=both)).run.HasField("outcome")


async def run_by(served: Served, header: tuple[tuple[str, str], ...]) -> str:
    """Return the id of a run of a caller, which has ended."""
    stream = served.runs.StreamRun(
        runs_pb.StreamRunRequest(agent_id=FINE.id, input="Go."), metadata=header
    )
    events = [event async for response in stream for event in response.events]
    return str(events[0].run_id)


@pytest.mark.parametrize("key", ["", "secret", BOOTSTRAP.upper()])
async def test_a_bootstrap_key_that_is_none_does_not_open_the_service(
    tmp_path: Path, key: str
) -> None:
    what = "POLOS_BOOTSTRAP_KEY.*is not of the form polos_ID_SECRET"
    with pytest.raises(SettingsInvalidError, match=what) as told:
        async with guarded(tmp_path, FINE, bootstrap_key=key):
            pass
    assert not key or key not in str(told.value)
