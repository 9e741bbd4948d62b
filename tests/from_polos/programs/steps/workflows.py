"""Workflows of plain steps, as programs for the original SDK define them."""

from pydantic import BaseModel

from polos import WorkflowContext, workflow


class Greeting(BaseModel):
    name: str = "you"


class Parcel(BaseModel):
    parcel_id: str
    contents: list[str]
    weight: float


class Label(BaseModel):
    carrier: str
    tracking: str


class Shipment(BaseModel):
    parcel: Parcel
    label: Label | None = None
    price: float
    history: list[Label] = []


class Timing(BaseModel):
    began: int
    ended: int
    lucky: float
    code: str


@workflow
async def greet(ctx: WorkflowContext, payload: Greeting) -> Greeting:
    """Greet somebody."""
    text = await ctx.step.run("text", lambda: f"Hello, {payload.name}!")
    return Greeting(name=text)


def weigh(parcel: Parcel) -> bool:
    if parcel.weight <= 0:
        raise ValueError("a parcel weighs something")
    return True


def price_of(weight: float, per_kilo: float = 2.0) -> float:
    return weight * per_kilo


@workflow(id="ship-parcel", description="Ships a parcel")
async def ship(ctx: WorkflowContext, payload: Parcel):
    await ctx.step.run("weigh", weigh, payload, max_retries=0)
    price = await ctx.step.run("price", price_of, payload.weight, per_kilo=3.0)
    tracking = await ctx.step.uuid("tracking")
    label = await ctx.step.run(
        "label",
        lambda number: Label(carrier="snail", tracking=number),
        tracking,
        max_retries=5,
        base_delay=0.01,
        max_delay=0.02,
    )
    return Shipment(parcel=payload, label=label, price=price, history=[label])


@workflow(id="timed")
async def timed(ctx: WorkflowContext) -> Timing:
    began = await ctx.step.now("began")
    await ctx.step.wait_for("rest", seconds=0.05)
    ended = await ctx.step.now("ended")
    lucky = await ctx.step.random("lucky")
    return Timing(began=began, ended=ended, lucky=lucky, code=await ctx.step.uuid("code"))


@workflow(id="double")
def double(ctx: WorkflowContext, payload: dict) -> dict:
    """Double numbers, in a thread."""
    return {key: value * 2 for key, value in payload.items()}
