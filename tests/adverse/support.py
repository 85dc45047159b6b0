"""Raw bytes to NATS, past every check of a client library; services that a test can call."""

from __future__ import annotations

import asyncio
from urllib.parse import urlparse


async def publish_raw(url: str, subject: bytes, payload: bytes, headers: bytes = b"") -> None:
    """One message as it is; returns when the server has read it. `headers` is the whole block."""
    where = urlparse(url.split(",", maxsplit=1)[0])
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    if headers:
        size = f"{len(headers)} {len(headers) + len(payload)}".encode()
        command = b"HPUB %s %s\r\n%s%s\r\n" % (subject, size, headers, payload)
    else:
        command = b"PUB %s %d\r\n%s\r\n" % (subject, len(payload), payload)
    try:
        await reader.readuntil(b"\r\n")
        writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n' + command + b"PING\r\n")
        async with asyncio.timeout(5.0):
            while (line := await reader.readuntil(b"\r\n")) != b"PONG\r\n":
                assert not line.startswith(b"-ERR"), line
    finally:
        writer.close()
