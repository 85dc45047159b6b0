"""A caller in a process of its own: `python -m tests.scenarios.submitter JSON`; it is killed in mid-life.

It hands bookings in and says the id of each that is accepted, until it dies.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import aegis_sdk

from tests.scenarios.ledger import Booking, Methods, say


async def main(options: dict[str, Any]) -> None:
    """`url`, `service`, `resource`, and `hold_s` of each booking."""
    methods = Methods(options["service"])
    async with aegis_sdk.connect(options["url"]) as aegis:
        n = 0
        while True:
            booking = Booking(op=f"op-{n}", hold_s=options["hold_s"])
            ticket = await aegis.submit(methods.book, booking, resource=options["resource"])
            say("accepted", op=booking.op, id=ticket.id)
            n += 1


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
