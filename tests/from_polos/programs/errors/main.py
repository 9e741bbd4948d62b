"""Steps that fail, and workflows that go on, as programs for the original SDK write them."""

import asyncio

from dotenv import load_dotenv

from polos import Polos, StepExecutionError, WorkflowContext, workflow

load_dotenv()

calls = {}


def flaky(name: str, failures: int) -> dict:
    """Fail a number of times, then work."""
    calls[name] = calls.get(name, 0) + 1
    if calls[name] <= failures:
        raise ValueError(f"{name} failed")
    return {"name": name, "calls": calls[name]}


@workflow(id="retries")
async def retries(ctx: WorkflowContext, payload: dict) -> dict:
    result = await ctx.step.run(
        "flaky",
        flaky,
        "retried",
        payload["failures"],
        max_retries=3,
        base_delay=0.01,
        max_delay=0.1,
    )
    return {"status": "success", "result": result}


@workflow(id="recovery")
async def recovery(ctx: WorkflowContext, payload: dict) -> dict:
    results, errors = [], []
    for item in payload.get("items", ["a"]):
        try:
            step = ctx.step.run(f"one_{item}", flaky, item, 9 * ("bad" in item), max_retries=0)
            results.append((await step)["name"])
        except StepExecutionError as error:
            errors.append({"item": item, "told": "bad failed" in str(error)})
    return {"results": results, "errors": errors}


@workflow(id="fallback")
async def fallback(ctx: WorkflowContext, payload: dict) -> dict:
    try:
        return {"method": await ctx.step.run("first", flaky, "first", 9, max_retries=0)}
    except StepExecutionError:
        pass
    return {"method": await ctx.step.run("second", lambda data: [*data, "second"], payload["data"])}


@workflow(id="compensation")
async def compensation(ctx: WorkflowContext, payload: dict) -> dict:
    done = []
    try:
        for step in ("reserve", "charge"):
            await ctx.step.run(step, lambda one=step: {one: True})
            done.append(step)
        await ctx.step.run("confirm", flaky, "confirm", 9, max_retries=1, base_delay=0.01)
    except StepExecutionError as error:
        for step in reversed(done):
            await ctx.step.run(f"undo_{step}", lambda one=step: {one: False})
        return {"status": "rolled back", "undone": done[::-1], "told": "confirm" in error.reason}
    return {"status": "success"}


@workflow(id="uncaught")
async def uncaught(ctx: WorkflowContext, payload: dict) -> dict:
    return await ctx.step.run("flaky", flaky, payload["name"], 9, max_retries=0)


async def main():
    async with Polos(log_file="polos.log") as polos:
        print(await retries.run(polos, {"failures": 2}))
        print(await recovery.run(polos, {"items": ["a", "bad", "c"]}))
        print(await fallback.run(polos, {"data": [1]}))
        print(await compensation.run(polos, {"order": 7}))
        try:
            await uncaught.run(polos, {"name": "alone"})
        except Exception as error:  # noqa: BLE001 - as programs do
            print(isinstance(error, RuntimeError), "alone failed" in str(error))
        handle = await uncaught.invoke(polos, {"name": "invoked"})
        while (found := await handle.get(polos))["status"] not in ["completed", "failed"]:
            await asyncio.sleep(0.05)
        print(
            found["status"], found["result"], "invoked failed" in found["error"], calls["invoked"]
        )


asyncio.run(main())
