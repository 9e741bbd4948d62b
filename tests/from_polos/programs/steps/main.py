"""Runs workflows of plain steps to their end."""

import asyncio

from dotenv import load_dotenv
from workflows import Greeting, Parcel, double, greet, ship, timed

from polos import Polos, get_all_workflows, get_workflow

load_dotenv()


async def main():
    async with Polos(log_file="polos.log") as polos:
        print("greet:", await greet.run(polos, Greeting(name="Ann")))
        print("default:", (await greet.run(polos, {})).name)

        parcel = Parcel(parcel_id="p1", contents=["tea", "jam"], weight=2.5)
        shipment = await ship.run(polos, parcel, timeout=60)
        print("shipment:", shipment.parcel == parcel, shipment.price, shipment.label.carrier)
        print("history:", shipment.history == [shipment.label], len(shipment.label.tracking))

        timing = await timed.run(polos)
        print("timing:", timing.ended - timing.began >= 50, 0 <= timing.lucky < 1, len(timing.code))
        print("double:", await double.run(polos, {"a": 1, "b": "x"}))

        try:
            await ship.run(polos, parcel.model_copy(update={"weight": 0.0}))
        except Exception as error:  # noqa: BLE001 - as programs do
            print(
                "failed:",
                isinstance(error, RuntimeError),
                "a parcel weighs something" in str(error),
            )
        print("known:", sorted(get_all_workflows()), get_workflow("ship-parcel") is ship)


if __name__ == "__main__":
    asyncio.run(main())
