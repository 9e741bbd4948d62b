"""`create_ask_user_tool`: a tool with which a model asks a person."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from polos_client.define.tool import Tool, tool

ASK_USER = "ask_user"
"""The id of the tool."""

TITLE = "The agent has a question"
"""The title of a form for which the model gives none."""

RESPONSE = {"key": "response", "type": "textarea", "label": "Your answer", "required": True}
"""The field of a form for which the model gives none."""


class AskUserFieldOption(BaseModel):
    """One of the values of a field of the type `select`."""

    label: str = Field(description="What the person reads")
    value: str = Field(description="What the answer contains if it is chosen")


class AskUserField(BaseModel):
    """A field of the form in which a person answers."""

    key: str = Field(description="The field's name in the answer")
    type: Literal["text", "textarea", "number", "boolean", "select"] = Field(
        default="text", description="What kind of value it takes"
    )
    label: str = Field(description="What the person reads beside the field")
    description: str | None = Field(default=None, description="Help for the person")
    required: bool = Field(default=False, description="Whether it must be filled in")
    options: list[AskUserFieldOption] | None = Field(
        default=None, description="The values of a field of the type `select`"
    )


class AskUserInput(BaseModel):
    """What a model asks."""

    question: str = Field(description="The question for the person")
    title: str | None = Field(default=None, description="A short title of the question")
    fields: list[AskUserField] | None = Field(
        default=None, description="The fields of the answer; one field for any text if left out"
    )


def create_ask_user_tool() -> Tool:
    """Return the tool `ask_user`: the model asks, a person answers, and the run waits meanwhile.

    The result of a call is the answer: an object with the key of each field that is filled in,
    or with `response` where the model gave no fields.
    """
    return tool(
        id=ASK_USER,
        description="Ask the user a question, and wait for the answer. Use it when you need "
        "information or a decision that only the user has.",
        asks=True,
    )(question_of)


def question_of(input: AskUserInput) -> dict[str, Any]:
    """Return what is shown to the person: a form."""
    fields = [one.model_dump(exclude_none=True) for one in input.fields or ()]
    form = {
        "title": input.title or TITLE,
        "description": input.question,
        "fields": fields or [RESPONSE],
    }
    return {"_form": form, "_source": ASK_USER, "_tool": ASK_USER}
