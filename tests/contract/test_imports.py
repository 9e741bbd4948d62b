"""The client is light: it needs and loads nothing of the service."""

from __future__ import annotations

import re
import subprocess
import sys

SERVICE = [
    *("filelock", "genai_prices", "grpc_health", "grpc_reflection", "openai", "orjson"),
    *("platformdirs", "pydantic_settings", "rich", "structlog", "typer", "uuid_utils", "uvloop"),
    "watchfiles",
]
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({SERVICE}))\n"
"""Makes Python believe that what the service extra brings is not installed."""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a Python of its own."""
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)


def test_importing_the_client_loads_neither_provider_nor_service() -> None:
    result = run(
        "from polos import PolosClient, events, Agent, tool\n"
        "import sys\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('openai', 'polos_service')])"
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_a_client_alone_loads_no_pydantic() -> None:
    result = run("from polos import PolosClient; import sys; print('pydantic' in sys.modules)")
    assert (result.stdout, result.stderr) == ("False\n", "")


def test_every_name_but_polos_works_without_the_service_extra() -> None:
    result = run(
        WITHOUT + "import polos\n"
        "for name in polos.__all__:\n"
        "    name == 'Polos' or getattr(polos, name)\n"
        "print('polos_service' in sys.modules)"
    )
    assert (result.stdout, result.stderr) == ("False\n", "")


def test_polos_without_the_service_extra_says_what_to_install() -> None:
    result = run(WITHOUT + "from polos import Polos")
    assert result.returncode == 1
    match = re.fullmatch(
        r"ImportError: polos\.Polos needs the service, and its package '(\w+)' is not installed: "
        r"pip install 'polos-grpc\[service\]'",
        result.stderr.splitlines()[-1],
    )
    assert match is not None
    assert match[1] in SERVICE
