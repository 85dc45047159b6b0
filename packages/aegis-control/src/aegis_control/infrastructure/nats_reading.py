"""Reading streams that may not be there: one without a stream is empty."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.codes import ERR_NO_MESSAGE, ERR_NO_STREAM
from aegis_sdk.nats.jetstream import ApiRefused, JetStream, Kept


async def last(js: JetStream, stream: str, subject: str) -> Kept | None:
    """The newest message on a subject, from the stream's leader. Raises: Unavailable."""
    try:
        return await js.last_message(stream, subject)
    except ApiRefused as error:
        if error.code == ERR_NO_STREAM:
            return None
        raise Unavailable(f"stream {stream}: {error}") from error


async def at(js: JetStream, stream: str, seq: int) -> Kept | None:
    """The message at a place; None when it is gone. Raises: Unavailable."""
    try:
        return await js.message(stream, seq)
    except ApiRefused as error:
        if error.code in (ERR_NO_STREAM, ERR_NO_MESSAGE):
            return None
        raise Unavailable(f"stream {stream}: {error}") from error


async def read(
    js: JetStream,
    stream: str,
    subjects: Sequence[str],
    start: dict[str, Any],
    *,
    for_ever: bool = False,
) -> AsyncGenerator[Kept, None]:
    """From `start` up to the stream's end, or on and on. Raises: Unavailable."""
    try:
        async with aclosing(js.read(stream, subjects, start, for_ever=for_ever)) as messages:
            async for stored in messages:
                yield stored
    except ApiRefused as error:
        if error.code != ERR_NO_STREAM:
            raise Unavailable(f"stream {stream}: {error}") from error
