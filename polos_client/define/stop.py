"""Stop conditions: what ends an agent's run between two model calls."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field, model_validator

from polos_client.define.signature import is_model, label, parameters
from polos_client.define.tool import Tool
from polos_client.errors import DefinitionError
from polos_client.result import ToolResult, Usage


class ToolCallFunction(BaseModel):
    """What the model calls.

    Attributes:
        name: the tool.
        arguments: JSON text, as the model wrote it.

    """

    name: str
    arguments: str


class ToolCall(BaseModel):
    """A call of a tool, as the model asked for it.

    Attributes:
        id: the provider's id of the call.
        type: always "function".
        function: the tool and its arguments.

    """

    id: str
    type: str = "function"
    function: ToolCallFunction

    @computed_field  # type: ignore[prop-decorator]
    @property
    def call_id(self) -> str:
        """The same as `id`."""
        return self.id


class Step(BaseModel):
    """A model call, and the tool calls that it asked for.

    Attributes:
        step: which model call of the run, from 1.
        content: the text it said; None if it said none.
        tool_calls: what it asked for.
        tool_results: how those calls ended.
        usage: its tokens; None if the provider told none.
        raw_output: always None; programs for the original SDK may name it.

    """

    step: int
    content: str | None = None
    tool_calls: list[ToolCall] = Field(default_factory=list)
    tool_results: list[ToolResult] = Field(default_factory=list)
    usage: Usage | None = None
    raw_output: Any = None


class StopConditionContext(BaseModel):
    """What a stop condition is asked about: the run so far.

    Attributes:
        steps: every finished model call, in order, with the results of its tools.
        agent_id: the agent.
        agent_run_id: its run.

    """

    steps: list[Step]
    agent_id: str
    agent_run_id: str


class StopCondition:
    """A condition that ends a run when it holds. Called without arguments, it gives itself.

    Attributes:
        name: the function's name; the result of a run that it ended tells it.
        config: its configuration as JSON values; None if it takes none.

    """

    def __init__(
        self,
        fn: Callable[..., Any],
        model: type[BaseModel] | None,
        config: BaseModel | None,
        name: str | None = None,
    ) -> None:
        """Wrap `fn`, which takes a context and, where `model` is given, a `config` of it."""
        self.name = name or str(getattr(fn, "__name__", type(fn).__name__))
        self.config = None if config is None else config.model_dump(mode="json")
        self._fn = fn
        self._model = model
        self._value = config

    def __repr__(self) -> str:
        return f"<StopCondition {self.name} {self.config or ''}>"

    def __call__(self) -> StopCondition:
        """Return the condition itself: programs write `f` or `f()`."""
        return self

    async def holds(self, ctx: StopConditionContext) -> bool:
        """Ask the function."""
        answer = self._fn(ctx) if self._model is None else self._fn(ctx, self._value)
        return bool(await answer if inspect.isawaitable(answer) else answer)

    def configured(self, config: Mapping[str, Any] | None) -> StopCondition:
        """Return the same condition with another configuration, given as JSON values.

        Raises:
            pydantic.ValidationError: it takes no such configuration.

        """
        if self._model is None:
            return self
        value = self._model.model_validate(config or {})
        return StopCondition(self._fn, self._model, value, self.name)

    def apart_from(self, others: Sequence[StopCondition]) -> StopCondition:
        """Return the condition under a name that no other function has among `others`.

        A run finds the code of its conditions by their names.
        """
        taken = {one.name for one in others if one._fn is not self._fn}  # noqa: SLF001
        name, number = self.name, 1
        while name in taken:
            number += 1
            name = f"{self.name}:{number}"
        if name == self.name:
            return self
        return StopCondition(self._fn, self._model, self._value, name)


_C = TypeVar("_C", bound=BaseModel)


class ConfigurableStopCondition(Generic[_C]):
    """A stop condition that takes a configuration: call it with one to get the condition.

    Attributes:
        name: the function's name.

    """

    def __init__(self, fn: Callable[..., Any], model: type[_C]) -> None:
        """Wrap `fn`, which takes a context and a configuration of type `model`."""
        self.name: str = fn.__name__
        self._fn = fn
        self._model = model

    def __call__(
        self, config: _C | Mapping[str, Any] | None = None, /, **fields: Any
    ) -> StopCondition:
        """Return the condition with `config`, or with one made of a dict or of `fields`.

        Raises:
            DefinitionError: the configuration does not fit.

        """
        if isinstance(config, self._model) and not fields:
            return StopCondition(self._fn, self._model, config)
        if config is None or (isinstance(config, Mapping) and not fields):
            return StopCondition(self._fn, self._model, self._make(config or fields))
        raise DefinitionError(
            f"{self.name}() takes one {self._model.__name__}, a dict, or the fields by name"
        )

    def _make(self, fields: Mapping[str, Any]) -> _C:
        try:
            return self._model.model_validate(fields)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            what = first["msg"].removeprefix("Value error, ")
            raise DefinitionError(f"{self.name}(): {where}: {what}") from error


@overload
def stop_condition(fn: Callable[[StopConditionContext], Any]) -> StopCondition: ...


@overload
def stop_condition(
    fn: Callable[[StopConditionContext, _C], Any],
) -> ConfigurableStopCondition[_C]: ...


def stop_condition(fn: Callable[..., Any]) -> StopCondition | ConfigurableStopCondition[Any]:
    """Make a stop condition of a function `(ctx)` or `(ctx, config: SomeModel)`.

    It is asked after each model call and the tools that it asked for; the run ends when
    it returns a true value. `def` and `async def` both work; a `def` must not block.

    Returns:
        The condition itself where the function takes a context alone, otherwise what is
        called with a configuration to get it, as `max_steps(MaxStepsConfig(count=3))`.

    Raises:
        DefinitionError: the function's parameters are others.

    """
    names = sys._getframe(1).f_locals  # noqa: SLF001 - for types that are defined beside fn
    match [one.annotation for one in parameters(fn, names)]:
        case [_]:
            return StopCondition(fn, None, None)
        case [_, model] if is_model(model):
            return ConfigurableStopCondition(fn, model)
    raise DefinitionError(
        f"{label(fn)}: a stop condition takes (ctx), or (ctx, config) with a pydantic model as "
        "the type of config"
    )


def as_condition(value: Any) -> StopCondition:
    """Return the condition that a plain callable `(ctx)` makes; a condition as it is.

    Raises:
        DefinitionError: the value is neither.

    """
    if isinstance(value, StopCondition):
        return value
    if isinstance(value, ConfigurableStopCondition):
        raise DefinitionError(f"{value.name} needs a configuration: call it, as max_steps(count=5)")
    if isinstance(value, Tool | type) or not callable(value) or not _takes_a_context(value):
        raise DefinitionError(
            f"{value!r} is not a stop condition: give a function that takes (ctx), or call one "
            "with its configuration, as max_steps(count=5)"
        )
    return StopCondition(value, None, None)


def _takes_a_context(fn: Callable[..., Any]) -> bool:
    try:
        inspect.signature(fn).bind(None)
    except (TypeError, ValueError):
        return False
    return True


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MaxStepsConfig(_Config):
    """Configures `max_steps`.

    Attributes:
        count: model calls, at least 1. An agent without any `max_steps` is bounded by
            `default_steps()` instead. It may be given as `limit`, as early programs for the
            original SDK do.

    """

    count: int = Field(default=20, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _limit(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "limit" in given and "count" not in given:
            return {"count" if name == "limit" else name: given[name] for name in given}
        return given


class MaxTokensConfig(_Config):
    """Configures `max_tokens`.

    Attributes:
        limit: tokens of all model calls, at least 1.

    """

    limit: int = Field(ge=1)


class ExecutedToolConfig(_Config):
    """Configures `executed_tool`.

    Attributes:
        tool_names: the tools; with none, the condition never holds.

    """

    tool_names: list[str]


class HasTextConfig(_Config):
    """Configures `has_text`.

    Attributes:
        texts: what the answers must contain; with none, the condition never holds.

    """

    texts: list[str]


@stop_condition
def max_steps(ctx: StopConditionContext, config: MaxStepsConfig) -> bool:
    """Hold after `count` model calls."""
    return len(ctx.steps) >= config.count


@stop_condition
def max_tokens(ctx: StopConditionContext, config: MaxTokensConfig) -> bool:
    """Hold when the model calls used `limit` tokens or more, as far as they were told."""
    return sum(step.usage.total_tokens for step in ctx.steps if step.usage) >= config.limit


@stop_condition
def executed_tool(ctx: StopConditionContext, config: ExecutedToolConfig) -> bool:
    """Hold when the model has asked for each of the tools, however the calls ended."""
    asked = {call.function.name for step in ctx.steps for call in step.tool_calls}
    return bool(config.tool_names) and asked.issuperset(config.tool_names)


@stop_condition
def has_text(ctx: StopConditionContext, config: HasTextConfig) -> bool:
    """Hold when each of the texts stands in the answers, joined with spaces."""
    said = " ".join(step.content for step in ctx.steps if step.content)
    return bool(config.texts) and all(text in said for text in config.texts)


def default_steps() -> int:
    """Return the bound of an agent without any `max_steps`: POLOS_AGENT_MAX_STEPS, else 10.

    Raises:
        DefinitionError: the variable is not a whole number, at least 1.

    """
    value = os.environ.get("POLOS_AGENT_MAX_STEPS") or "10"
    if not (value.isascii() and value.isdecimal() and int(value) >= 1):
        raise DefinitionError(
            f"POLOS_AGENT_MAX_STEPS must be an integer, at least 1, not {value!r}"
        )
    return int(value)


_BUILT_IN: Mapping[str, ConfigurableStopCondition[Any]] = {
    one.name: one for one in (max_steps, max_tokens, executed_tool, has_text)
}


def restore(
    name: str, config: Mapping[str, Any] | None, loaded: Sequence[StopCondition]
) -> StopCondition:
    """Return the condition that a run was started with.

    Args:
        name: its name.
        config: its configuration then.
        loaded: the conditions of the agent as it is loaded now.

    Raises:
        LookupError: the agent no longer has it, or it no longer takes that configuration.

    """
    found = next((one for one in loaded if one.name == name), None)
    try:
        if found is not None:
            return found.configured(config)
        if name in _BUILT_IN:
            return _BUILT_IN[name](**(config or {}))
    except (ValidationError, DefinitionError) as error:
        raise LookupError(
            f"the stop condition {name!r} no longer takes the configuration that the run was "
            "started with"
        ) from error
    raise LookupError(
        f"the stop condition {name!r} that the run was started with is no longer part of the agent"
    )
