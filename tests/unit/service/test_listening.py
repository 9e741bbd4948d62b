"""An address that cannot be listened at: the reason that is told is the true one."""

from __future__ import annotations

import errno
import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from polos_service import listening
from polos_service.listening import ListenError, probe, reaches_further
from polos_service.server import Service
from tests.support.service import serving, settings_for
from tests.support.tls import Files

IN_USE = "the port is in use"


def refusal(listen: str) -> str:
    """Return why an address is refused."""
    with pytest.raises(ListenError) as caught:
        probe(listen)
    assert str(caught.value).startswith(f"Cannot listen on {listen}: ")
    assert "--listen, POLOS_LISTEN" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_port_in_use_is_told_as_that(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert IN_USE in refusal(f"{host}:{taken.getsockname()[1]}")


@pytest.mark.parametrize("host", ["[::1]", "[::]"])
def test_a_port_in_use_with_ipv6_is_told_as_that(host: str) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        assert IN_USE in refusal(f"{host}:{taken.getsockname()[1]}")


def test_a_port_that_was_in_use_a_moment_ago_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()
    probe(f"127.0.0.1:{port}")


def test_a_name_that_does_not_resolve_is_told_as_that() -> None:
    said = refusal("no-such-host.invalid:50051")
    assert "'no-such-host.invalid' cannot be resolved" in said
    assert IN_USE not in said


@pytest.mark.parametrize("host", ["192.0.2.1", "[2001:db8::1]"])
def test_an_address_of_another_machine_is_told_as_that(host: str) -> None:
    said = refusal(f"{host}:50051")
    assert "is not an address of this machine" in said
    assert IN_USE not in said


def unprivileged(queue: multiprocessing.Queue[str]) -> None:
    """Tell what a user without privileges is told."""
    socket.getaddrinfo("127.0.0.1", 0)  # loads what the interpreter may not be let read later
    if os.getuid() == 0:
        os.setgroups([])
        os.setuid(65534)
    try:
        probe("127.0.0.1:80")
    except ListenError as error:
        queue.put(str(error))
    else:
        queue.put("it is allowed")


def test_a_privileged_port_is_told_as_that() -> None:
    start = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=unprivileged, args=(queue,))
    process.start()
    said = queue.get(timeout=60)
    process.join()
    if int(start.read_text()) > 80:
        assert "port 80 is privileged" in said
        assert IN_USE not in said
    else:
        assert IN_USE in said or said == "it is allowed"


def test_any_other_reason_is_told_in_the_words_of_the_system() -> None:
    error = OSError(errno.EMFILE, "Too many open files")
    assert listening.reason(error, "127.0.0.1:1").startswith("Too many open files. ")


@pytest.mark.parametrize(
    ("listen", "further"),
    [
        ("127.0.0.1:0", False),
        ("127.1.2.3:0", False),
        ("[::1]:0", False),
        ("localhost:0", False),
        ("0.0.0.0:0", True),
        ("[::]:0", True),
        ("192.0.2.1:0", True),
        ("unix:/run/polos.sock", False),
    ],
)
def test_what_others_may_reach_is_known(listen: str, further: bool) -> None:  # noqa: FBT001
    assert reaches_further(listen) is further


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `both` stand for an address of this machine and one that others reach."""
    found = socket.getaddrinfo

    def looked_up(host: str, port: int, **more: Any) -> Any:
        if host != "both":
            return found(host, port, **more)
        return [*found("127.0.0.1", port, **more), *found("0.0.0.0", port, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "0", "192.0.2.1", "[::ffff:0.0.0.0]", "both"])
async def test_plaintext_that_others_may_reach_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ListenError, match="in plaintext") as caught:
        await Service.start(settings_for(tmp_path, listen=f"{host}:0"))
    assert "--tls-cert" in str(caught.value)
    assert "--insecure (POLOS_INSECURE=true)" in str(caught.value)


async def told(folder: Path, **settings: Any) -> list[str]:
    """Return the warnings of a service that starts."""
    with capture_logs() as logs:
        async with serving(folder, **settings):
            pass
    return [one["event"] for one in logs if one["log_level"] == "warning"]


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
async def test_plaintext_that_others_may_reach_is_allowed_on_request_with_warnings(
    tmp_path: Path, host: str
) -> None:
    warned = await told(tmp_path, listen=f"{host}:0", insecure=True)
    assert warned == ["listens_in_plaintext", "listens_beyond_this_machine"]


async def test_tls_that_others_may_reach_warns_of_callers_without_certificates(
    tmp_path: Path,
) -> None:
    files = Files(tmp_path)
    listen = "0.0.0.0:0"
    assert await told(tmp_path, listen=listen, **files.settings) == ["listens_beyond_this_machine"]
    assert await told(tmp_path, listen=listen, **files.mutual) == []


@pytest.mark.parametrize("insecure", [False, True])
async def test_a_service_on_this_machine_does_not_warn(tmp_path: Path, insecure: bool) -> None:  # noqa: FBT001
    for listen in ("[::1]:0", f"unix:{tmp_path}/polos.sock"):
        assert await told(tmp_path, listen=listen, insecure=insecure) == []
