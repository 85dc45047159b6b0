"""Single messages of a stream, read from its leader.

The leader has everything that was ever acknowledged, so "nothing is there" can be relied on. A direct get would be
quicker under load, and may be answered by a node that lags. Where that is good enough, it is said so (turns/start.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aegis_sdk.application.ports import StoreMissing
from aegis_sdk.nats.jetstream import Kept, decoded
from aegis_sdk.nats.link import Link

READ_TIMEOUT_S: Final = 2.0


async def message(link: Link, stream: str, which: Mapping[str, Any]) -> Kept | None:
    """`which`: as the server's API names it. None: no message is there. Raises: StoreMissing (no such stream),
    StoreUnreachable.

    The server has one number for "no message" and the link one class for all that is missing, so the text tells them apart.
    """
    try:
        found = await link.api(f"STREAM.MSG.GET.{stream}", which, timeout_s=READ_TIMEOUT_S)
    except StoreMissing as error:
        if "no message found" in str(error):
            return None
        raise
    return decoded(found["message"])


async def last_message(link: Link, stream: str, subject: str) -> Kept | None:
    """The last one on `subject`. Raises: StoreMissing (no such stream), StoreUnreachable."""
    return await message(link, stream, {"last_by_subj": subject})


async def message_at(link: Link, stream: str, seq: int) -> Kept:
    """One that is there, or was a moment ago. Raises: StoreMissing (it is not), StoreUnreachable."""
    found = await message(link, stream, {"seq": seq})
    if found is None:
        raise StoreMissing(f"no message is at {seq} of {stream}")
    return found
