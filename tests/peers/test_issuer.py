"""An issuer of JWTs in Node: its tokens are verified, through a rotation of its key.

Every method is called with every kind of its tokens, as docs/security.md has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from polos_client.calls.client import PolosClient
from polos_client.define.scripted import turn
from polos_client.errors import Unauthenticated
from polos_service.access import issuer_keys, signing
from scripts.docs_access import TOKENS
from tests.support.access_scene import playing
from tests.support.process import PATIENCE
from tests.support.service import scripted, serving

PROGRAM = Path(__file__).parent / "issuer" / "issuer.js"
NODE = shutil.which("node")
FINE = scripted(turn("Hello."), id="fine")


class NodeIssuer:
    """The program: it answers each line with a line.

    Attributes:
        url: what it calls itself.

    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.url = ""
        self.other: NodeIssuer | None = None

    async def line(self) -> str:
        """Return the next line."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        return line.decode().strip()

    async def ask(self, line: str) -> str:
        """Return the answer to a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        return await self.line()

    async def token(self, **claims: object) -> str:
        """Return a token with these claims."""
        named = {"aud": "polos", "sub": "alice", "project": "a", "scope": "runs:read runs:write"}
        return await self.ask(json.dumps(named | claims))

    async def token_of(self, kind: str, scopes: Sequence[str]) -> str:
        """Return a token of a kind in the table of access, for the project `mine`."""
        wrong: dict[str, dict[str, object]] = {
            "JWT: expired": {"exp": 1},
            "JWT: other audience": {"aud": "other"},
            "JWT: other issuer": {"iss": "https://issuer.example"},
            "JWT: other key": {"iss": self.url},
        }
        signer = self.other if kind == "JWT: other key" else self
        assert signer is not None
        claims = {"project": "mine", "scope": list(scopes)} | wrong.get(kind, {})
        return await signer.token(**claims)


@pytest.fixture
async def issuer() -> AsyncIterator[NodeIssuer]:
    """Start an issuer."""
    async with issuing() as started:
        yield started


@contextlib.asynccontextmanager
async def issuing() -> AsyncIterator[NodeIssuer]:
    """Start the program; skip where it, or what it needs, is not installed."""
    if NODE is None or not (PROGRAM.parent / "node_modules").is_dir():
        reason = f"Node or {PROGRAM.parent}/node_modules is missing: `npm ci` there installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    process = await asyncio.create_subprocess_exec(
        *(NODE, PROGRAM),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        issuer = NodeIssuer(process)
        issuer.url = await issuer.line()
        yield issuer
    finally:
        process.kill()
        await process.wait()


async def test_tokens_are_verified_through_a_rotation(
    issuer: NodeIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "REFETCH_SECONDS", 0.1)
    settings = {"jwt_issuer": issuer.url, "jwt_audience": "polos"}
    async with serving(tmp_path, FINE, **settings) as served:
        address = f"127.0.0.1:{served.service.port}"

        async def run(token: str) -> str:
            async with PolosClient(address, token) as client:
                return str((await FINE.run(client, "Go.")).result)

        old = await issuer.token()
        assert await run(old) == "Hello."
        for claims, cause in (({"aud": "other"}, "audience"), ({"exp": 1}, "expired")):
            with pytest.raises(Unauthenticated) as caught:
                await run(await issuer.token(**claims))
            assert caught.value.metadata["cause"] == cause
        await issuer.ask("rotate")
        assert await run(await issuer.token()) == "Hello."
        with pytest.raises(Unauthenticated) as caught:
            await run(old)
        assert caught.value.metadata["cause"] == "unknown"


async def test_every_method_answers_to_every_kind_of_token_as_documented(
    issuer: NodeIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "REFETCH_SECONDS", 0.1)
    monkeypatch.setattr(signing, "HEARD", 0.0)
    async with issuing() as issuer.other, playing(tmp_path, issuer, mutual=False) as scene:
        await scene.compare([kind for kind in TOKENS if kind.startswith("JWT")])
