"""Answers what an order waits for: approve_order.py WORKFLOW EXECUTION STEP yes|no."""

import asyncio
import os
import sys

from polos import PolosClient


async def main():
    workflow_id, execution_id, step_key, answer = sys.argv[1:]
    client = PolosClient(project_id="orders", api_url=os.environ["POLOS_API_URL"])
    await client.resume(
        suspend_workflow_id=workflow_id,
        suspend_execution_id=execution_id,
        suspend_step_key=step_key,
        data={"approved": answer == "yes", "by": "eve"},
    )


if __name__ == "__main__":
    asyncio.run(main())
