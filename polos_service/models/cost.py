"""What a model call cost, from the price list that `genai-prices` carries; no network."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from genai_prices import Usage as Tokens
from genai_prices import calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import PriceCalculation

from polos.v1.event_pb2 import Cost, Usage

MICROS_PER_USD = 1_000_000

get_snapshot()  # loads the list now: the first answer would stop every run meanwhile


def cost(usage: Usage, model: str, base_url: str, listed_as: str | None = None) -> Cost | None:
    """Return the cost of `usage`; None if provider, model or a price is not listed.

    The provider is known by its address: another server's model of the same name has
    another price. Never raises: a run must not fail because its price is unknown.

    Args:
        usage: the tokens.
        model: the model's name.
        base_url: where it was asked.
        listed_as: the provider's id in the list, for an address that is not listed, for example
            a gateway's. None: the address alone decides.

    """
    try:
        price = _calculate(usage, model, base_url, listed_as)
    except Exception:  # noqa: BLE001 - a defect of a price list must not fail a run
        return None
    listed = vars(price.model_price)
    if listed.get("input_mtok") is None or listed.get("output_mtok") is None:
        return None  # the list names the model without a price, and then calculates 0
    micros = (price.total_price * MICROS_PER_USD).quantize(Decimal(1), ROUND_HALF_EVEN)
    return Cost(usd_micros=int(micros))


def _calculate(usage: Usage, model: str, base_url: str, listed_as: str | None) -> PriceCalculation:
    tokens = Tokens(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_input_tokens,
        cache_write_tokens=usage.cache_creation_input_tokens,
    )
    try:
        provider = get_snapshot().find_provider(None, None, base_url).id
    except LookupError:
        if listed_as is None:
            raise
        provider = listed_as
    return calc_price(tokens, model, provider_id=provider)
