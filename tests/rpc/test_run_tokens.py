"""Run tokens: whoever has one reads one run, and nothing else."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from polos_client.calls import events
from polos_client.calls.client import PolosClient
from polos_client.define.scripted import turn
from polos_client.errors import InvalidRequest, PermissionDenied, RunNotFound, Unauthenticated
from polos_service.access import run_tokens
from polos_service.access.signing import RunToken, SigningKey
from tests.support.issuer import AUDIENCE, Issuer
from tests.support.service import scripted, serving

FINE = scripted(turn("Hello."), id="fine")
KEY = SigningKey(id="ab12", secret=b"s" * 32)
TOKEN = RunToken(project="a", run_id="run", credential="key:1", expires=1000.0)


async def test_token_reads_its_run_and_nothing_else(tmp_path: Path) -> None:
    async with (
        Issuer() as issuer,
        serving(tmp_path, FINE, jwt_issuer=issuer.url, jwt_audience=AUDIENCE) as served,
    ):
        address = f"127.0.0.1:{served.service.port}"
        owner = PolosClient(address, issuer.token(scope="runs:read runs:write agents:read"))
        first, second = [await FINE.run(owner, "Go.") for _ in range(2)]
        token = await owner.run_token(first.agent_run_id, seconds=60)
        reader = PolosClient(address, token)
        run = await reader.get_execution(first.agent_run_id)
        assert run["status"] == "completed"
        read = events.stream_workflow(reader, workflow_run_id=first.agent_run_id)
        assert [event async for event in read][-1].event_type == "agent_finish"
        with pytest.raises(RunNotFound):
            await reader.get_execution(second.agent_run_id)
        for call in (
            reader.cancel_execution(first.agent_run_id),
            reader.delete_run(first.agent_run_id),
            reader.run_token(first.agent_run_id),
            reader.list_agents(),
            FINE.run(reader, "Go."),
            anext(reader.list_runs()),
        ):
            with pytest.raises(PermissionDenied):
                await call
        with pytest.raises(RunNotFound):
            await owner.run_token("01890000-0000-7000-8000-000000000000")
        for client in (owner, reader):
            await client.close()


@pytest.mark.parametrize("seconds", [0, -1, 86_401, float("nan"), float("inf")])
async def test_time_is_bounded(seconds: float) -> None:
    with pytest.raises(InvalidRequest, match="must be from 1 to 86400"):
        await PolosClient("127.0.0.1:1").run_token("run", seconds)


def cause(text: str, key: SigningKey = KEY, now: float = 0.0) -> str:
    """Return why a token is refused; nothing of it may be in the message."""
    with pytest.raises(Unauthenticated) as caught:
        run_tokens.verify(text, key, now)
    assert not text or text not in str(caught.value)
    return caught.value.metadata["cause"]


def test_token_says_what_was_signed_until_it_expires() -> None:
    text = run_tokens.sign(TOKEN, KEY)
    assert text.startswith("polosrun_ab12_")
    assert run_tokens.verify(text, KEY, 999.9) == TOKEN
    assert cause(text, now=1000.0) == "expired"


def test_changed_token_is_refused() -> None:
    text = run_tokens.sign(TOKEN, KEY)
    for place, letter in enumerate(text):
        changed = f"{text[:place]}{'b' if letter != 'b' else 'c'}{text[place + 1 :]}"
        assert cause(changed) in ("malformed", "unknown")
    for other in (text.upper(), text + "\n", text[:-1], f" {text}", text + "=", "polosrun_", ""):
        assert cause(other) in ("malformed", "unknown")
    assert cause("polosrun_ab12_" + "A" * 1024 * 1024) == "malformed"


def test_token_of_another_key_is_refused() -> None:
    text = run_tokens.sign(TOKEN, KEY)
    assert cause(text, SigningKey(id="ab12", secret=b"t" * 32)) == "unknown"
    assert cause(text, SigningKey(id="cd34", secret=KEY.secret)) == "unknown"
    assert "sss" not in repr(KEY)


def test_claims_of_others_are_not_read() -> None:
    claims = base64.urlsafe_b64encode(b"[" * 300).decode().rstrip("=")
    assert cause(f"polosrun_ab12_{claims}_{'0' * 64}") == "unknown"
