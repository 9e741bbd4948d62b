"""Reviews documents in parallel, from inside workflows and from outside."""

import asyncio

from dotenv import load_dotenv
from workflows import Document, fire_and_forget, parallel_review, review_document, tasks

from polos import Polos, batch_invoke
from polos.types.types import BatchWorkflowInput

load_dotenv()


async def finished(polos, run_id):
    while True:
        execution = await polos.get_execution(run_id)
        if execution["status"] in ["completed", "failed"]:
            return execution
        await asyncio.sleep(0.05)


async def main():
    async with Polos(log_file="polos.log") as polos:
        document = Document(title="Tea", text="Tea is good.")
        verdict = await parallel_review.run(polos, document)
        print(verdict.title, verdict.approved_by, [one.words for one in verdict.reviews])

        started = await fire_and_forget.run(polos, document)
        for run_id in started["ids"]:
            execution = await finished(polos, run_id)
            same = execution["parent_execution_id"] == started["parent"]
            print(execution["result"]["reviewer_id"], execution["step_key"], same)

        handles = await batch_invoke(polos, tasks(document, ["outer", "strict"]))
        handles += await polos.batch_invoke(
            [BatchWorkflowInput(id=parallel_review.id, payload=document)]
        )
        for handle in handles:
            await finished(polos, handle.id)
            result = (await handle.get(polos))["result"]
            print(handle.workflow_id, getattr(result, "reviewer_id", None) or result.approved_by)
        print(review_document.id)


if __name__ == "__main__":
    asyncio.run(main())
