"""What stands before a tool's step where a person has a say: an approval, or a question.

Both are waits of the agent's run. What is shown, and what was answered, is in the log: when the run
is run again, that counts, whatever the tools' code says by then.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Resumed, WaitKind
from polos_client.define.tool import Tool
from polos_service.errors import StepError
from polos_service.limits import PIECE_LIMIT
from polos_service.models.messages import Call
from polos_service.runs.answers import APPROVE, ASK
from polos_service.runs.context import RunContext
from polos_service.tools.approved import Approved, same
from polos_service.tools.local import in_time, validating

SOURCE = "tool_approval"
"""What `_source` is in what an approval shows."""

FIELDS = [
    {
        "key": "approved",
        "type": "boolean",
        "label": "Approve this call?",
        "required": True,
        "default": False,
    },
    {
        "key": "feedback",
        "type": "textarea",
        "label": "Feedback for the agent",
        "required": False,
    },
]
"""The fields of the form of an approval."""

Question = Callable[[], Awaitable[str]]
"""Calls a tool that asks, and returns as JSON text what is shown to whoever answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What people have decided about a tool call, before its step.

    Attributes:
        approved: the arguments that were approved; None if nobody had to approve any.
        answer_json: the answer to the tool's question, which is its result; None if it asked none.
        refusal: why the tool is not called; None if it may be.
        note: what the model is told beside the result; empty if nothing.

    """

    approved: Approved | None = None
    answer_json: str | None = None
    refusal: StepError | None = None
    note: str = ""


UNASKED = Decision()
"""Nobody had to be asked."""


class People:
    """The people who have a say in the tool calls of a run."""

    def __init__(
        self,
        ctx: RunContext,
        tools: Mapping[str, Tool],
        approvals: Collection[str],
        limit: float,
        places: asyncio.Semaphore,
    ) -> None:
        """Ask people on behalf of a run.

        Args:
            ctx: the run.
            tools: the tools that are loaded.
            approvals: those that need approval since the run was started.
            limit: seconds that the code of a tool may take before a person is asked.
            places: bounds the tools' code that works at once.

        """
        self._ctx = ctx
        self._tools = tools
        self._approvals = approvals
        self._limit = limit
        self._places = places

    async def decide(self, key: str, call: Call, question: Question) -> Decision:
        """Wait for a person's decision, if the call needs one; `key` is that of the tool's step.

        Calls that the log has an end of need nobody, unless it has a wait of theirs.
        """
        tool = self._tools.get(call.name)
        try:
            if self._ctx.knows(key + APPROVE):
                return await self._approval(key, call, tool)
            if self._ctx.knows(key + ASK):
                return await self._answer(key, question)
            if tool is None or self._ctx.ended(key):
                return UNASKED
            if tool.id in self._approvals or tool.approval == "always":
                return await self._approval(key, call, tool)
            return await self._answer(key, question) if tool.asks else UNASKED
        except StepError as error:
            return Decision(refusal=error)

    async def _approval(self, key: str, call: Call, tool: Tool | None) -> Decision:
        """Wait for an approval, which may be in the log although the tool is gone."""
        wait_key = key + APPROVE
        shown = self._ctx.shown(wait_key)
        if shown is None and tool is not None:
            async with self._working():
                form = partial(form_of, tool, call.arguments_json)
                shown = await in_time(tool, form, self._limit)
        timeout = tool.approval_timeout if tool else None
        resumed = await self._ctx.wait(
            wait_key,
            WaitKind.WAIT_KIND_APPROVAL,
            data_json=shown or "",
            until=None if timeout is None else self._ctx.after(timeout),
        )
        return approval_of(call.name, shown or "", resumed)

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        async with self._places:
            with self._ctx.working():
                yield

    async def _answer(self, key: str, question: Question) -> Decision:
        wait_key = key + ASK
        shown = self._ctx.shown(wait_key)
        if shown is None:
            async with self._working():
                shown = await question()
            if not shown.startswith("{"):
                raise StepError(
                    FailureReason.FAILURE_REASON_TOOL_FAILED,
                    "What a tool asks must be a JSON object, such as a dict or a model.",
                )
            check_shown("What the tool asks", shown)
        resumed = await self._ctx.wait(wait_key, WaitKind.WAIT_KIND_SUSPEND, data_json=shown)
        return Decision(answer_json=resumed.data_json)


def form_of(tool: Tool, arguments_json: str) -> str:
    """Return what is shown to whoever approves a call, as JSON text.

    Raises:
        StepError: the tool does not take the arguments, or they cannot be shown.

    """
    with validating():
        shown = tool.dump(tool.validate(arguments_json))
    told: dict[str, Any] = {
        "_form": {
            "title": f"Approve the call of {tool.id}",
            "description": tool.description,
            "fields": FIELDS,
            "context": {"tool": tool.id, "input": shown},
        },
        "_source": SOURCE,
        "_tool": tool.id,
        "_editable": tool.editable,
    }
    text = json.dumps(told, ensure_ascii=False, allow_nan=False)
    check_shown("What is shown for approval, arguments included,", text)
    return text


def check_shown(what: str, text: str) -> None:
    """Check that something can be shown to a person.

    Raises:
        StepError: it is larger than an event may hold of it.

    """
    if (size := len(text.encode())) > PIECE_LIMIT:
        raise StepError(
            FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE,
            f"{what} has {size} bytes of JSON, the limit is {PIECE_LIMIT}. Nobody was asked.",
        )


def approval_of(tool_name: str, shown: str, resumed: Resumed) -> Decision:
    """Return what a person has decided about a call.

    Args:
        tool_name: the tool.
        shown: what the wait showed.
        resumed: how the wait ended.

    Raises:
        StepError: the call was rejected, or nobody answered in time.

    """
    if resumed.expired:
        message = (
            f"Nobody answered in time whether the tool {tool_name} may be called. "
            "It was not called."
        )
        raise StepError(FailureReason.FAILURE_REASON_WAIT_EXPIRED, message)
    answer = json.loads(resumed.data_json)
    feedback = str(answer.get("feedback") or "").strip()
    if answer.get("approved") is not True:
        message = f"The user rejected the call of the tool {tool_name}. It was not called."
        if feedback:
            message += f" The user's feedback: {feedback}"
        raise StepError(FailureReason.FAILURE_REASON_TOOL_REJECTED, message)
    approved = Approved(shown=input_of(shown), changes=changes_of(shown, answer))
    notes = []
    if approved.changes:
        notes.append(
            "A person approved this call with other arguments than you gave. What follows is the "
            f"outcome of the call with {approved.json}."
        )
    if feedback:
        notes.append(f"The person who approved the call says: {feedback}")
    return Decision(approved=approved, note=" ".join(notes))


def input_of(shown: str) -> dict[str, Any]:
    """Return the arguments that an approval shows."""
    found: dict[str, Any] = json.loads(shown)["_form"]["context"]["input"]
    return found


def changes_of(shown: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that an answer changes: those that differ from what was shown."""
    known = input_of(shown)
    given = answer.get("arguments") or {}
    return {
        name: value
        for name, value in given.items()
        if name not in known or not same(known[name], value, sets=False)
    }


def wrong_edit(tool: Tool, shown: str, arguments: Mapping[str, Any]) -> str:
    """Return what is wrong with arguments that are to replace those of an approval; or nothing.

    Args:
        tool: the tool of the call.
        shown: what the approval shows, as JSON text.
        arguments: the changed arguments; those that are left out stay as shown.

    """
    changes = changes_of(shown, {"arguments": arguments})
    if changes and not tool.editable:
        return f"the arguments of the tool {tool.id!r} cannot be changed"
    try:
        with validating():
            Approved(shown=input_of(shown), changes=changes).arguments(tool)
    except StepError as error:
        return error.message
    return ""
