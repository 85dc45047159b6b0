"""A service's stored requests, read in order by each of its instances, as the log is.

Who serves a resource takes them as they come; who follows keeps them until their outcomes are in the log (application/turns).
No consumer knows what is done: the log does. So a failover hands nothing over here. The new owner has what waits in memory,
and a redelivery timer, which would have to run out first, does not exist.

What the order is worth: a caller's requests to one resource take effect in the order in which it stored them (G7), and a
request that was sent after some were stored waits until the reader is past these (`on_past`). "Past" holds for what was
given, and for what is gone from the stream: a request that is done, or too old, is no reason to wait.

A message that is no request, which any NATS client may store here, is passed over with a log line, and counts as past.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from aegis_sdk.application.turns.serving import OnStored
from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.names import decode_token
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.infrastructure.consumer import Meta, PullLoop, make_reader
from aegis_sdk.infrastructure.log_watch import LogWatch
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.wire import Message
from aegis_sdk.telemetry import log

CREDIT: Final = 256
FILTERS_MAX: Final = 100
"""The server looks at each for each message: of more resources, all are read."""
ALL: Final = 1 << 62
"""Behind every place: a reader of some resources has given all that there was for them."""


class StoredRequests:
    """A reader of one instance, from `start` to `stop`; the main one, or one for resources that were added later.

    Invariant: what it gives comes in the stream's order, each once, and `_next_seq` is behind the last one that came.
    """

    def __init__(
        self,
        link: Link,
        subjects: Subjects,
        service: str,
        *,
        on_request: OnStored,
        on_past: Callable[[int], None],
        resources: Collection[str] | None = None,
        watch: LogWatch | None = None,
    ) -> None:
        """`watch` is told what comes, `on_past` up to where all came, or is gone from the stream's beginning. `resources`: all
        that is stored for these by now (and of others, if there are many).
        """
        self._is_part = resources is not None
        self._watch = watch
        self._link = link
        self._service = service
        self._stream = subjects.request_stream(service)
        self._filters = [subjects.targeted_requests(service)]
        if resources is not None and len(resources) <= FILTERS_MAX:
            self._filters = [subjects.request(service, resource) for resource in resources]
        self._on_request = on_request
        self._on_past = on_past
        self._next_seq = 1
        self._loop = PullLoop(
            link,
            self._stream,
            make=self._make,
            on_message=self._read,
            credit=CREDIT,
            in_order=True,
            holds=False,
            owned=True,
        )

    async def start(self, *, after: int = 0) -> None:
        """Give what is behind place `after`. Raises: StoreForbidden."""
        self._next_seq = after + 1
        await self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    async def _make(self, again: bool, timeout_s: float) -> str:
        start: dict[str, Any] = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._next_seq,
        }
        name, behind, self._loop.pending = await make_reader(
            self._link, self._stream, self._filters, start, timeout_s=timeout_s
        )
        self._past(behind, self._loop.pending)
        return name

    def _past(self, seq: int, pending: int) -> None:
        """Of a part, the last one says that it is all: its filters bring no later message by which one could tell."""
        self._on_past(ALL if self._is_part and not pending else seq)

    def _read(self, message: Message, meta: Meta) -> None:
        self._next_seq = meta.stream_seq + 1
        self._give(message, meta)
        self._past(meta.stream_seq, meta.pending)

    def _give(self, message: Message, meta: Meta) -> None:
        try:
            resource = decode_token(message.subject.rsplit(".", 1)[1])
            request = Request.parse(
                message.headers, message.data, service=self._service, resource=resource
            )
        except (KeyError, ValueError) as error:
            log.error(
                "request_unreadable", service=self._service, seq=meta.stream_seq, error=repr(error)
            )
            return
        if self._watch is not None:
            self._watch.given(meta.stream_seq, request.request_id)
        self._on_request(request, meta.stream_seq, meta.stored_s)
