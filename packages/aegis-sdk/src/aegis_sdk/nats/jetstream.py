"""JetStream's API over a Link, in its own words: numbered refusals, messages as they lie in a stream.

What goes in are names of streams and subjects; what comes out are sequences, stored messages and refusals.
Two rules hold. No answer is no refusal: a message may be stored without our knowing (`PublishResult`), and a
call may have worked (`Unavailable`). And each wait has a deadline. It knows nothing of requests or leases.

It is for control and its tools, and speaks in the public errors. Instances and callers use `Link` itself, whose StoreErrors
their use cases decide by.

How a reading works. The server makes a consumer for this one reading, in memory and without acknowledgements, which it forgets
by itself when nobody pulls for 30 s. Messages are pulled in batches, so that a reader that is slow has no more than one batch
waiting for it. A reading that is cut short raises `Unavailable`; it never ends early as if that were all. So whoever has
come to the end of an iteration has seen all that matched when it began, except what was replaced or removed meanwhile.

Single messages are asked of the stream's leader (`STREAM.MSG.GET`), which has all that was ever acknowledged. A direct get
may be answered by any node, and by one that lags.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from aegis_sdk.application.ports import StoreError, StoreForbidden
from aegis_sdk.errors import RefusedByNats, Unavailable
from aegis_sdk.nats.codes import ERR_NO_MESSAGE, ERR_NO_PEERS, ERR_STORE_FAILED
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.wire import Message, parse_headers

API_TIMEOUT_S: Final = 2.0
"""For a call of the API, where its caller has not said otherwise."""
PUBLISH_TIMEOUT_S: Final = 5.0
"""For each thousand; with `sync_interval: always` they take a second."""
READ_TIMEOUT_S: Final = 10.0
"""For all entries of a bucket, or of one kind in a log."""
_READ_BATCH: Final = 2_000
"""Messages of one pull; of large ones a caller asks for fewer."""
_TAIL_WAIT_S: Final = 5.0
"""How long one request for what is to come waits; the reading's own deadline is longer."""
IN_FLIGHT_MAX: Final = 1_000
"""More acknowledgements outstanding don't make the server faster, only its queues longer."""

_UNAVAILABLE: Final = 503


@dataclass(frozen=True, slots=True)
class Refusal:
    """The server's answer was no: certainly nothing was stored."""

    code: int
    """JetStream's own number (codes.py), or the HTTP-like one where it gives none."""
    message: str

    @property
    def is_there(self) -> bool:
        """The subject takes one message, and has it."""
        return self.code == ERR_STORE_FAILED and "per subject" in self.message


class ApiRefused(Exception):
    """JetStream's API said no to a request."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.message} ({refusal.code})")
        self.code = refusal.code


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message for a stream."""

    subject: str
    payload: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kept:
    """A message as read from a stream."""

    subject: str
    seq: int
    """Its place in the stream; a stream gives none to two messages, but one that was made again or put back from a copy
    does.
    """
    payload: bytes
    """Empty where headers alone were asked for."""
    headers: Mapping[str, str]
    at_s: float = 0.0
    """When the server stored it, Unix time."""


PublishResult = int | Refusal | None
"""The stored sequence, the server's refusal, or None: no answer, it may be stored or not."""


