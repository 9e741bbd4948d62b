"""Workflows as they are defined: what they take, what is refused, and where they are found."""

from __future__ import annotations

import gc
import inspect
from typing import Any, Optional, Union

import pytest
from pydantic import BaseModel, Field, ValidationError

from polos_client.define.context import WorkflowContext
from polos_client.define.state import WorkflowState
from polos_client.define.workflow import Workflow, get_all_workflows, get_workflow, workflow
from polos_client.errors import DefinitionError
from polos_client.unbuilt import OPTIONS, placeholder


class Order(BaseModel):
    item: str
    count: int = 1


class Refund(BaseModel):
    reason: str


class Cart(WorkflowState):
    items: list[str] = Field(default_factory=list)


CONTEXT = WorkflowContext(workflow_id="w", execution_id="r", idempotency_key="r")
DOCUMENTED = """
    id description queue trigger_on_event batch_size batch_timeout_seconds schedule on_start on_end
    state_schema
"""
TEA = '{"item": "tea"}'


def given(made: Workflow, payload_json: str | None) -> Any:
    """Return what the function returns for a payload, as the service calls it."""
    return made.invoke_fn(CONTEXT, made.validate(payload_json))


def returning(annotation: Any, *default: Any) -> Workflow:
    """Return a workflow whose payload has this type, and which returns it."""

    def echo(ctx: WorkflowContext, payload: Any = default) -> Any:
        assert ctx is CONTEXT
        return payload

    parameter = (
        inspect.signature(echo)
        .parameters["payload"]
        .replace(annotation=annotation, default=default[0] if default else inspect.Parameter.empty)
    )
    context = inspect.signature(echo).parameters["ctx"]
    echo.__signature__ = inspect.Signature([context, parameter])  # type: ignore[attr-defined]
    return workflow(id="echo")(echo)


def test_the_parameters_of_the_decorator_stand_in_the_documented_order() -> None:
    documented = DOCUMENTED.split()
    assert list(inspect.signature(workflow).parameters)[: len(documented)] == documented


@pytest.mark.parametrize("name", sorted(set(DOCUMENTED.split()) & set(OPTIONS)))
def test_an_option_that_is_not_built_is_refused(name: str) -> None:
    options: dict[str, Any] = {name: 7}
    with pytest.raises(DefinitionError, match=rf"^@workflow\({name}=7\) is not built yet"):
        workflow(**options)
    for nothing in (None, *OPTIONS[name].unused):
        options = {"id": "w", name: nothing}
        assert workflow(**options)(lambda ctx: ctx).id == "w"


def test_a_workflow_is_named_after_its_function_or_as_it_is_told() -> None:
    @workflow
    async def plain(ctx: WorkflowContext) -> None:
        """Do nothing."""

    @workflow("by-position", "Told.")
    def other(ctx):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return ctx

    assert (plain.id, plain.description, plain.is_async) == ("plain", "Do nothing.", True)
    assert (other.id, other.description, other.is_async) == ("by-position", "Told.", False)
    assert (plain.takes_payload, plain.returns, other.returns) == (False, None, None)
    assert repr(other) == "<Workflow by-position>"
    assert other.invoke_fn(CONTEXT, None) is CONTEXT


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (dict, TEA, {"item": "tea"}),
        (dict[str, Any], TEA, {"item": "tea"}),
        (Order, TEA, Order(item="tea")),
        (Order | None, TEA, Order(item="tea")),
        (Order | None, "null", None),
        (Order | None, None, None),
        (Optional[Order], None, None),  # noqa: UP045 - as programs write it
        (Union[Refund, Order], TEA, Order(item="tea")),  # noqa: UP007
        (Refund | dict[str, Any], TEA, {"item": "tea"}),
        (list[Order], f"[{TEA}]", [Order(item="tea")]),
        (str, '"tea"', "tea"),
        (Any, None, None),
    ],
    ids=str,
)
def test_a_payload_becomes_what_the_function_takes(
    annotation: Any, text: str | None, value: Any
) -> None:
    assert given(returning(annotation), text) == value


def test_a_payload_with_a_default_may_be_left_out() -> None:
    assert given(returning(Order, Order(item="none")), None) == Order(item="none")
    assert given(returning(Order, None), None) is None
    assert given(returning(Order, None), TEA) == Order(item="tea")
    assert given(returning(dict, {}), None) == {}


