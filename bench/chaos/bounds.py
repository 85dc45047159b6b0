"""Request streams that are full: their bound is set to what they hold, and lifted again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from typing import Any

import nats
from aegis_sdk.contract.subjects import Subjects
from nats.aio.client import Client
from nats.errors import Error as NatsError

ANSWER_S = 1.0
RETRY_S = 0.1
LIFTED = 10_000_000
"""Control's own bound."""


class Refused(Exception):
    """NATS did not do it, or did not say so."""


async def fill(urls: Sequence[str], services: Sequence[str]) -> bool:
    """Let no request stream take any more; False when NATS could be told that of none now."""
    told: list[str] = []
    with contextlib.suppress(Refused, NatsError, OSError, TimeoutError):
        await _bound(urls, services, told, full=True)
    return bool(told)


async def lift(urls: Sequence[str], services: Sequence[str]) -> None:
    """Returns when all streams take requests again."""
    while True:
        try:
            await _bound(urls, services, [], full=False)
        except (Refused, NatsError, OSError, TimeoutError):
            await asyncio.sleep(RETRY_S)
        else:
            return


async def _bound(
    urls: Sequence[str], services: Sequence[str], told: list[str], *, full: bool
) -> None:
    """`told`: where the streams go that may have their new bound, also when it raises."""
    async with asyncio.timeout(ANSWER_S * 2 * (1 + len(services))):
        client = await nats.connect(list(urls), allow_reconnect=False, error_cb=_ignore)
        try:
            for service in services:
                name = Subjects().request_stream(service)
                info = await _api(client, f"STREAM.INFO.{name}", {})
                bound = max(1, info["state"]["messages"]) if full else LIFTED
                told.append(name)
                await _api(client, f"STREAM.UPDATE.{name}", info["config"] | {"max_msgs": bound})
        finally:
            await client.close()


async def _api(client: Client, subject: str, request: dict[str, Any]) -> dict[str, Any]:
    answer = await client.request(
        f"$JS.API.{subject}", json.dumps(request).encode(), timeout=ANSWER_S
    )
    body: dict[str, Any] = json.loads(answer.data)
    if "error" in body:
        raise Refused(str(body["error"]))
    return body


async def _ignore(_: Exception) -> None:
    """The faults are ours."""
