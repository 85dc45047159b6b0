"""A caller as a process of its own, traced by its user: one `forward`, in a span of its own.

`python -m tests.scenarios.caller '{"url": …, "service": …, "resource": …, "book": …, "hold_s": …}'`
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import aegis_sdk
from opentelemetry import trace

from tests.scenarios.ledger import Echo, Methods, say, watch


async def main(options: dict[str, Any]) -> None:
    watch()
    forward = Methods(options["service"]).forward
    echo = Echo(text="traced", book=options["book"], hold_s=options["hold_s"])
    async with aegis_sdk.connect(options["url"]) as aegis:
        with trace.get_tracer("user").start_as_current_span("user"):
            total = await aegis.request(forward, echo, resource=options["resource"], timeout_s=30.0)
    say("answered", count=total.count)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
