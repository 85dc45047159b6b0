"""Key-value buckets on JetStream: a stream named `KV_<bucket>`, one subject a key."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.codes import ERR_BUSY, ERR_WRONG_LAST_SEQUENCE, EXPECTED_SEQ
from aegis_sdk.nats.jetstream import ApiRefused, JetStream, Kept, Outgoing, PublishResult

from aegis_control.application.ports import BucketEntry, NotTheBucket, NotWritten, Write

_OPERATION = "KV-Operation"
_BUSY_TRIES = 20
_BUSY_WAIT_S = 0.005


async def publish_checked(
    link: JetStream, messages: Sequence[Outgoing], *, timeout_s: float | None = None
) -> list[int | NotWritten]:
    """Publish messages that expect a last sequence; "busy" (another check in flight) is tried again.

    Raises: Unavailable when the server refuses for another reason than a conflict.
    """
    results: list[PublishResult] = [None] * len(messages)
    todo = list(range(len(messages)))
    for _ in range(_BUSY_TRIES):
        batch = [messages[i] for i in todo]
        answers = await (
            link.publish_all(batch)
            if timeout_s is None
            else link.publish_all(batch, timeout_s=timeout_s)
        )
        for i, answer in zip(todo, answers, strict=True):
            results[i] = answer
        todo = [i for i in todo if _is_busy(results[i])]
        if not todo:
            break
        await asyncio.sleep(_BUSY_WAIT_S)
    return [_translated(result) for result in results]


class NatsBucket:
    """A `Bucket`. It must exist; see `nats_streams`."""

    def __init__(self, link: JetStream, name: str, *, write_timeout_s: float | None = None) -> None:
        self._link = link
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."
        self._write_timeout_s = write_timeout_s
        self._created = ""
        """When the server says that the bucket was made, as read last."""

    async def load(self, *, after: int = 0, again: bool = False) -> list[BucketEntry]:
        try:
            last = await self._last_revision(after, again=again)
            if again and last <= after:
                return []
            reading = self._link.read_last_of_each(self._stream, self._prefix + ">", after=after)
            return [self._entry(stored) async for stored in reading]
        except ApiRefused as error:
            raise Unavailable(f"bucket {self._stream}: {error}") from error

    async def read(self, key: str) -> BucketEntry | None:
        try:
            stored = await self._link.last_message(self._stream, self._prefix + key)
        except ApiRefused as error:
            raise Unavailable(f"bucket {self._stream}: {error}") from error
        return None if stored is None else self._entry(stored)

    async def write(self, writes: Sequence[Write]) -> list[int | NotWritten]:
        return await publish_checked(
            self._link,
            [
                Outgoing(self._prefix + write.key, write.value, {EXPECTED_SEQ: str(write.revision)})
                for write in writes
            ],
            timeout_s=self._write_timeout_s,
        )

    async def delete(self, key: str, revision: int) -> int | NotWritten:
        [result] = await self.delete_all([BucketEntry(key, None, revision)])
        return result

    async def delete_all(self, entries: Sequence[BucketEntry]) -> list[int | NotWritten]:
        return await publish_checked(
            self._link,
            [
                Outgoing(
                    self._prefix + entry.key,
                    b"",
                    {EXPECTED_SEQ: str(entry.revision), _OPERATION: "DEL"},
                )
                for entry in entries
            ],
            timeout_s=self._write_timeout_s,
        )

    async def _last_revision(self, after: int, *, again: bool) -> int:
        info = await self._link.api(f"STREAM.INFO.{self._stream}")
        last, before = int(info["state"]["last_seq"]), self._created
        self._created = str(info["created"])
        if again and (last < after or before != self._created):
            raise NotTheBucket(f"{self._stream} is not the bucket that it was")
        return last

    def _entry(self, stored: Kept) -> BucketEntry:
        deleted = _OPERATION in stored.headers
        key = stored.subject.removeprefix(self._prefix)
        return BucketEntry(key, None if deleted else stored.payload, stored.seq)


def _is_busy(result: PublishResult) -> bool:
    return not isinstance(result, int) and result is not None and result.code == ERR_BUSY


def _translated(result: PublishResult) -> int | NotWritten:
    if isinstance(result, int):
        return result
    if result is None:
        return NotWritten.UNKNOWN
    if result.code in (ERR_WRONG_LAST_SEQUENCE, ERR_BUSY):
        return NotWritten.CONFLICT
    raise Unavailable(f"NATS refused to store a message: {result.message} ({result.code})")
