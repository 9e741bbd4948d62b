"""What a run gives back."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, computed_field, model_validator


class Usage(BaseModel):
    """Tokens, as the provider counted them.

    Attributes:
        input_tokens: tokens read, cached ones included.
        output_tokens: tokens written, reasoning included.
        total_tokens: the sum of both.
        cache_read_input_tokens: of the input, those read from the provider's cache;
            None if it did not say.
        cache_creation_input_tokens: of the input, those written to its cache; None if
            it did not say.
        reasoning_tokens: of the output, those of reasoning; None if it did not say.

    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    reasoning_tokens: int | None = None


class ToolResult(BaseModel):
    """How one call of a tool ended.

    Attributes:
        tool_name: the tool, as the model named it.
        status: "completed" with a `result`, or "failed" with an `error`.
        input: the arguments; the model's raw text if that is not valid JSON.
        result: the return value of the tool: a model as an instance if this process has its class,
            anything else as JSON values; None if the call failed.
        error: why it failed, in a sentence; None if it did not.
        tool_call_id: the provider's id of the call.
        result_schema: name of the pydantic model that the tool returned, as `module.Class`; None
            if it returned anything else.

    """

    tool_name: str
    status: Literal["completed", "failed"]
    input: Any = None
    result: Any = None
    error: str | None = None
    tool_call_id: str
    result_schema: str | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tool_call_call_id(self) -> str:
        """The same as `tool_call_id`."""
        return self.tool_call_id


class AgentResult(BaseModel):
    """The result of a completed run.

    Attributes:
        agent_run_id: the run.
        result: the text of the last model call; for an agent with an output_schema, the value, for
            example an instance of the model.
        result_schema: name of the pydantic model that `result` is an instance of, as
            `module.Class`; None if it is not one.
        tool_results: every call of a tool, in the order in which they ended.
        total_steps: number of model calls.
        usage: tokens of all model calls that finished and are not void, those of child runs
            included.
        cost: US dollars of these model calls; None if the cost of any is unknown.
        spent: tokens that the run and its children have spent: those of `usage`, and those of
            failed model calls and of attempts that were void, as far as they were reported.
        spent_cost: US dollars of what was spent; None if any part of it is unknown.
        finish_reason: "stop", "length", "content_filter", "refusal" or "stop_condition"; None
            if the provider did not say.
        stop_condition: name of the stop condition that ended the run; None if none did.
        duration: seconds since the run was created, time in the queue and in waits included.

    """

    agent_run_id: str
    result: Any = None
    result_schema: str | None = None
    tool_results: list[ToolResult] = Field(default_factory=list)
    total_steps: int = 0
    usage: Usage = Field(default_factory=Usage)
    cost: float | None = None
    spent: Usage = Field(default_factory=Usage)
    spent_cost: float | None = None
    finish_reason: str | None = None
    stop_condition: str | None = None
    duration: float | None = None

    @model_validator(mode="after")
    def _spent_at_least(self) -> Self:
        """Take what stands as spent, where an earlier version of the service tells no more."""
        if "spent" not in self.model_fields_set:
            self.spent, self.spent_cost = self.usage, self.cost
        return self
