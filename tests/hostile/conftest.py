"""With `--credentials`, the services of these tests ask for credentials, and callers send them.

`tests/peers/test_hostile_guarded.py` runs them so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from chaos.process import inherited
from fuzz.credentials import KeyedChannel
from tests.support import process
from tests.support.access import BOOTSTRAP

OPTION = "--credentials"

KEYS = {"POLOS_BOOTSTRAP_KEY": BOOTSTRAP, "POLOS_API_KEY": BOOTSTRAP}
"""What services and clients read, in this process and in others."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option; it is known where pytest is told to run this folder."""
    parser.addoption(OPTION, action="store_true", help="services ask for credentials")


@pytest.fixture(autouse=True)
def credentials(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn credentials on, if that was asked for."""
    if not request.config.getoption(OPTION, default=False):
        return
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(process, "inherited", lambda: inherited() | KEYS)
    for module in (grpc, grpc.aio):
        monkeypatch.setattr(module, "insecure_channel", keyed(module.insecure_channel))


def keyed(connect: Callable[..., Any]) -> Callable[..., KeyedChannel]:
    """Return what connects, to make calls with the key."""
    return lambda *arguments, **options: KeyedChannel(connect(*arguments, **options))
