"""Results of workflows as the types that their code names."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel, create_model

from polos_client.errors import DefinitionError, ResultMismatch
from polos_client.typed import answered, class_named, name_of, typed


class Order(BaseModel):
    item: str
    count: int = 1


class Gift(Order):
    gift: bool


class Parcel(BaseModel):
    weight: float


TEA = '{"item": "tea"}'


@pytest.mark.parametrize(
    ("text", "schema", "returned", "value"),
    [
        ("[1, null]", "", None, [1, None]),
        (TEA, "", None, {"item": "tea"}),
        (TEA, "", Order, Order(item="tea")),
        (f"[{TEA}]", "", list[Order], [Order(item="tea")]),
        (TEA, "", Parcel | Order, Order(item="tea")),
        ("null", "", Order | None, None),
        ('"2026-01-02"', "", date, date(2026, 1, 2)),
        ("[1, 2]", "", tuple[int, int], (1, 2)),
        (TEA, name_of(Order), None, Order(item="tea")),
        (TEA, name_of(Order), Parcel, Order(item="tea")),
        (TEA, "elsewhere.Order", None, {"item": "tea"}),
        (TEA, "", Parcel, {"item": "tea"}),
        (TEA, "", "nonsense", {"item": "tea"}),
        ('{"item": "tea", "count": "7"}', "", Order, {"item": "tea", "count": "7"}),
        ('"7"', "", int, "7"),
        ("1", "", float, 1.0),
        ('{"item": "tea", "gift": true}', name_of(Gift), Order, Gift(item="tea", gift=True)),
    ],
)
def test_a_result_has_the_type_that_is_known_of_it(
    text: str, schema: str, returned: Any, value: Any
) -> None:
    found = typed(text, schema, returned)
    assert found == value
    assert type(found) is type(value)


def test_a_result_whose_class_is_another_one_here_is_told_with_its_json() -> None:
    with pytest.raises(DefinitionError, match=r"Order as this process has it: 1 errors.*\"tea\""):
        typed('{"tea": 1}', name_of(Order))


def test_the_class_that_was_defined_last_counts() -> None:
    first = create_model("Twice", a=(int, 1))
    second = create_model("Twice", b=(int, 2))
    assert name_of(first) == name_of(second)
    assert class_named(name_of(first)) is second


def same_name(**fields: Any) -> type[BaseModel]:
    """Return another model of the same name as all others that this returns."""
    return create_model("Namesake", __module__=__name__, **fields)


def test_of_several_classes_of_one_name_that_one_counts_which_takes_the_result() -> None:
    small, other, large = (
        same_name(a=(int, ...)),
        same_name(b=(str, ...)),
        same_name(a=(int, ...), c=(dict[str, int], ...)),
    )
    name = name_of(small)
    for returned in (None, small | other | large, large | small | other):
        for read in (typed, answered):
            assert type(read('{"a": 1}', name, returned)) is small
            assert type(read('{"b": "x"}', name, returned)) is other
            assert type(read('{"a": 1, "c": {"d": 2}}', name, returned)) is large
            how = "3 classes of that name" if returned is None else "3 classes"
            with pytest.raises(ResultMismatch, match=f'{how}.*{{"q": 1}}'):
                read('{"q": 1}', name, returned)


def test_a_class_that_was_defined_anew_with_one_more_field_is_taken() -> None:
    older = same_name(z=(int, ...))
    newer = same_name(z=(int, ...), y=(int, 0))
    assert type(typed('{"z": 1}', name_of(older))) is newer
    assert type(typed('{"z": 1}', name_of(older), older)) is older


def test_no_class_is_found_that_is_not_a_model() -> None:
    for name in ("builtins.dict", "os.system", "BaseModel", ""):
        assert class_named(name) is None
