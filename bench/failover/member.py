"""An instance that can be active and standby, in a process: `python -m bench.failover.member`.

It is told its options in one JSON line, says `ready` when it is registered, then one line for each
change of its roles, with the time. When it was drained it tells which group requests it ran.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aegis_sdk
from aegis_sdk import Role

from bench.model import Book
from bench.systems.aegis import service
from bench.worker import say

CONTROL_WAIT_S = 30.0


class Roles:
    """Tells changes of one turn of the event loop in one line: promotions come in bursts."""

    def __init__(self) -> None:
        self._changed: dict[str, list[str]] = {}

    def promoted(self, resource: str) -> None:
        self._note("promoted", resource)

    def demoted(self, resource: str) -> None:
        self._note("demoted", resource)

    def _note(self, change: str, resource: str) -> None:
        if not self._changed:
            asyncio.get_running_loop().call_soon(self._tell)
        self._changed.setdefault(change, []).append(resource)

    def _tell(self) -> None:
        changed, self._changed = self._changed, {}
        say({**changed, "at_s": time.monotonic()})


async def serve(options: dict[str, Any]) -> None:
    """`url`, `id`, `resources`."""
    roles = Roles()
    book = Book()
    accounts = service(book)
    accounts.on_promoted(roles.promoted)
    accounts.on_demoted(roles.demoted)
    async with aegis_sdk.connect(options["url"]) as aegis:
        instance = await aegis.serve(
            accounts,
            resources=dict.fromkeys(options["resources"], Role.AUTO),
            instance_id=options["id"],
            wait_s=CONTROL_WAIT_S,
        )
        say({"ready": True})
        await instance.serve_forever()
        orders = book.orders
        say({"orders": [orders.count, orders.quantity, orders.digest]})


def main() -> None:
    options = json.loads(sys.stdin.readline())
    aegis_sdk.configure_logs(level="WARNING")
    if options["loop"] == "uvloop":
        import uvloop

        uvloop.run(serve(options))
    else:
        asyncio.run(serve(options))


if __name__ == "__main__":
    main()
