"""The arguments that a person has approved, and no others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, Field, SecretStr

from polos_client.define.tool import tool
from polos_service.tools.approved import Approved, same


class Payment(BaseModel):
    amount: int = Field(validation_alias=AliasChoices("amt", "amount"))
    pin: SecretStr = SecretStr("")


@tool
def pay(payment: Payment) -> None: ...


@tool
def send(amount: int, to: str = "Ann") -> None: ...


def approved(asked: dict[str, Any], **changes: Any) -> Payment:
    text = json.dumps(asked)
    shown = pay.dump(pay.validate(text))
    payment = Approved(shown=shown, changes=changes).arguments(pay, text)["payment"]
    assert isinstance(payment, Payment)
    return payment


def test_a_change_counts_although_the_model_named_the_argument_otherwise() -> None:
    assert approved({"amt": 100}, amount=50).amount == 50


def test_what_is_masked_is_kept_beside_a_change() -> None:
    payment = approved({"amount": 100, "pin": "1234"}, amount=50)
    assert (payment.amount, payment.pin.get_secret_value()) == (50, "1234")


@pytest.mark.parametrize("asked", ["", "  ", "{}", '{"to": "Bob"}', "null", "{"])
def test_what_was_shown_counts_whatever_the_model_s_text_is_by_now(asked: str) -> None:
    shown = {"amount": 5, "to": "Ann"}
    assert Approved(shown=shown).arguments(send, asked) == shown
    changed = Approved(shown=shown, changes={"amount": 6}).arguments(send, asked)
    assert changed == {"amount": 6, "to": "Ann"}


@pytest.mark.parametrize(
    ("one", "other", "sets", "equal"),
    [
        (1, 1.0, False, False),
        (1, True, False, False),
        (None, False, False, False),
        ({"a": [1, 2]}, {"a": [1, 2]}, False, True),
        ([1, 2], [2, 1], False, False),
        ([1, 2], [2, 1], True, True),
        ([1], [1, 1], True, False),
        ({"a": 1}, {"a": 1, "b": None}, False, False),
        ({}, [], False, False),
    ],
)
def test_json_values_that_are_the_same(one: Any, other: Any, *, sets: bool, equal: bool) -> None:
    assert same(one, other, sets=sets) is equal
