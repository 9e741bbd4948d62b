"""`polos chat`: a conversation with an agent, in the terminal."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import typer

from polos_client.errors import PolosError
from polos_service.cli.attending import attendant
from polos_service.cli.exits import complain, reporting
from polos_service.cli.output import Output, output_for
from polos_service.cli.run import Session, User, start_of
from polos_service.cli.service import AgentId, Way, calls_service, connected
from polos_service.cli.watch import Watch, cancel

if TYPE_CHECKING:
    from polos_client.calls.client import PolosClient

COMMANDS = "/new starts a new conversation, /quit or Ctrl-D quits; Ctrl-C cancels an answer"
"""What can be typed besides what is said to the agent."""


@calls_service
def chat(
    agent: AgentId,
    session: Session = None,
    user: User = None,
    *,
    way: Way,
) -> None:
    """Chat with an agent. Each answer is a run that gets the whole conversation.

    /new starts a new conversation, /quit or Ctrl-D quits. Ctrl-C during an answer cancels its
    run and keeps the conversation as it was before the question.
    """
    with reporting(), asyncio.Runner() as runner:
        runner.run(connected(way, lambda client: client.get_agent(agent)))
        talk = Conversation(agent, way, session_id=session, user_id=user)
        if sys.stdin.isatty():
            typer.echo(f"{agent}: {COMMANDS}", err=True)
        while (line := next_line()) is not None and line != "/quit":
            if line == "/new":
                talk.messages.clear()
            elif line.startswith("/"):
                complain(f"unknown command {line}; {COMMANDS}")
            elif line:
                runner.run(talk.say(line))


def next_line() -> str | None:
    """Return the next line of the input, without spaces around it; None at its end."""
    terminal = sys.stdin.isatty()
    if terminal:
        import readline  # noqa: F401, PLC0415 - lets input() edit the line and recall others
    while True:
        try:
            return input("> " if terminal else "").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            typer.echo(f"\n{COMMANDS}", err=True)


class Conversation:
    """What has been said so far; the service remembers nothing between runs.

    Attributes:
        messages: the conversation, in the form of the OpenAI chat API.

    """

    def __init__(self, agent: str, way: Way, **fields: Any) -> None:
        """Begin a conversation with an agent; `fields` are those of each run's `Start`."""
        self.messages: list[dict[str, str]] = []
        self._agent = agent
        self._way = way
        self._fields = fields
        self._output: Output = output_for(as_json=False)

    async def say(self, text: str) -> None:
        """Ask, show the answer, and remember both; without an answer, remember neither."""
        asked = [*self.messages, {"role": "user", "content": text}]
        try:
            answer = await connected(self._way, lambda client: self._answer(client, asked))
        except PolosError as error:
            complain(str(error))
            return
        if answer is not None:
            self.messages = [*asked, {"role": "assistant", "content": answer}]

    async def _answer(self, client: PolosClient, asked: list[dict[str, str]]) -> str | None:
        """Return the answer, shown as it comes; None if the run was cancelled or failed."""
        from polos_client.calls import running  # noqa: PLC0415 - grpc: `--help` needs none

        stream = await running.stream(client, start_of(self._agent, asked, **self._fields))
        watch = Watch(client, stream.id, self._output, cancel, self._way, attendant())
        ended = await watch.run(stream.events)
        if ended is None or ended.event_type != "agent_finish":
            return None
        finish = ended.proto.agent_finish
        if not finish.result_step_key:
            return finish.result
        return await stream.text() if finish.result_is_json else (await stream.result()).result
