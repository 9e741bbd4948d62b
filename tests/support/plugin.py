"""A package that adds providers, as an installer leaves it in a folder of the import path."""

from __future__ import annotations

from pathlib import Path

SOURCE = """\
from polos.v1.event_pb2 import FinishReason
from polos_service.models import Model, ModelAnswer
from polos_service.models.messages import Text
from polos_service.models.openai.apis import ChatCompletions
from polos_service.models.preset import Preset
from polos_service.models.remote import Remote

ACME = Preset(
    name="acme",
    apis={"chat_completions": ChatCompletions()},
    base_url="https://api.acme.example/v1",
    key_variable="ACME_API_KEY",
    url_variable="ACME_BASE_URL",
    needs_key=True,
)


def acme(config):
    return Remote(ACME, config.account(ACME))


class Echo(Model):
    apis = ("loud", "quiet")

    def __init__(self, sign):
        self.sign = sign

    def lacks(self, base_url):
        return "" if self.sign else "ECHO_SIGN is not set"

    def check(self, options, api=None):
        return {name: f"cannot be set for {api}" for name in options}

    async def answer(self, request, output):
        said = request.messages[-1].text + self.sign
        said = said.upper() if request.api == "loud" else said
        await output.text(said)
        return ModelAnswer(parts=[Text(text=said)], finish_reason=FinishReason.FINISH_REASON_STOP)

    async def close(self):
        pass


def echo(config):
    return Echo(config.environment.get("ECHO_SIGN", ""))


def fail(config):
    raise RuntimeError("the licence has expired")


def nothing(config):
    return "no model"
"""
"""Its module: a provider of chat completions, a provider of its own, and some that are broken."""

POINTS = {
    "acme": "acme_models:acme",
    "echo": "acme_models:echo",
    "expired": "acme_models:fail",
    "nothing": "acme_models:nothing",
    "misspelt": "acme_models:eccho",
    "absent": "acme_nowhere:echo",
    "openai": "acme_models:echo",
}
"""Its entry points."""


def install(folder: Path, name: str = "acme-models", **points: str) -> Path:
    """Put the package into a folder, which belongs on the import path; return the folder."""
    (folder / "acme_models.py").write_text(SOURCE)
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{provider} = {place}" for provider, place in (points or POINTS).items()]
    (info / "entry_points.txt").write_text("\n".join(["[polos.providers]", *lines, ""]))
    return folder
