"""The NATS servers as they describe themselves to the system account, and the streams as they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import nats.errors
from aegis_sdk.contract.control import DriftView, ServerView
from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.jetstream import parse_time
from aegis_sdk.nats.link import Link
from nats.aio.msg import Msg

from aegis_control.infrastructure.nats_streams import NatsStreams

_VARZ: Final = "$SYS.REQ.SERVER.PING.VARZ"
_GATHER_S: Final = 0.3
"""Every server of the cluster answers for itself; how many there are, nobody says beforehand."""
_NS: Final = 1_000_000_000


class NatsCheckup:
    """`Checkup`."""

    def __init__(
        self,
        streams: NatsStreams,
        system: Link | None,
        wall: Callable[[], float],
        *,
        replicas: int,
    ) -> None:
        self._streams = streams
        self._system = system
        self._wall = wall
        self._replicas = replicas

    @property
    def replicas(self) -> int:
        return self._replicas

    async def drift(self, services: Sequence[str]) -> list[DriftView]:
        return await self._streams.drift(services)

    async def servers(self) -> list[ServerView] | None:
        if self._system is None:
            return None
        answers: list[tuple[float, bytes]] = []

        async def note(message: Msg) -> None:
            answers.append((self._wall(), message.data))

        asked_s = self._wall()
        client = self._system.client
        inbox = client.new_inbox()
        try:
            subscription = await client.subscribe(inbox, cb=note)
            await client.publish(_VARZ, b"", inbox)
            await asyncio.sleep(_GATHER_S)
            await subscription.unsubscribe()
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(f"the system account: {error}") from error
        found = [_server(json.loads(data), (asked_s + at_s) / 2) for at_s, data in answers]
        return sorted(found, key=lambda server: server.name)


def _server(answer: dict[str, Any], now_s: float) -> ServerView:
    data = answer["data"]
    jetstream = data.get("jetstream", {})
    config, used = jetstream.get("config") or {}, jetstream.get("stats") or {}
    return ServerView(
        name=answer["server"]["name"],
        version=data["version"],
        clock_offset_s=round(parse_time(data["now"]) - now_s, 4),
        max_payload_bytes=data.get("max_payload", -1),
        sync_always=config.get("sync_always", False),
        sync_interval_s=config.get("sync_interval", 0) / _NS,
        storage_bytes=used.get("storage", 0),
        storage_bytes_max=config.get("max_storage", -1),
        memory_bytes=used.get("memory", 0),
        memory_bytes_max=config.get("max_memory", -1),
    )
