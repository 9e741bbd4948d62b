"""`polos agents`: the agents that the service has loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from polos_service.cli.output import print_json
from polos_service.cli.service import AgentId, AsJson, Way, call, calls_service
from polos_service.cli.table import print_table, print_text
from polos_service.cli.text import printable

if TYPE_CHECKING:
    from polos.v1.agent_pb2 import Agent

app = typer.Typer(no_args_is_help=True, help="List and show the served agents.")

COLUMNS = ("AGENT", "PROVIDER", "MODEL", "TOOLS", "DESCRIPTION")


@app.command("list")
@calls_service
def list_agents(*, as_json: AsJson = False, way: Way) -> None:
    """List the agents by id."""
    agents = call(way, lambda client: client.list_agents())
    if as_json:
        for agent in agents:
            print_json(as_dict(agent))
        return
    print_table(COLUMNS, [row_of(agent) for agent in agents])


@app.command()
@calls_service
def show(agent_id: AgentId, *, as_json: AsJson = False, way: Way) -> None:
    """Show an agent's model, limits and tools with their parameters."""
    agent = call(way, lambda client: client.get_agent(agent_id))
    if as_json:
        print_json(as_dict(agent))
    else:
        print_text(printable(described(as_dict(agent))))


def as_dict(agent: Agent) -> dict[str, Any]:
    """Return the agent; what has no value is absent."""
    from polos_client.event import parsed  # noqa: PLC0415 - protobuf: `--help` needs none

    shown = {
        "agent_id": agent.agent_id,
        "description": agent.description or None,
        "provider": agent.provider,
        "model": agent.model,
        "temperature": agent.temperature if agent.HasField("temperature") else None,
        "max_output_tokens": (
            agent.max_output_tokens if agent.HasField("max_output_tokens") else None
        ),
        "stop_conditions": list(agent.stop_conditions),
        "output_schema_name": agent.output_schema_name or None,
        "output_schema": (
            parsed(agent.output_schema_json) if agent.HasField("output_schema_json") else None
        ),
        "tools": [
            {
                "name": tool.name,
                "description": tool.description,
                "parameters": parsed(tool.parameters_json),
            }
            for tool in agent.tools
        ],
    }
    return {name: value for name, value in shown.items() if value is not None}


def row_of(agent: Agent) -> list[str]:
    """Return the agent as a table's row."""
    tools = ", ".join(tool.name for tool in agent.tools)
    return [agent.agent_id, agent.provider, agent.model, tools, agent.description]


def described(agent: dict[str, Any]) -> str:
    """Return what `as_dict` made, to be read."""
    facts = {**agent, "stop_conditions": ", ".join(agent["stop_conditions"])}
    tools = facts.pop("tools")
    facts.pop("output_schema", None)
    lines = [f"{name.replace('_', ' '):<18} {value}" for name, value in facts.items()]
    for tool in tools:
        lines.append(f"tool {tool['name']}: {tool['description']}")
        lines += map(parameter, tool["parameters"].get("properties", {}).items())
    return "\n".join(lines)


def parameter(item: tuple[str, dict[str, Any]]) -> str:
    """Return a parameter of a tool on a line."""
    name, schema = item
    kind = schema.get("type", "any")
    return f"  {name} ({kind}) {schema.get('description', '')}".rstrip()
