"""What the demo's processes tell the demo, one JSON line each on their standard output.

`Ready`: it serves (or, the gateway: it is connected). `Traded`: an order has its answer.
`Stated`: an account's closing statement. `Finished`: the gateway has done all it had to do.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter


class Ready(BaseModel):
    event: Literal["ready"] = "ready"
    instance_id: str = ""


class Traded(BaseModel):
    """`started_s` is the machine's monotonic clock, which all processes of one machine share."""

    event: Literal["traded"] = "traded"
    order_id: str
    request_id: str
    outcome: str
    code: str = ""
    started_s: float
    booking_s: float
    quote_s: float | None = None
    attempts: int = 1


class Stated(BaseModel):
    event: Literal["stated"] = "stated"
    account: str
    cash: Decimal
    positions: dict[str, Decimal]
    version: int


class Finished(BaseModel):
    """`session_s` is the time from the first order to the last answer, without `held_s`, the time in
    which the demo held orders back (until a standby was there to kill for, or for `--speed`)."""

    event: Literal["finished"] = "finished"
    session_s: float
    held_s: float


Event = Annotated[Ready | Traded | Stated | Finished, Field(discriminator="event")]
EVENTS: TypeAdapter[Event] = TypeAdapter(Event)


class Limit(BaseModel):
    """The demo to the gateway, on its standard input: trade the first `orders` orders, then wait."""

    orders: int
