"""The identity of a service's streams: a mark in their configuration, and positions that never come twice.

A log that begins again does so behind every position that was seen in the one before. So a position of the
old log is not a position in the new one: a late turn of a sleeping instance is refused, since its gate is another one, and no
new request has a sequence that counts as done.
"""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

from aegis_sdk.contract.control import LogMark
from aegis_sdk.contract.envelope import MSG_ID
from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.codes import ERR_NO_STREAM
from aegis_sdk.nats.jetstream import IN_FLIGHT_MAX, ApiRefused, JetStream, Outgoing

from aegis_control.application.ports import ProvisionFailed
from aegis_control.domain.leading.logs import Sight
from aegis_control.infrastructure.nats_reading import at, stream_info
from aegis_control.infrastructure.nats_streams import NatsStreams, in_words

IDENTITY: Final = "aegis.log"
"""The key of a stream's metadata; a copy of the stream has it too."""
MARGIN: Final = 200
"""What may have been stored since the last look, and was told to nobody who lives."""


KNOWN_S: Final = 3.0
"""Shorter than two changes of the leader with a loss accepted in between."""


_GONE: Final = "gone"
"""Stands for an identity that nobody knows any more."""


class NatsLogs:
    """`Logs`. It remembers for as long as the process lives how far each log was seen to go."""

    def __init__(self, link: JetStream, streams: NatsStreams) -> None:
        self._link = link
        self._streams = streams
        self._ends: dict[tuple[str, str], int] = {}
        self._known: dict[str, tuple[str, float]] = {}
        """stream: its identity, and when that was known for sure: another leader may have begun it again."""

    async def look(self, stream: str) -> Sight | None:
        info = await stream_info(self._link, stream)
        if info is None:
            return None
        state = info["state"]
        identity = (info["config"].get("metadata") or {}).get(IDENTITY, "")
        sight = Sight(identity, int(state["first_seq"]), int(state["last_seq"]))
        self._ends[stream, identity] = max(self.seen_end(stream, identity), sight.last_seq)
        return sight

    async def request_at(self, stream: str, seq: int) -> str:
        try:
            stored = await self._link.message(stream, seq)
        except ApiRefused:
            return ""
        return stored.headers.get(MSG_ID, "")

    async def holds(self, stream: str, seq: int) -> bool:
        return await at(self._link, stream, seq) is not None

    async def messages(self, stream: str) -> int | None:
        info = await stream_info(self._link, stream)
        return None if info is None else int(info["state"]["messages"])

    async def remove(self, stream: str, identity: str) -> None:
        sight = await self.look(stream)
        if sight is not None and sight.id == identity:
            await self._delete(stream)
        # What is made under this name from now on is another log, and begins at its own beginning.
        self._known.pop(stream, None)
        self._ends = {known: end for known, end in self._ends.items() if known[0] != stream}
        self._streams.forget_floor(stream)

    async def _delete(self, stream: str) -> None:
        try:
            await self._link.api(f"STREAM.DELETE.{stream}", timeout_s=10.0)
        except ApiRefused as error:
            if error.code != ERR_NO_STREAM:
                raise Unavailable(f"stream {stream} was not removed: {error}") from error

    def seen_end(self, stream: str, identity: str) -> int:
        return self._ends.get((stream, identity), 0)

    async def begin(self, stream: str, *, behind: int, generation: int) -> LogMark:
        identity, info = f"{generation}-{secrets.token_hex(8)}", await stream_info(
            self._link, stream
        )
        if info is None:
            first_seq = behind + MARGIN if behind else 0
            config = self._streams.log_config(stream) | {"first_seq": first_seq}
            await self._change(f"STREAM.CREATE.{stream}", config, identity)
        else:
            await self._change(f"STREAM.UPDATE.{stream}", info["config"], identity)
            if behind:
                await self._pass(stream, int(info["state"]["last_seq"]), behind + MARGIN)
        sight = await self.look(stream)
        self.know(stream, identity)
        return LogMark(id=identity, end=sight.last_seq if sight else 0)

    def know(self, stream: str, identity: str) -> None:
        self._known[stream] = identity, time.monotonic()

    async def adopt(self, stream: str, *, new: bool) -> LogMark:
        known, at_s = self._known.get(stream, ("", 0.0))
        if known and time.monotonic() - at_s < KNOWN_S:
            return LogMark(id=known, end=self.seen_end(stream, known))
        sight = await self.look(stream)
        if sight is None and not new:
            return LogMark(id=_GONE)
        if sight is None or not sight.id:
            return await self.begin(stream, behind=0, generation=1)
        self.know(stream, sight.id)
        return LogMark(id=sight.id, end=sight.last_seq)

    async def _change(self, request: str, config: dict[str, Any], identity: str) -> None:
        metadata = (config.get("metadata") or {}) | {IDENTITY: identity}
        try:
            await self._link.api(request, config | {"metadata": metadata}, timeout_s=10.0)
        except ApiRefused as error:
            raise ProvisionFailed(f"{request}: {in_words(error)}") from error

    async def _pass(self, stream: str, last_seq: int, behind: int) -> None:
        """Store messages that say nothing, until the log goes to `behind`; then remove them."""
        subject = self._streams.filler(stream)
        while last_seq < behind:
            count = min(IN_FLIGHT_MAX, behind - last_seq)
            messages = [Outgoing(f"{subject}.{last_seq + n}", b"") for n in range(count)]
            stored = await self._link.publish_all(messages)
            last_seq = max([last_seq, *(seq for seq in stored if isinstance(seq, int))])
        await self._link.api(f"STREAM.PURGE.{stream}", {"filter": f"{subject}.>"})
