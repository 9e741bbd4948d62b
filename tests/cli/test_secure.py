"""The options of commands that say how a service is called: TLS, certificates and keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trustme
from typer.main import get_command

from polos_client.errors import DefinitionError
from polos_service.cli.app import app
from polos_service.cli.service import Way
from tests.cli.commands import Cli, Ended
from tests.support.certificates import server_credentials, write_ca, write_pair
from tests.support.fake_service import RUN, FakeService, serving

OPTIONS = {"--address", "--tls", "--tls-ca", "--client-cert", "--client-key", "--api-key"}


def commands(command: object, path: str = "") -> dict[str, set[str]]:
    """Return the options of every command, by its path."""
    below = getattr(command, "commands", None)
    if below is None:
        params = command.params  # type: ignore[attr-defined]
        return {path: {option for one in params for option in one.opts}}
    found: dict[str, set[str]] = {}
    for name, one in below.items():
        found |= commands(one, f"{path} {name}".strip())
    return found


def test_every_command_that_calls_a_service_has_all_options() -> None:
    found = commands(get_command(app))
    assert {path for path, options in found.items() if "--address" not in options} <= {
        "demo",
        "new",
        "serve",
        "keys create",  # on a store, without a service
    }
    for path, options in found.items():
        if "--address" in options:
            assert options >= OPTIONS, path


async def test_a_command_goes_over_tls_with_a_certificate_and_a_key(tmp_path: Path) -> None:
    authority = trustme.CA()
    ca = write_ca(tmp_path, "ca", authority)
    mine = write_pair(tmp_path, "mine", authority.issue_cert("client"))
    key = tmp_path / "key"
    key.write_text("from-a-file\n")
    options = ["--tls-ca", ca, "--client-cert", mine.cert, "--client-key", mine.key]
    credentials = server_credentials(authority.issue_cert("127.0.0.1"), clients=authority)
    service = FakeService(accepted={"from-a-file", "as-argument"})
    async with serving(service, credentials=credentials) as address:
        cli = Cli(address)
        for how in (["--api-key-file", key], ["--api-key", "as-argument"]):
            ended = await cli("runs", "show", RUN, *map(str, [*options, *how]))
            assert (ended.code, ended.err) == (0, "")
        ended = await cli("runs", "show", RUN, "--tls-ca", str(ca))
        assert ended.code == 1
        assert "the service requires a client certificate, and none was given" in ended.err
    assert list(dict.fromkeys(service.keys)) == ["from-a-file", "as-argument"]


async def test_a_refused_key_is_one_sentence() -> None:
    async with serving(FakeService(accepted=set())) as address:
        assert await Cli(address)("runs", "show", RUN, "--api-key", "wrong") == Ended(
            1, "", "Error: The key has ended.\n"
        )


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (Way(tls=False, tls_ca="ca.pem"), "--no-tls and --tls-ca contradict each other"),
        (Way(api_key="a", api_key_file="b"), "pass either --api-key or --api-key-file"),
    ],
)
def test_options_that_contradict_each_other_are_refused(way: Way, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        way.client()


def test_the_way_back_names_what_was_given_but_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "POLOS_ADDRESS", "here:1")
    assert Way(address="here:1", api_key="secret").flags() == ""
    way = Way(address="there:1", tls=True, tls_ca="a b.pem", api_key_file="key")
    assert way.flags() == "--address there:1 --tls-ca 'a b.pem' --api-key-file key --tls"