def test_a_payload_may_be_passed_by_keyword_only() -> None:
    @workflow
    def keyword(ctx: WorkflowContext, *, order: Order) -> Order:
        return order

    assert given(keyword, TEA) == Order(item="tea")
    assert keyword.returns is Order


def test_a_payload_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValidationError, match="item"):
        returning(Order).validate("{}")
    with pytest.raises(ValidationError):
        returning(Order, None).validate("null")
    with pytest.raises(ValueError, match=r"the workflow echo needs a payload: .*Order"):
        returning(Order).validate(None)
    assert returning(dict).validate("{}") == {}


def test_a_workflow_of_one_parameter_ignores_its_payload() -> None:
    made = workflow(id="one")(lambda ctx: ctx)
    assert given(made, TEA) is CONTEXT


def _three(ctx: Any, a: dict[str, Any], b: int) -> None: ...
def _untyped(ctx, payload) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
def _swapped(payload: Order, ctx: WorkflowContext) -> None: ...
def _twice(ctx: Any, other: WorkflowContext) -> None: ...
def _stream(ctx: Any, payload: object) -> None: ...
def _yields(ctx: Any) -> Any:
    yield 1


def _star(ctx: Any, *payload: Any) -> None: ...
def _socket(ctx: Any, payload: inspect.Signature) -> None: ...
def _unknown(ctx: Any, payload: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("fn", "told"),
    [
        (lambda: None, "takes a context and at most one payload, and this one has 0"),
        (_three, "_three: a workflow takes a context and at most one payload.*has 3 parameters"),
        (_untyped, "_untyped: the payload 'payload' needs a type: dict, or a pydantic model"),
        (_swapped, "_swapped: the first parameter, 'payload', is the WorkflowContext and cannot"),
        (_twice, "_twice: the WorkflowContext is the first parameter, and the payload 'other'"),
        (_yields, "_yields: a workflow returns one value; it cannot yield"),
        (_star, "cannot be passed by name"),
        (_socket, "'payload' cannot be a inspect.Signature, which pydantic cannot read from JSON"),
        (_unknown, "a parameter's type cannot be resolved: name 'Nowhere' is not defined"),
        (7, "goes on a function, not on 7"),
    ],
)
def test_a_function_that_cannot_be_a_workflow_is_refused(fn: Any, told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        workflow(id="wrong")(fn)
    assert get_workflow("wrong") is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"id": ""}, "the workflow id '' must be 1 to 128 letters"),
        ({"id": "a b"}, "the workflow id 'a b' must be"),
        ({"id": 7}, "the workflow id 7 must be"),
        ({"state_schema": dict}, "'w': state_schema must be a subclass of WorkflowState"),
        ({"state_schema": Order}, "'w': state_schema must be a subclass of WorkflowState"),
        ({"version": ""}, "the version '' must be a text of 1 to 64 characters"),
        ({"version": 2}, "the version 2 must be"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        workflow(**{"id": "w"} | options)(lambda ctx: ctx)


def test_the_context_may_be_annotated_as_programs_do() -> None:
    for annotation in (WorkflowContext, placeholder("AgentContext"), Any, object):
        names = {"Context": annotation}
        exec("def run(ctx: Context): return ctx", names)
        assert workflow(names["run"]).invoke_fn(CONTEXT, None) is CONTEXT


def test_workflows_are_found_by_id_and_a_later_one_replaces_an_earlier() -> None:
    first = workflow(id="found", version="1")(lambda ctx: ctx)
    assert get_workflow("found") is first
    second = workflow(id="found", version="2", state_schema=Cart)(lambda ctx: ctx)
    assert get_workflow("found") is second
    assert get_all_workflows()["found"] is second
    assert second.state_schema is Cart
    assert get_workflow("nobody") is None
    del first, second
    gc.collect()
    assert "found" not in get_all_workflows()


def test_a_context_that_no_run_has_tells_what_it_knows() -> None:
    told = CONTEXT.to_dict()
    assert (told["root_execution_id"], told["workflow_type"]) == ("r", "tool")
    assert "step" not in told
    with pytest.raises(DefinitionError, match=r"^ctx.step.run works in a run only"):
        CONTEXT.step.run("key", print)  # type: ignore[unused-coroutine]
