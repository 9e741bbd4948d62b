"""Reviews in parallel, as programs for the original SDK define them."""

from pydantic import BaseModel

from polos import WorkflowContext, workflow
from polos.types.types import BatchWorkflowInput


class Document(BaseModel):
    title: str
    text: str


class ReviewTask(BaseModel):
    reviewer_id: str
    document: Document


class Review(BaseModel):
    reviewer_id: str
    words: int
    approved: bool


class Verdict(BaseModel):
    title: str
    approved_by: list[str]
    reviews: list[Review]


@workflow(id="review_document")
async def review_document(ctx: WorkflowContext, payload: ReviewTask) -> Review:
    words = await ctx.step.run("count", lambda: len(payload.document.text.split()))
    approved = payload.reviewer_id != "strict" or words > 3
    return Review(reviewer_id=payload.reviewer_id, words=words, approved=approved)


def tasks(payload: Document, reviewers: list[str]) -> list[BatchWorkflowInput]:
    return [
        BatchWorkflowInput(
            id="review_document", payload=ReviewTask(reviewer_id=one, document=payload)
        )
        for one in reviewers
    ]


@workflow(id="parallel_review")
async def parallel_review(ctx: WorkflowContext, payload: Document) -> Verdict:
    results = await ctx.step.batch_invoke_and_wait(
        "collect_reviews", tasks(payload, ["kind", "strict", "quick"])
    )
    reviews = [one.result for one in results if one.success]
    return Verdict(
        title=payload.title,
        approved_by=[one.reviewer_id for one in reviews if one.approved],
        reviews=reviews,
    )


@workflow(id="fire_and_forget")
async def fire_and_forget(ctx: WorkflowContext, payload: Document) -> dict:
    handles = await ctx.step.batch_invoke("start_reviews", tasks(payload, ["kind", "quick"]))
    one = await ctx.step.invoke(
        "one_more", review_document, ReviewTask(reviewer_id="late", document=payload)
    )
    return {"ids": [handle.id for handle in [*handles, one]], "parent": one.parent_execution_id}
