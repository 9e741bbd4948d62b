"""`@tool`: a function that a model may call."""

from __future__ import annotations

import functools
import inspect
import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NoReturn, overload

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic_core import PydanticUndefined, to_jsonable_python
from typing_extensions import ParamSpec, TypeVar

from polos_client.define.context import WorkflowContext
from polos_client.define.signature import is_model, label, parameters
from polos_client.errors import DefinitionError
from polos_client.unbuilt import missing, refuse

# With defaults, so that `Tool` alone means a tool of any function.
_P = ParamSpec("_P", default=...)
_R = TypeVar("_R", default=Any)
_FnP = ParamSpec("_FnP")
_FnR = TypeVar("_FnR")

ToolApproval = Literal["always", "none"]
"""Whether a person must approve each call of a tool."""

_BUILT = (
    "id",
    "description",
    "parameters",
    "at_most_once",
    "approval",
    "approval_timeout",
    "editable",
    "asks",
)
"""The options of `@tool` that are built."""

MAX_WAIT = 10 * 365 * 24 * 3600.0
"""Seconds that an approval may wait at most: ten years, which every timestamp can hold."""

_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MAX_PROBLEMS = 20
"""More problems than these are only counted, so that the model's answer stays short."""


class Tool(Generic[_P, _R]):
    """A function that a model may call, made by `@tool`. Called itself, it is the plain function.

    Attributes:
        id: the name of the tool for the model.
        description: what it does, for the model; empty if none was given.
        parameters: JSON Schema of the arguments, as the model sees it.
        fn: the plain function.
        is_async: True if `fn` is an `async def`.
        at_most_once: True if an interrupted call is not made again.
        approval: "always" if a person must approve each call.
        approval_timeout: seconds after which an unanswered call fails; None: never.
        editable: True if whoever approves a call may change its arguments.
        asks: True if the function returns a question, whose answer is the call's result.
        has_sets: True if an argument contains a set, whose JSON has no fixed order.

    """

    def __init__(
        self,
        fn: Callable[_P, _R],
        names: Mapping[str, Any],
        *,
        id: str | None = None,  # the documented name
        description: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        at_most_once: bool = False,
        approval: ToolApproval | None = None,
        approval_timeout: float | None = None,
        editable: bool = False,
        asks: bool = False,
    ) -> None:
        """Read the function's signature; `names` are the local names where it is defined.

        Raises:
            DefinitionError: the id, the signature, the schema or the options cannot be used.

        """
        self.id = _checked_id(fn, id)
        self.approval: ToolApproval = _checked_approval(approval)
        self.approval_timeout = approval_timeout
        self.editable = editable
        self.asks = asks
        self.description = (description or inspect.getdoc(fn) or "").strip()
        self.fn = fn
        self.is_async = inspect.iscoroutinefunction(fn)
        self.at_most_once = at_most_once
        _check_waits(self)
        self._context_name, self._arguments = _read(self.id, fn, names)
        schema = self._arguments.schema()
        self.has_sets = "uniqueItems" in json.dumps(schema, default=repr)
        self.parameters = dict(parameters) if parameters else schema
        functools.update_wrapper(self, fn, updated=())

    if not TYPE_CHECKING:  # checkers refuse these names by themselves

        def __getattr__(self, name: str) -> NoReturn:
            raise missing(self, name)

    @property
    def has_steps(self) -> bool:
        """True if the function can use `ctx.step`: it is an `async def`, and takes the context."""
        return self.is_async and self._context_name is not None

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Call the plain function, for tests of it."""
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Tool {self.id}>"

    def validate(self, arguments_json: str) -> dict[str, Any]:
        """Return the keyword arguments for `invoke` that a model's JSON text stands for.

        An empty text is taken as no arguments: models send that for tools without any.

        Raises:
            pydantic.ValidationError: the text is not a JSON object, or does not fit the
                parameters.

        """
        return self._arguments.parse(arguments_json.strip() or "{}")

    def dump(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `validate` returned as the members of a JSON object.

        Raises:
            TypeError, ValueError: it is not a JSON object of valid JSON values.

        """
        found = to_jsonable_python(self._arguments.whole(arguments), by_alias=True, round_trip=True)
        if not isinstance(found, dict):
            raise TypeError(f"the arguments become {type(found).__name__}, not an object")
        json.dumps(found, allow_nan=False, ensure_ascii=False).encode()
        return found

    def invoke(self, ctx: WorkflowContext, kwargs: Mapping[str, Any]) -> Any:
        """Call the function with what `validate` returned; an async one gives an awaitable."""
        fn: Callable[..., Any] = self.fn
        if self._context_name is None:
            return fn(**kwargs)
        return fn(**{self._context_name: ctx}, **kwargs)


