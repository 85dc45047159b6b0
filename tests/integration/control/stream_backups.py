"""What `nats stream backup` and `nats stream restore` do, by the same requests of JetStream's API."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

CHUNK_BYTES = 65_536
TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class StreamBackup:
    name: str
    made_of: dict[str, Any]
    """The stream's configuration and state."""
    chunks: list[bytes]


async def api(client: Client, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = json.dumps(body).encode() if body is not None else b""
    reply = await client.request(f"$JS.API.{name}", data, timeout=TIMEOUT_S)
    answer: dict[str, Any] = json.loads(reply.data)
    assert "error" not in answer, answer
    return answer


async def backup(client: Client, stream: str) -> StreamBackup:
    inbox, chunks, ended = client.new_inbox(), list[bytes](), asyncio.Event()

    async def take(message: Msg) -> None:
        if not message.data:
            ended.set()
            return
        chunks.append(message.data)
        if message.reply:
            await client.publish(message.reply, b"")

    subscription = await client.subscribe(inbox, cb=take)
    asked = {"deliver_subject": inbox, "chunk_size": CHUNK_BYTES, "no_consumers": True}
    made_of = await api(client, f"STREAM.SNAPSHOT.{stream}", asked)
    async with asyncio.timeout(TIMEOUT_S):
        await ended.wait()
    await subscription.unsubscribe()
    return StreamBackup(stream, {k: made_of[k] for k in ("config", "state")}, chunks)


async def restore(client: Client, copy: StreamBackup) -> None:
    begun = await api(client, f"STREAM.RESTORE.{copy.name}", copy.made_of)
    for chunk in (*copy.chunks, b""):
        reply = await client.request(begun["deliver_subject"], chunk, timeout=TIMEOUT_S)
        assert b'"error"' not in reply.data, reply.data


async def backup_all(client: Client) -> list[StreamBackup]:
    """The streams' names in the server's order."""
    names = (await api(client, "STREAM.NAMES"))["streams"]
    return [await backup(client, name) for name in names]
