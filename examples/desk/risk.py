"""Risk: a group. It keeps nothing, and any instance answers."""

from __future__ import annotations

from decimal import Decimal

from aegis_sdk import Context, Service
from contracts import CHECK, Limits

NOTIONAL_MAX = Decimal(50_000)

risk = Service("risk")


@risk.handles(CHECK)
async def check(ctx: Context, limits: Limits) -> bool:
    return limits.notional <= NOTIONAL_MAX
