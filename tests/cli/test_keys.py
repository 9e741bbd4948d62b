"""`polos keys`: over a service, and over a store whose service is stopped."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.commands import Cli
from tests.support.access import BOOTSTRAP, guarded
from tests.support.service import scripted

FINE = scripted("fine")


async def test_the_first_key_is_created_in_the_store(tmp_path: Path) -> None:
    store = f"sqlite://{tmp_path / 'runs.db'}"
    cli = Cli("127.0.0.1:9")
    first = await cli("keys", "create", "first", "--scope", "*", "--store", store)
    assert re.fullmatch(r"polos_[0-9a-f]{16}_[0-9a-f]{64}\n", first.out)
    assert first.err.endswith("Keep it: it is not shown again.\n")
    async with guarded(tmp_path, FINE, bootstrap_key=None) as (served, _):
        taken = await cli("keys", "create", "second", "--store", store)
        assert (taken.code, taken.out) == (1, "")
        assert "has the store" in taken.err
        assert "Leave out --store to call the service" in taken.err
        cli = Cli(served.client.address)
        refused = await cli("agents", "list")
        assert (refused.code, refused.out) == (1, "")
        assert "has no credentials" in refused.err
        cli = Cli(served.client.address, first.out.strip())
        assert (await cli("agents", "list")).code == 0
    listed = await cli("keys", "list", "--store", store)
    assert [line.split("\t")[1:5] for line in listed.out.splitlines()] == [
        ["first", "default", "*", "active"]
    ]


async def test_keys_of_a_service(tmp_path: Path) -> None:
    async with guarded(tmp_path, FINE) as (served, _):
        cli = Cli(served.client.address, BOOTSTRAP)
        arguments = ("--project", "acme", "--expires", "90d", "--json")
        (made,) = (await cli("keys", "create", "ci", *arguments)).objects
        assert made["scopes"] == ["agents:read", "runs:read", "runs:resume", "runs:write"]
        assert (made["project"], made["state"]) == ("acme", "active")
        assert made["api_key"].startswith(f"polos_{made['key_id']}_")
        assert (await cli("keys", "list")).out == ""
        (listed,) = (await cli("keys", "list", "--project", "acme", "--json")).objects
        assert listed == {name: made[name] for name in made if name != "api_key"}
        revoked = await cli("keys", "revoke", made["key_id"])
        assert (revoked.code, revoked.out) == (0, f"Key {made['key_id']} is revoked.\n")
        (listed,) = (await cli("keys", "list", "--project", "acme", "--json")).objects
        assert listed["state"] == "revoked"
        missing = await cli("keys", "revoke", "nobody")
        assert (missing.code, missing.err) == (1, "Error: There is no API key 'nobody'.\n")
        wrong = await cli("keys", "create", "ci", "--expires", "soon")
        assert wrong.code == 2
        assert "neither a length of time" in wrong.err


async def test_a_service_without_access_has_no_administrators(cli: Cli) -> None:
    refused = await cli("keys", "create", "first")
    assert (refused.code, refused.out) == (1, "")
    assert "Access is off. Restart the service with POLOS_BOOTSTRAP_KEY" in refused.err
