"""`polos new`: a small project to start from."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from polos_client.errors import DefinitionError
from polos_service.cli.exits import fail

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
"""What the name of a project may be: it becomes the id of its agent."""

OPENAI = "openai"
"""The provider of a new project's agent, if nobody names another one."""

MODEL = "gpt-4o-mini"
"""The model of OpenAI that a new project's agent has, if nobody names another one."""

APP = '''\
"""An agent with a tool. Serve it with: polos serve app.py"""

from datetime import date

from polos import Agent, tool


@tool(description="Count the days from one date to another, both as YYYY-MM-DD")
async def count_days(first: str, second: str) -> int:
    return (date.fromisoformat(second) - date.fromisoformat(first)).days


assistant = Agent(
    id={id},
    provider={provider},
    model={model},
    system_prompt="Answer in one sentence. Count days with the tool.",
    tools=[count_days],
)
'''

TEST = '''\
"""Tests of the agent. A script takes the place of its model: no key is needed."""

import asyncio

from app import assistant
from polos import AgentResult, scripted
from polos.testing import Script, ScriptedPolos


async def answered(script: Script, question: str) -> AgentResult:
    """Return what the agent answers if its model plays the script."""
    async with ScriptedPolos() as polos:
        polos.play(assistant, script)
        return await assistant.run(polos, question)


def test_the_days_are_counted_by_the_tool():
    call = scripted.call("count_days", first="2026-12-01", second="2026-12-24")
    script = Script(call, "Christmas is 23 days away.")
    result = asyncio.run(answered(script, "How long is it until Christmas?"))
    assert result.result == "Christmas is 23 days away."
    assert script.asked[1].last["content"] == "23"  # what the model was sent after the call


def test_a_date_that_is_not_valid_is_told_to_the_model():
    call = scripted.call("count_days", first="tomorrow", second="2026-12-24")
    script = Script(call, "Which date do you mean?")
    asyncio.run(answered(script, "How long is it until Christmas?"))
    assert "Invalid isoformat" in script.asked[1].last["content"]
'''

README = """\
# {name}

An agent with a tool, served by Polos.

| file | what it has |
|---|---|
| `app.py` | the agent and its tool |
| `test_app.py` | its tests, which need neither a key nor a network |
| `requirements.txt` | what both need |

## Run it

Install what it needs, and run the tests:

```sh
pip install -r requirements.txt
pytest
```

Set the key of the model's provider, for example `OPENAI_API_KEY`, and start the service. It names
the variables that are missing:

```sh
polos serve app.py --reload
```

For a model on your machine, set `OPENAI_BASE_URL=http://localhost:8080/v1` or the like instead.

Ask the agent in another terminal:

```sh
polos run {quoted} "How many days are there from 2026-12-01 to Christmas?"
polos runs show last
```

## Change it

`provider` and `model` in `app.py` choose another model. The agent can call every function with
`@tool` that is in `tools`; its type hints say what it takes. With `--reload`, the service restarts
when you save a file, and runs that have not ended continue.
"""

REQUIREMENTS = """\
polos-grpc[service]
pytest
"""

FILES: Mapping[str, str] = {
    "app.py": APP,
    "test_app.py": TEST,
    "README.md": README,
    "requirements.txt": REQUIREMENTS,
}
"""The files of a project, in which its name stands in several forms, and provider and model."""


def new(
    project: Annotated[Path, typer.Argument(metavar="NAME", help="The project's new folder.")],
    provider: Annotated[str, typer.Option(help="The provider of the agent's model.")] = OPENAI,
    model: Annotated[
        str | None,
        typer.Option(help=f"The agent's model. Default: {MODEL}, if the provider is openai."),
    ] = None,
) -> None:
    """Make a small project: an agent with a tool, a test and a README."""
    name = project.resolve().name
    if not _NAME.fullmatch(name):
        raise typer.BadParameter(
            f"{name!r} must be 1 to 128 letters, digits, '_', '.' or '-': it becomes the id of "
            "the agent",
            param_hint="NAME",
        )
    require_known(provider)
    if model is None and provider != OPENAI:
        raise typer.BadParameter(f"name a model of {provider!r}", param_hint="--model")
    values = {
        "name": name,
        "quoted": shlex.quote(name),
        "id": json.dumps(name),
        "provider": json.dumps(provider),
        "model": json.dumps(model or MODEL),
    }
    try:
        if project.is_dir() and any(project.iterdir()):
            fail(f"{project} is not empty: name a new folder")
        project.mkdir(parents=True, exist_ok=True)
        for file, text in FILES.items():
            (project / file).write_text(text.format(**values), encoding="utf-8")
    except OSError as error:
        fail(f"{error.filename or project} cannot be written: {error.strerror}")
    typer.echo(f"{project} has {', '.join(FILES)}.")
    typer.echo(
        f"Next: cd {shlex.quote(str(project))} && pip install -r requirements.txt && pytest && "
        "polos serve app.py"
    )


def require_known(provider: str) -> None:
    """Refuse a provider that `polos serve` would not know here."""
    from polos_service.models.built_in import BUILT_IN  # noqa: PLC0415 - other commands start sooner
    from polos_service.models.providers import Providers  # noqa: PLC0415

    try:
        Providers(BUILT_IN).find(provider, None)
    except DefinitionError as error:
        raise typer.BadParameter(str(error), param_hint="--provider") from None
