"""Reading streams that may not be there: one without a stream is empty."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.codes import ERR_NO_CONSUMER, ERR_NO_MESSAGE, ERR_NO_STREAM
from aegis_sdk.nats.jetstream import ApiRefused, JetStream, Kept

T = TypeVar("T")


async def _unless_absent(call: Awaitable[T], what: str, *absent: int) -> T | None:
    """What it answers; None when the server says one of `absent`. Raises: Unavailable."""
    try:
        return await call
    except ApiRefused as error:
        if error.code in absent:
            return None
        raise Unavailable(f"{what}: {error}") from error


async def stream_info(
    js: JetStream, stream: str, body: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """None if there is no such stream. Raises: Unavailable."""
    asked = js.api(f"STREAM.INFO.{stream}", body)
    return await _unless_absent(asked, f"stream {stream}", ERR_NO_STREAM)


async def consumer_info(js: JetStream, stream: str, consumer: str) -> dict[str, Any] | None:
    """None if there is no such consumer. Raises: Unavailable."""
    asked = js.api(f"CONSUMER.INFO.{stream}.{consumer}")
    what = f"consumer {consumer} of {stream}"
    return await _unless_absent(asked, what, ERR_NO_CONSUMER, ERR_NO_STREAM)


async def stream_names(js: JetStream, subject: str = ">") -> list[str]:
    """The streams that take any subject that matches. Raises: Unavailable."""
    names: list[str] = []
    while True:
        try:
            page = await js.api("STREAM.NAMES", {"subject": subject, "offset": len(names)})
        except ApiRefused as error:
            raise Unavailable(f"the names of streams: {error}") from error
        found = page.get("streams") or []
        names += found
        if not found or len(names) >= int(page["total"]):
            return names


async def last(js: JetStream, stream: str, subject: str) -> Kept | None:
    """The newest message on a subject, from the stream's leader. Raises: Unavailable."""
    return await _unless_absent(js.last_message(stream, subject), f"stream {stream}", ERR_NO_STREAM)


async def first(js: JetStream, stream: str, subject: str) -> Kept | None:
    """The oldest message on a subject. Raises: Unavailable."""
    return await _unless_absent(js.first_of(stream, subject), f"stream {stream}", ERR_NO_STREAM)


async def at(js: JetStream, stream: str, seq: int) -> Kept | None:
    """The message at a place; None when it is gone. Raises: Unavailable."""
    asked = js.message(stream, seq)
    return await _unless_absent(asked, f"stream {stream}", ERR_NO_STREAM, ERR_NO_MESSAGE)


async def read(
    js: JetStream,
    stream: str,
    subjects: Sequence[str],
    start: dict[str, Any],
    *,
    for_ever: bool = False,
    batch: int = 2_000,
) -> AsyncGenerator[Kept, None]:
    """From `start` up to the stream's end, or on and on. Raises: Unavailable."""
    try:
        reading = js.read(stream, subjects, start, batch=batch, for_ever=for_ever)
        async with aclosing(reading) as messages:
            async for stored in messages:
                yield stored
    except ApiRefused as error:
        if error.code != ERR_NO_STREAM:
            raise Unavailable(f"stream {stream}: {error}") from error
