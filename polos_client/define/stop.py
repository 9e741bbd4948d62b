"""Stop conditions: what ends an agent's run between two model calls."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from polos_client.define.signature import is_model, label, parameters
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


class Step(BaseModel):
    """A model call, and the tool calls that it asked for.

    Attributes:
        step: which model call of the run, from 1.
        content: the text it said; None if it said none.
        tool_calls: what it asked for.
        tool_results: how those calls ended.
        usage: its tokens; None if the provider told none.

    """

    step: int
    content: str | None = None
    tool_calls: list[ToolCall] = Field(default_factory=list)
    tool_results: list[ToolResult] = Field(default_factory=list)
    usage: Usage | None = None


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
    """A condition that ends a run when it holds.

    Attributes:
        name: the function's name; it is told in the result of a run that it ended.
        config: its configuration as JSON values; None if it takes none.

    """

    def __init__(
        self, fn: Callable[..., Any], model: type[BaseModel] | None, config: BaseModel | None
    ) -> None:
        """Wrap `fn`, which takes a context and, where `model` is given, a `config` of it."""
        self.name: str = fn.__name__
        self.config = None if config is None else config.model_dump(mode="json")
        self._fn = fn
        self._model = model
        self._value = config

    def __repr__(self) -> str:
        return f"<StopCondition {self.name} {self.config or ''}>"

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
        return StopCondition(self._fn, self._model, self._model.model_validate(config or {}))


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

    def __call__(self, config: _C | None = None, /, **fields: Any) -> StopCondition:
        """Return the condition with `config`, or with one made of `fields`.

        Raises:
            DefinitionError: the configuration does not fit.

        """
        if config is None:
            config = self._make(fields)
        elif fields or not isinstance(config, self._model):
            raise DefinitionError(
                f"{self.name}() takes one {self._model.__name__}, or its fields by name"
            )
        return StopCondition(self._fn, self._model, config)

    def _make(self, fields: Mapping[str, Any]) -> _C:
        try:
            return self._model.model_validate(fields)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DefinitionError(f"{self.name}(): {where}: {first['msg']}") from error


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


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MaxStepsConfig(_Config):
    """Configures `max_steps`.

    Attributes:
        count: model calls, at least 1.

    """

    count: int = Field(default=10, ge=1)


class MaxTokensConfig(_Config):
    """Configures `max_tokens`.

    Attributes:
        limit: tokens of all model calls, at least 1.

    """

    limit: int = Field(ge=1)


class ExecutedToolConfig(_Config):
    """Configures `executed_tool`.

    Attributes:
        tool_names: the tools, at least one.

    """

    tool_names: list[str] = Field(min_length=1)


class HasTextConfig(_Config):
    """Configures `has_text`.

    Attributes:
        texts: what the answers must contain, at least one.

    """

    texts: list[str] = Field(min_length=1)


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
    """Hold when each of the tools has run to its end, without failing."""
    results = [one for step in ctx.steps for one in step.tool_results]
    done = {one.tool_name for one in results if one.status == "completed"}
    return done.issuperset(config.tool_names)


@stop_condition
def has_text(ctx: StopConditionContext, config: HasTextConfig) -> bool:
    """Hold when each of the texts stands in some answer."""
    answers = [step.content for step in ctx.steps if step.content]
    return all(any(text in answer for answer in answers) for text in config.texts)


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
