"""What the service has loaded, by id."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from types import CodeType, MappingProxyType
from typing import Any

from polos.v1.run_pb2 import Wait
from polos_client.define.agent import Agent
from polos_client.define.agent_tool import AgentTool
from polos_client.define.tool import Tool
from polos_client.define.workflow import Workflow
from polos_client.errors import AgentNotFound, DefinitionError
from polos_service.agents.people import wrong_edit
from polos_service.agents.runnable import AgentRunnable
from polos_service.errors import StepError
from polos_service.runs.runnable import Runnable
from polos_service.tools.local import in_time
from polos_service.workflows.runnable import WorkflowRunnable

EDIT_PATIENCE = 10.0
"""Seconds that the code which checks changed arguments may take."""


class DuplicateError(DefinitionError):
    """A definition has the id of another one that is loaded."""


class Catalog(Mapping[str, Runnable]):
    """Runnables by id. More can be added at any time.

    The tools of agents are known by id, too, and cannot be started on their own. As a mapping, it
    has everything; what a caller may know of is in the methods that are given the project.
    """

    def __init__(
        self,
        runnables: Iterable[Runnable] = (),
        defined: Callable[[str], Runnable | None] = lambda _: None,
        projects: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> None:
        """Load these runnables.

        Args:
            runnables: what is loaded at once.
            defined: finds by id what is loaded when it is first asked for.
            projects: which projects a runnable is for, by its id; all others are for every project.

        Raises:
            DuplicateError: two of the runnables have one id.

        """
        self._defined = defined
        self._projects = projects
        self._runnables: dict[str, Runnable] = {}
        for runnable in runnables:
            self.add(runnable)

    def __getitem__(self, runnable_id: str) -> Runnable:
        """Return a runnable; KeyError if there is none of that id."""
        if runnable_id not in self._runnables:
            try:
                found = self._defined(runnable_id)
            except DefinitionError as error:
                raise KeyError(runnable_id) from error
            if found is not None:
                self.add(found)
        return self._runnables[runnable_id]

    def __iter__(self) -> Iterator[str]:
        """Iterate the ids."""
        return iter(self._runnables)

    def __len__(self) -> int:
        """Return how many runnables are loaded."""
        return len(self._runnables)

    def add(self, runnable: Runnable) -> None:
        """Load a runnable; the same one again changes nothing.

        Raises:
            DuplicateError: another one has its id.

        """
        loaded = self._runnables.setdefault(runnable.id, runnable)
        if loaded != runnable:
            what = f"{runnable.kind}s" if loaded.kind == runnable.kind else "runnables"
            raise DuplicateError(
                f"Two {what} have the id {runnable.id!r}. Give one of them another id."
            )

    def find(self, runnable_id: str, project: str) -> Runnable:
        """Return the runnable that a start in a project names.

        Raises:
            AgentNotFound: none of that id is loaded for the project, or it cannot be loaded.

        """
        if not self._visible(runnable_id, project):
            raise self._missing(runnable_id, project)
        try:
            return self[runnable_id]
        except KeyError as error:
            raise self._missing(runnable_id, project, error.__cause__) from None

    def kind(self, runnable_id: str, project: str) -> str:
        """Return the kind of what a start in a project names; empty if there is nothing."""
        found = self.get(runnable_id) if self._visible(runnable_id, project) else None
        return "" if found is None else found.kind

    def agent(self, agent_id: str, project: str) -> Agent:
        """Return an agent that a project may use.

        Raises:
            AgentNotFound: none of that id is loaded for the project.

        """
        runnable = self.find(agent_id, project)
        if not isinstance(runnable, AgentRunnable):
            raise self._missing(agent_id, project)
        return runnable.agent

    def agents(self, project: str | None = None) -> list[Agent]:
        """Return the agents that a project may use, by id; None for all."""
        found = (one.agent for one in self._runnables.values() if isinstance(one, AgentRunnable))
        visible = (one for one in found if project is None or self._visible(one.id, project))
        return sorted(visible, key=lambda agent: agent.id)

    def workflows(self, project: str | None = None) -> list[Workflow]:
        """Return the workflows that a project may start, by id; None for all."""
        found = (one for one in self._runnables.values() if isinstance(one, WorkflowRunnable))
        visible = (one for one in found if project is None or self._visible(one.id, project))
        return sorted((one.workflow for one in visible), key=lambda workflow: workflow.id)

    def tools(self) -> list[Tool]:
        """Return the tools of all agents; different ones may have the same id."""
        return [tool for agent in self.agents() for tool in agent.tools]

    def tool_code(self) -> dict[CodeType, str]:
        """Return the tools' ids by the code of their functions."""
        return {tool.fn.__code__: tool.id for tool in self.tools() if hasattr(tool.fn, "__code__")}

    async def wrong_edit(self, project: str, wait: Wait, arguments: Mapping[str, Any]) -> str:
        """Return what is wrong with arguments that replace those of an approval.

        Empty if they can be taken. The tool is that of the agent whose run waits.
        """
        tool_id = json.loads(wait.data_json)["_tool"]
        try:
            agent = self.agent(wait.workflow_id, project)
            tool = next(one for one in agent.tools if one.id == tool_id)
        except (AgentNotFound, StopIteration):
            return f"this service does not have the tool {tool_id!r} of {wait.workflow_id!r}"
        check = partial(wrong_edit, tool, wait.data_json, arguments)
        try:
            return await in_time(tool, check, EDIT_PATIENCE)
        except StepError as error:
            return error.message

    def _visible(self, runnable_id: str, project: str) -> bool:
        return project in self._projects.get(runnable_id, (project,))

    def _missing(self, runnable_id: str, project: str, why: object = None) -> AgentNotFound:
        known = sorted(one for one in self._runnables if self._visible(one, project))
        what = f"There is no agent or workflow {runnable_id!r}."
        if why is not None:
            what = f"The agent or workflow {runnable_id!r} cannot be loaded. {why}"
        # Not the agents among the tools: they may be those of another project.
        tools = [
            one
            for agent in self.agents(project)
            for one in agent.tools
            if not isinstance(one, AgentTool)
        ]
        if runnable_id in known:
            what = f"{runnable_id!r} is a {self._runnables[runnable_id].kind}, not an agent."
        elif any(tool.id == runnable_id for tool in tools):
            what = f"{runnable_id!r} is a tool, and a tool cannot be started on its own yet."
        return AgentNotFound(
            f"{what} Loaded: {', '.join(known) or 'none'}.",
            agent_id=runnable_id,
            known=",".join(known),
        )
