"""What relaying needs of NATS: the streams of events as readers see them, and the bucket with the positions.

A position is a place in one stream. So what tells a stream from a later one of the same name matters as much as the place:
`stream_id`, made of the moment at which the server created it. A copy that was restored has the same, which is right as
far as the copy goes; that it ends earlier is seen by `last_seq` and `name_at` (application/turns/relaying.py).

A reader may find the stream replaced behind its back only when its consumer is made again. From then on it gives nothing
(`is_doubted`): whoever relays looks at the stream first and begins another reader. Reading on would give the
new stream's events the old one's ids, and the sessions would take them for duplicates, in silence.

Two instances that relay at the same time write one position. The bucket takes a write only under the revision that its
writer has read (10071), so the later one of the two is refused, and reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

from aegis_sdk.application.ports import AlreadyStored, GateRefused, StoreUnreachable
from aegis_sdk.application.turns.relaying import Came, StreamSight
from aegis_sdk.contract.control import SubscriptionRecord
from aegis_sdk.contract.envelope import TRACEPARENT, TRACEPARENT_FORM
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.infrastructure.consumer import Meta, PullLoop, make_reader
from aegis_sdk.infrastructure.messages import last_message, message
from aegis_sdk.nats.codes import EXPECTED_SEQ
from aegis_sdk.nats.jetstream import from_time
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.wire import Message

CREDIT: Final = 512
"""Events that were read and are not stored as requests yet: what a relay holds in memory of one subscription, at most."""
TIMEOUT_S: Final = 2.0
"""For one call to the server; whoever relays tries again."""
_DELETED: Final = ("DEL", "PURGE")


class NatsEventsIn:
    """EventsIn (application/turns/relaying.py). The streams are of other services, whose control may not have made them yet."""

    def __init__(self, link: Link, subjects: Subjects) -> None:
        self._link = link
        self._subjects = subjects

    async def look(self, service: str) -> StreamSight:
        stream = self._subjects.emitted_stream(service)
        info = await self._link.api(f"STREAM.INFO.{stream}", {}, timeout_s=TIMEOUT_S)
        return StreamSight(stream_id(info), int(info["state"]["last_seq"]))

    async def since(self, service: str, at_s: float) -> int:
        stream = self._subjects.emitted_stream(service)
        which = {"next_by_subj": ">", "start_time": from_time(at_s)["opt_start_time"]}
        found = await message(self._link, stream, which)
        return (await self.look(service)).last_seq if found is None else found.seq - 1

    async def name_at(self, service: str, seq: int) -> str:
        found = await message(self._link, self._subjects.emitted_stream(service), {"seq": seq})
        return "" if found is None else found.subject

    def reader(self, service: str, event: str, on_event: Callable[[Came], None]) -> EventReader:
        stream = self._subjects.emitted_stream(service)
        return EventReader(self._link, stream, self._subjects.emitted_all(service, event), on_event)


def stream_id(info: dict[str, Any]) -> str:
    """What tells a stream from a later one of its name; a copy that is restored has it, too."""
    return hashlib.blake2b(str(info["created"]).encode(), digest_size=8).hexdigest()


class EventReader:
    """EventSource (application/turns/relaying.py), for one subscription at one instance; its relay starts and stops it.

    Each event keeps its credit until `finished`, which is when its request is stored: a stream of requests that is full holds
    the reading up, and nothing piles up here.
    """

    def __init__(
        self, link: Link, stream: str, subject: str, on_event: Callable[[Came], None]
    ) -> None:
        self._link = link
        self._stream = stream
        self._subject = subject
        self._on_event = on_event
        self._position = 0
        self.is_doubted = False
        self._loop = PullLoop(
            link,
            stream,
            make=self._make,
            on_message=self._read,
            credit=CREDIT,
            in_order=True,
            holds=True,
            owned=True,
        )

    async def start(self, *, after: int) -> None:
        self._position = after
        await self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    def finished(self) -> None:
        self._loop.finished()

    async def _make(self, again: bool, timeout_s: float) -> str:
        """`again` sets the doubt before the consumer is there, so nothing that it brings is given."""
        self.is_doubted = again
        start = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._position + 1}
        name, _, _ = await make_reader(
            self._link, self._stream, [self._subject], start, timeout_s=timeout_s
        )
        return name

    def _read(self, message: Message, meta: Meta) -> None:
        if self.is_doubted:
            return  # another reader begins, where it is known that this is the same stream
        self._position = meta.stream_seq
        traceparent = message.headers.get(TRACEPARENT, "")
        if not TRACEPARENT_FORM.fullmatch(traceparent):
            traceparent = ""
        self._on_event(
            Came(meta.stream_seq, message.subject, meta.stored_s, message.data, traceparent)
        )


class NatsPositions:
    """Positions (application/turns/relaying.py). `revision` is the sequence of the key's last message in its bucket; 0:
    none.
    """

    def __init__(self, link: Link, subjects: Subjects) -> None:
        self._link = link
        self._bucket = subjects.subscriptions_bucket

    async def load(self, service: str, takes: str) -> tuple[SubscriptionRecord | None, int]:
        key = Subjects.subscription_key(service, takes)
        found = await last_message(self._link, f"KV_{self._bucket}", f"$KV.{self._bucket}.{key}")
        if found is None:
            return None, 0
        if found.headers.get("KV-Operation") in _DELETED:
            return None, found.seq
        try:
            return SubscriptionRecord.read(key, found.payload), found.seq
        except ValueError as error:
            raise StoreUnreachable(f"the position of {key} can't be read: {error}") from error

    async def save(self, record: SubscriptionRecord, revision: int) -> int:
        data = record.model_dump_json().encode()
        headers = {EXPECTED_SEQ: str(revision)}
        try:
            stored = await self._link.store(
                f"$KV.{self._bucket}.{record.key}", data, headers, timeout_s=TIMEOUT_S
            )
        except GateRefused as error:
            raise AlreadyStored(str(error)) from error
        return stored.seq
