"""The modules and names that programs for the original SDK import: built, or refused when used."""

from __future__ import annotations

from importlib import import_module

import pytest

import polos
from polos import DefinitionError
from polos_client.unbuilt import NAMES

DOCUMENTED = """
    Workflow get_workflow get_all_workflows Queue queue batch_invoke batch_agent_invoke
    AgentStreamHandle StreamResult ToolApproval hook HookContext HookResult HookAction guardrail
    GuardrailContext GuardrailResult Worker AgentContext WorkflowState schedules SchedulePayload
    EventPayload BatchEventPayload BatchStepResult ToolCall ToolCallFunction AgentConfig
    WorkflowTimeoutError StepExecutionError BatchWorkflowInput workflow
    sandbox_tools SandboxToolsConfig DockerEnvironmentConfig LocalEnvironmentConfig ExecToolConfig
    create_web_search_tool WebSearchToolConfig WebSearchOptions WebSearchResult
    SlackChannel SlackChannelConfig Channel
    create_ask_user_tool AskUserInput AskUserField AskUserFieldOption
"""
HOMES = {
    "polos": DOCUMENTED,
    "polos.features.events": """
        stream_workflow publish batch_publish stream_topic EventData StreamEvent EventPayload
        BatchEventPayload""",
    "polos.types": "AgentResult ToolResult Usage Step ToolCall BatchWorkflowInput AgentConfig",
    "polos.types.types": "AgentResult ToolResult BatchWorkflowInput BatchStepResult",
    "polos.memory.types": "CompactionConfig",
    "polos.core.workflow": "Workflow get_workflow WorkflowTimeoutError StepExecutionError",
    "polos.core.step": "StepExecutionError ExecutionCancelledError",
}


@pytest.mark.parametrize(
    ("home", "name"), [(home, name) for home, names in HOMES.items() for name in names.split()]
)
def test_documented_name_is_built_or_refused_when_used(home: str, name: str) -> None:
    value = getattr(import_module(home), name)
    if name not in NAMES:
        assert value is getattr(polos, name, value)
        return
    assert value is getattr(polos, name)
    with pytest.raises(DefinitionError, match=f"^{name} is not built yet in this version"):
        value()


@pytest.mark.parametrize("home", HOMES)
def test_unknown_name_is_an_attribute_error(home: str) -> None:
    module = import_module(home)
    with pytest.raises(AttributeError, match=f"module '{home}' has no attribute 'nothing'"):
        _ = module.nothing


def test_events_are_the_module_of_the_original_sdk() -> None:
    assert polos.events is import_module("polos.features.events")


def test_no_built_name_is_refused() -> None:
    assert set(NAMES).isdisjoint(polos.__all__)
