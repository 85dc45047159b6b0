"""An instance from its start to its first reply: `python -m bench.first JSON`.

It serves one resource, asks itself for it, says when the reply was there, and leaves.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aegis_sdk
from aegis_sdk import Role

from bench.model import Book, make_fill
from bench.systems.aegis import FILL, service
from bench.worker import say


async def first(options: dict[str, Any]) -> None:
    """`url`, `resource`, `id` (of the request)."""
    resource = options["resource"]
    async with aegis_sdk.connect(options["url"]) as aegis:
        await aegis.serve(service(Book()), resources={resource: Role.ACTIVE})
        fill = make_fill(options["id"], resource, 1, 1)
        position = await aegis.request(FILL, fill, resource=resource)
        say({"replied_s": time.monotonic(), "id": position.id, "count": position.count})


def main() -> None:
    options = json.loads(sys.argv[1])
    if options["loop"] == "uvloop":
        import uvloop

        uvloop.run(first(options))
    else:
        asyncio.run(first(options))


if __name__ == "__main__":
    main()
