"""What the processes of these tests run: a file that the wheel lacks makes them fail."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.process import ServiceProcess

APP = """
import polos
import polos.v1.run_pb2
import polos_client
import polos_service.serving

agent = polos.Agent("agent", "scripted", "script")
for module in (polos, polos.v1.run_pb2, polos_client, polos_service.serving):
    print("imported", module.__file__, flush=True)
"""


@pytest.mark.parametrize("options", [(), ("--reload",)], ids=["alone", "as a child"])
async def test_a_service_runs_the_wheel(
    tmp_path: Path, installed: Path, options: tuple[str, ...]
) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP)
    async with ServiceProcess(app, tmp_path / "runs.db", *options) as service:
        service.send(signal.SIGTERM)
        assert await service.ended() == 0
    lines = [line for line in service.lines if line.startswith("imported ")]
    files = [Path(line.removeprefix("imported ")) for line in lines]
    assert [file.relative_to(installed).as_posix() for file in files] == [
        "polos/__init__.py",
        "polos/v1/run_pb2.py",
        "polos_client/__init__.py",
        "polos_service/serving.py",
    ]