class _OneModel:
    """The arguments are one pydantic model, which the function takes whole."""

    def __init__(self, name: str, model: type[BaseModel]) -> None:
        self._name = name
        self._model = model

    def schema(self) -> dict[str, Any]:
        return self._model.model_json_schema()

    def parse(self, text: str) -> dict[str, Any]:
        return {self._name: self._model.model_validate_json(text)}

    def whole(self, arguments: Mapping[str, Any]) -> BaseModel:
        model: BaseModel = arguments[self._name]
        return model


class _Plain:
    """Each argument is a parameter of the function."""

    def __init__(self, tool_id: str, found: list[inspect.Parameter]) -> None:
        # Aliases, since a parameter may have a name that means something to BaseModel.
        self._names = {f"argument_{index}": one.name for index, one in enumerate(found)}
        fields: dict[str, Any] = {
            field: (Annotated[one.annotation, Field(alias=one.name)], _default(one))
            for field, one in zip(self._names, found, strict=True)
        }
        self._model: type[BaseModel] = create_model(
            tool_id, __config__=ConfigDict(extra="forbid"), **fields
        )

    def schema(self) -> dict[str, Any]:
        return self._model.model_json_schema()

    def parse(self, text: str) -> dict[str, Any]:
        model = self._model.model_validate_json(text)
        return {name: getattr(model, field) for field, name in self._names.items()}

    def whole(self, arguments: Mapping[str, Any]) -> BaseModel:
        given = {field: arguments[name] for field, name in self._names.items()}
        return self._model.model_construct(**given)


@overload
def tool(fn: Callable[_FnP, _FnR], /) -> Tool[_FnP, _FnR]: ...


@overload
def tool(
    *,
    id: str | None = None,
    description: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    at_most_once: bool = False,
    queue: str | None = None,
    approval: ToolApproval | None = None,
    approval_timeout: float | None = None,
    editable: bool = False,
    asks: bool = False,
    **unbuilt: Any,
) -> Callable[[Callable[_FnP, _FnR]], Tool[_FnP, _FnR]]: ...


