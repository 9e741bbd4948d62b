"""A nightly batch: typed data from documents, in chunks: `polos serve examples.nightly.app`."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, Field

from examples.agents import model
from polos import Agent, WorkflowContext, scripted, workflow

Kind = Literal["invoice", "complaint", "scan"]
"""What a document can be."""


class Invoice(BaseModel):
    """An invoice."""

    seller: str
    day: date
    total: Decimal = Field(gt=0)


class Complaint(BaseModel):
    """A complaint of a customer."""

    about: str
    urgent: bool


class Document(BaseModel):
    """What came in during the day."""

    id: str
    kind: Kind
    text: str


class Night(BaseModel):
    """What is to be read, and how many documents at once."""

    documents: list[Document]
    chunk: int = Field(default=4, ge=1)


class Report(BaseModel):
    """What was read, and why the rest was not, by the ids of the documents."""

    invoices: dict[str, Invoice] = {}
    complaints: dict[str, Complaint] = {}
    failed: dict[str, str] = {}


def said(text: str) -> scripted.Turn:
    """Return a turn that takes as long as a quick model, and 50 tokens."""
    return scripted.turn(
        scripted.pause(0.4), text, scripted.usage(input_tokens=40, output_tokens=10)
    )


invoices = Agent(
    "invoices",
    *model(said('{"seller": "Lamp & Oil", "day": "2026-05-02", "total": 100.00}')),
    system_prompt="Extract the invoice.",
    output_schema=Invoice,
)
complaints = Agent(
    "complaints",
    *model(said('{"about": "a broken lamp", "urgent": true}')),
    system_prompt="Extract the complaint.",
    output_schema=Complaint,
)
scans = Agent(
    "scans",
    *model(
        said('{"seller": "L?mp", "day": "0 May", "total": 0}'), said("I cannot read this invoice.")
    ),
    system_prompt="Extract the invoice from the scanned text. If you cannot read it, say so.",
    output_schema=Invoice,
)
READERS = {"invoice": invoices, "complaint": complaints, "scan": scans}


@workflow(id="nightly")
async def nightly(ctx: WorkflowContext, night: Night) -> Report:
    """Read all documents, some at once; one that fails does not stop the others."""
    report = Report()
    for start in range(0, len(night.documents), night.chunk):
        chunk = night.documents[start : start + night.chunk]
        ended = await ctx.step.batch_agent_invoke_and_wait(
            f"read from {start}", [READERS[one.kind].with_input(one.text) for one in chunk]
        )
        for document, one in zip(chunk, ended, strict=True):
            if not one.success:
                report.failed[document.id] = one.error or ""
            elif isinstance(one.result.result, Invoice):
                report.invoices[document.id] = one.result.result
            else:
                report.complaints[document.id] = one.result.result
        done = {"done": start + len(chunk), "of": len(night.documents)}
        await ctx.step.publish_workflow_event(f"tell {start}", done, "progress")
    return report