class JetStream:
    """The streams behind an open link. It keeps no state but the link, which its maker closes."""

    def __init__(self, link: Link, *, api_timeout_s: float = API_TIMEOUT_S) -> None:
        self.link = link
        self._api_timeout_s = api_timeout_s

    @property
    def client(self) -> Client:
        return self.link.client

    @property
    def connected(self) -> bool:
        return self.link.is_connected

    async def publish_all(
        self, messages: Sequence[Outgoing], *, timeout_s: float = PUBLISH_TIMEOUT_S
    ) -> list[PublishResult]:
        """Publish all with up to a thousand in flight; `timeout_s` counts for each thousand.

        The results are in the order of `messages`, one for each. Raises: RefusedByNats; Unavailable, when some could not be
        sent: of those before them nothing is known.
        """
        results: list[PublishResult] = []
        for at in range(0, len(messages), IN_FLIGHT_MAX):
            results += await self._publish_some(messages[at : at + IN_FLIGHT_MAX], timeout_s)
        return results

    async def api(
        self, name: str, body: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Ask JetStream's API; `name` is the subject without its prefix. One round trip.

        Raises: ApiRefused: certainly not done; RefusedByNats: this login may not ask that; Unavailable: it may have been done.
        """
        timeout_s = timeout_s or self._api_timeout_s
        data = json.dumps(body).encode() if body is not None else b""
        try:
            message = await self.link.request(
                f"{self.link.api_prefix}{name}", data, timeout_s=timeout_s
            )
        except StoreForbidden as error:
            raise RefusedByNats(f"JetStream can't be asked for {name}: {error}") from error
        except StoreError as error:
            raise Unavailable(f"JetStream did not answer {name}: {error}") from error
        answer: dict[str, Any] = json.loads(message)
        if "error" in answer:
            if _is_temporary(answer["error"]):
                raise Unavailable(
                    f"JetStream can't do {name} now: {answer['error']['description']}"
                )
            raise ApiRefused(_refusal(answer["error"]))
        return answer

    async def last_message(self, stream: str, subject: str) -> Kept | None:
        """The last message of a subject, from the stream's leader. Raises: Unavailable, ApiRefused."""
        return await self._one(stream, {"last_by_subj": subject})

    async def first_of(self, stream: str, subject: str, *, from_seq: int = 1) -> Kept | None:
        """The first message that matches, from `from_seq` on. Raises: Unavailable, ApiRefused."""
        return await self._one(stream, {"next_by_subj": subject, "seq": from_seq})

    async def first_younger(self, stream: str, age_s: float) -> int:
        """The sequence of the first message that is younger than `age_s`, or the next to be stored. Two round trips.

        Ages are counted by the server's clock, as its own limits are: `info` says what time it is there. With our own clock, a
        trim by age could take what is still young. Raises: Unavailable, ApiRefused.
        """
        info = await self.api(f"STREAM.INFO.{stream}")
        since = (datetime.fromisoformat(info["ts"]) - timedelta(seconds=age_s)).isoformat()
        found = await self._one(stream, {"next_by_subj": ">", "start_time": since})
        return int(info["state"]["last_seq"]) + 1 if found is None else found.seq

    async def _one(self, stream: str, request: Mapping[str, Any]) -> Kept | None:
        try:
            answer = await self.api(f"STREAM.MSG.GET.{stream}", request)
        except ApiRefused as error:
            if error.code == ERR_NO_MESSAGE:
                return None
            raise
        return decoded(answer["message"])

    async def message(self, stream: str, seq: int) -> Kept:
        """The message at a sequence, from the stream's leader. Raises: Unavailable, ApiRefused."""
        answer = await self.api(f"STREAM.MSG.GET.{stream}", {"seq": seq})
        return decoded(answer["message"])

    async def read_last_of_each(
        self, stream: str, subject: str, *, after: int = 0, headers_only: bool = False
    ) -> AsyncIterator[Kept]:
        """The last message of each subject that matches, those stored after sequence `after` alone.

        For streams that keep one message a subject: buckets and logs. All that is there now comes by one pull, so the time
        limit, READ_TIMEOUT_S, is for all of it.

        Raises: Unavailable, ApiRefused.
        """
        start: dict[str, Any] = {"deliver_policy": "last_per_subject"}
        if after:
            # Only one message a subject is kept: what is stored after it is the last of each.
            start = from_seq(after + 1)
        if headers_only:
            start["headers_only"] = True
        async with self._reader(stream, [subject], start) as (consumer, pending):
            if pending:
                async for message in self._pull(stream, consumer, pending):
                    yield message

    async def read(
        self,
        stream: str,
        subjects: Sequence[str],
        start: Mapping[str, Any],
        *,
        batch: int = _READ_BATCH,
        for_ever: bool = False,
    ) -> AsyncGenerator[Kept, None]:
        """What matches any of `subjects`, in order, up to the stream's end; `for_ever` goes on there.

        `start` are the server's words for a consumer: where to begin, and `headers_only`. However much
        there is, no more than `batch` messages are on their way at once. The time limit is for each batch. What is stored after
        the beginning is not waited for, unless `for_ever`, and may come or not.

        Raises: Unavailable, ApiRefused.
        """
        async with self._reader(stream, subjects, start) as (consumer, pending):
            left = pending
            while left or for_ever:
                read = 0
                wait_s = _TAIL_WAIT_S if for_ever else 0.0
                async with aclosing(self._pull(stream, consumer, batch, wait_s=wait_s)) as messages:
                    async for message in messages:
                        read += 1
                        yield message
                left = max(0, left - read) if read else 0

    @asynccontextmanager
    async def _reader(
        self, stream: str, subjects: Sequence[str], start: Mapping[str, Any]
    ) -> AsyncIterator[tuple[str, int]]:
        """A consumer for one reading: (its name, how many messages it has).

        One replica, in memory: if its node dies, the reading fails and is begun again, which costs less than replicating what
        lives for a second.
        """
        config: dict[str, Any] = {
            "filter_subjects": list(subjects),
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 30_000_000_000,
            **start,
        }
        body = {"stream_name": stream, "config": config}
        made = await self.api(f"CONSUMER.CREATE.{stream}", body)
        try:
            yield made["name"], made["num_pending"]
        finally:
            with suppress(nats.errors.Error, OSError):  # the server forgets it by itself, later
                await self.client.publish(
                    f"{self.link.api_prefix}CONSUMER.DELETE.{stream}.{made['name']}"
                )

    async def _pull(
        self, stream: str, consumer: str, batch: int, *, wait_s: float = 0.0
    ) -> AsyncGenerator[Kept, None]:
        """Up to `batch`, or until nothing is pending (for `wait_s`); what was overwritten is missing.

        A message has a reply subject, which carries its sequence and how many are left; a status has none. Raises: Unavailable.
        """
        inbox = self.client.new_inbox()
        try:
            subscription = await self.client.subscribe(
                inbox, pending_msgs_limit=-1, pending_bytes_limit=-1
            )
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(f"stream {stream} could not be read: {_words(error)}") from error
        deadline_s = asyncio.get_running_loop().time() + READ_TIMEOUT_S
        ask: dict[str, Any] = {"batch": batch}
        ask |= {"expires": int(wait_s * 1e9)} if wait_s else {"no_wait": True}
        read = 0
        try:
            await self.client.publish(
                f"{self.link.api_prefix}CONSUMER.MSG.NEXT.{stream}.{consumer}",
                json.dumps(ask).encode(),
                inbox,
            )
            while True:
                async with asyncio.timeout_at(deadline_s):
                    message = await subscription.next_msg(timeout=None)
                if not message.reply:
                    _check_end(stream, message)
                    return
                metadata = message.metadata
                read += 1
                yield Kept(
                    message.subject,
                    metadata.sequence.stream,
                    message.data,
                    message.headers or {},
                    stored_time(message.reply),
                )
                if read == batch or (metadata.num_pending == 0 and not wait_s):
                    return
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise Unavailable(f"stream {stream} could not be read: {_words(error)}") from error
        finally:
            with suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()

    async def _publish_some(
        self, messages: Sequence[Outgoing], timeout_s: float
    ) -> list[PublishResult]:
        if not self.connected:
            # The link would keep them, and send them when nobody means them any more.
            raise Unavailable(f"the connection to NATS is down{self._trouble}")
        calls = [(each.subject, each.payload, each.headers or None) for each in messages]
        try:
            answers = await self.link.ask_all(calls, timeout_s=timeout_s)
        except StoreError as error:
            raise Unavailable(f"NATS did not take a message: {error}") from error
        if not self.connected:
            await self._connection(timeout_s)  # whoever asked for this reads then what was stored
        return [_result(answer) for answer in answers]

    async def _connection(self, timeout_s: float) -> None:
        """Return when there is one again, or in vain when the time is up."""
        back = asyncio.Event()

        async def restored() -> None:
            back.set()

        self.link.on_restored(restored)
        try:
            async with asyncio.timeout(timeout_s):
                await back.wait()
        except TimeoutError:
            return
        finally:
            self.link.off_restored(restored)

    @property
    def _trouble(self) -> str:
        return f" ({self.link.trouble})" if self.link.trouble else ""


def from_seq(seq: int) -> dict[str, Any]:
    """A consumer's beginning: at that sequence, or at the first one behind it that is there."""
    return {"deliver_policy": "by_start_sequence", "opt_start_seq": max(1, seq)}


def from_time(at_s: float) -> dict[str, Any]:
    """The same by Unix time, as the server's clock has it: at the first message that was stored then or later."""
    words = datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")
    return {"deliver_policy": "by_start_time", "opt_start_time": words}


def _check_end(stream: str, message: Msg) -> None:
    """A status instead of a message: nothing more is there, or the reading was cut short."""
    status = (message.headers or {}).get("Status", "")
    if status not in ("404", "408"):
        raise Unavailable(f"stream {stream} could not be read: status {status}")


def _result(answer: Message | StoreError) -> PublishResult:
    """Raises: RefusedByNats. "Nobody listens" is None, too: a stream that has no leader for a moment looks the same."""
    if isinstance(answer, StoreForbidden):
        raise RefusedByNats(str(answer))
    if isinstance(answer, StoreError) or not answer.data:
        return None  # the connection was lost, or nobody answers for the stream just now
    body = json.loads(answer.data)
    if "error" in body:
        return _refusal(body["error"])
    return int(body["seq"])


def _is_temporary(error: Mapping[str, Any]) -> bool:
    """A cluster that elects, or has not seen all of its nodes yet, says so with these."""
    return error.get("code") == _UNAVAILABLE or error.get("err_code") == ERR_NO_PEERS


def _refusal(error: Mapping[str, Any]) -> Refusal:
    return Refusal(
        int(error.get("err_code", error.get("code", 0))), str(error.get("description", ""))
    )


def decoded(message: Mapping[str, Any]) -> Kept:
    """The API's form of a message: payload and headers in base64."""
    return Kept(
        str(message["subject"]),
        int(message["seq"]),
        base64.b64decode(message.get("data", "")),
        parse_headers(base64.b64decode(message.get("hdrs", ""))),
        parse_time(str(message["time"])),
    )


def parse_time(text: str) -> float:
    """Unix time of the server's RFC 3339, which has up to nanoseconds; to the microsecond."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return _seconds(seconds * 10**9 + int(fraction.ljust(9, "0")))


def stored_time(reply: str) -> float:
    """Unix time of a delivery's storing, from its `$JS.ACK.…` subject (two forms: ADR-15 of NATS)."""
    tokens = reply.split(".")
    return _seconds(int(tokens[7 if len(tokens) == 9 else 9]))


def _seconds(ns: int) -> float:
    """To the microsecond; by whole numbers, so that one moment is one number however it was read."""
    return ns // 1000 / 1e6


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