def tool(
    fn: Callable[..., Any] | None = None, /, **options: Any
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a function a tool: `@tool`, or `@tool(id=..., ...)`.

    The function takes a `WorkflowContext` first, if it wants one, and then either one
    pydantic model or typed parameters. `async def` runs in the service's event loop,
    `def` in a thread.

    Args:
        fn: the function, for a bare `@tool`.
        id: the name of the tool for the model, 1 to 64 letters, digits, `_` or `-`; default: the
            function's name.
        description: what it does, for the model; default: the docstring.
        parameters: JSON Schema that the model sees instead of the one made from the
            signature; arguments are still validated by the signature.
        at_most_once: what happens to a call if the process of the service ends during it. False: it
            is made again with the same idempotency key. True: it is not, and the model is told that
            its outcome is unknown.
        queue: not built yet.
        approval: "always": before each call, a person sees the arguments that the function will
            get, and approves or rejects the call. "none", the default: calls are made immediately.
        approval_timeout: seconds after which an unanswered call fails, and the model is told so;
            default: only the deadline of the run applies.
        editable: True: the person who approves a call may change its arguments, and the model is
            told.
        asks: True: the function returns a question, a dict or a model as for `ctx.step.suspend`,
            and the answer is the result of the call. The function may run more than once for one
            question.
        options: all of these except `fn`; any other is refused.

    Raises:
        DefinitionError: the tool is invalid, or requests a feature that is not built yet.

    """
    refuse("@tool", {name: value for name, value in options.items() if name not in _BUILT})
    built = {name: value for name, value in options.items() if name in _BUILT}
    if fn is not None:
        return Tool(fn, sys._getframe(1).f_locals)  # noqa: SLF001 - see signature.parameters

    def decorate(fn: Callable[..., Any]) -> Tool:
        names = sys._getframe(1).f_locals  # noqa: SLF001
        return Tool(fn, names, **built)

    return decorate


def describe(error: ValueError) -> str:
    """Return what is wrong with a tool's arguments, in a short text for the model."""
    if not isinstance(error, ValidationError):
        return str(error)
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [_problem(one["type"], one["loc"], one["msg"]) for one in problems[:_MAX_PROBLEMS]]
    more = len(problems) - len(lines)
    return "; ".join([*lines, *([f"and {more} more"] if more else [])])


def _problem(kind: str, loc: tuple[int | str, ...], message: str) -> str:
    if kind == "json_invalid" and not loc:
        return f"the arguments are not valid JSON: {message.removeprefix('Invalid JSON: ')}"
    path, message = ".".join(str(part) for part in loc), message.removeprefix("Value error, ")
    return f"{path}: {message}" if path else message


def _checked_id(fn: Any, given: str | None) -> str:
    if not callable(fn) or isinstance(fn, Tool):
        raise DefinitionError(f"@tool goes on a function, not on {fn!r}")
    name = getattr(fn, "__name__", "") if given is None else given
    if not _ID.fullmatch(name):
        raise DefinitionError(
            f"the tool id {name!r} must be 1 to 64 letters, digits, '_' or '-'; "
            "give one with @tool(id=...)"
        )
    if name == "llm":
        raise DefinitionError("the tool id 'llm' is reserved for the steps of model calls")
    return str(name)


def _checked_approval(given: Any) -> ToolApproval:
    match given:
        case None | "none":
            return "none"
        case "always":
            return "always"
    raise DefinitionError(f'the approval of a tool is "always" or "none", not {given!r:.80}')


def _check_waits(tool: Tool) -> None:
    """Refuse options about approvals and questions that do not go together."""
    timeout = tool.approval_timeout
    if tool.approval == "none" and (timeout is not None or tool.editable):
        raise DefinitionError(
            f"the tool {tool.id!r} has approval_timeout or editable, which need approval='always'"
        )
    if timeout is not None and not (_is_number(timeout) and 0 < timeout <= MAX_WAIT):
        raise DefinitionError(
            f"the approval_timeout of the tool {tool.id!r} must be above 0 and at most "
            f"{MAX_WAIT:g} s, not {timeout!r:.80}"
        )
    if tool.asks and (tool.at_most_once or tool.approval == "always"):
        raise DefinitionError(
            f"the tool {tool.id!r} asks a person itself: it takes no approval, and at_most_once "
            "has no effect on a question"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def _read(
    tool_id: str, fn: Callable[..., Any], names: Mapping[str, Any]
) -> tuple[str | None, _OneModel | _Plain]:
    """Return the name of the context's parameter, None if there is none, and the arguments."""
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        raise DefinitionError(f"{label(fn)}: a tool returns one value; it cannot yield")
    found = parameters(fn, names)
    context_name = found.pop(0).name if found and _is_context(found[0]) else None
    for one in found:
        if one.annotation is one.empty:
            raise DefinitionError(f"{label(fn)}: parameter {one.name!r} needs a type")
        _check_type(fn, one)
    if len(found) == 1 and is_model(found[0].annotation):
        return context_name, _OneModel(found[0].name, found[0].annotation)
    return context_name, _Plain(tool_id, found)


def _check_type(fn: Callable[..., Any], parameter: inspect.Parameter) -> None:
    told = inspect.formatannotation(parameter.annotation)
    message = (
        f"{label(fn)}: the type of parameter {parameter.name!r}, {told}, cannot be described as "
        "JSON Schema; use values of JSON, or pydantic models or dataclasses of them"
    )
    try:
        _Plain("tool", [parameter]).schema()
    except PydanticUserError:  # it gives advice about pydantic's models, of no use at a function
        raise DefinitionError(message) from None
    except Exception as error:
        raise DefinitionError(message) from error


def _is_context(parameter: inspect.Parameter) -> bool:
    return parameter.annotation is WorkflowContext or parameter.name == "ctx"


def _default(parameter: inspect.Parameter) -> Any:
    return PydanticUndefined if parameter.default is parameter.empty else parameter.default
