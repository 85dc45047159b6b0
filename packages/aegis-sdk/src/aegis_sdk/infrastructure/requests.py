"""The request stream in JetStream: storing requests, and reading those of the group.

Storing is one publish under the request's id. The stream's dedup window makes a second one of a moment later harmless; one that
comes after the window, or after the server was killed, is stored twice and told apart by the sessions (G3). So `duplicate`
spares work, and no promise rests on it alone.

What is stored for resources is read by each instance in the stream's order (turns/stored.py). Only the group has a consumer of
the server's, one for the service, which control makes: the server deals its requests to whoever pulls, and deals one again
that was not acknowledged within ack_wait. A member's lease on a request is that time: it must say `extend` within it. An
acknowledgement says that the outcome is stored, never less. If it is lost, the request is dealt again, its outcome
is found under its own name, and it does not run a second time (G2).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Final

from aegis_sdk.application.ports import Accepted, Delivery, StoreUnreachable
from aegis_sdk.contract.envelope import MSG_ID, Request
from aegis_sdk.contract.names import decode_token
from aegis_sdk.contract.subjects import GROUP_CONSUMER, SUSPECT_TO, Subjects
from aegis_sdk.domain.delivery import Arrival
from aegis_sdk.infrastructure.consumer import Meta, PullLoop, Unreadable, make_reader
from aegis_sdk.infrastructure.log_watch import LogWatch
from aegis_sdk.infrastructure.messages import message
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.wire import Message
from aegis_sdk.telemetry import log

ACK_DELAY_S: Final = 0.003
"""An acknowledgement is not urgent, and one for many saves a write on both sides."""
SEARCH_CREDIT: Final = 5000
"""Headers alone are on their way."""


class NatsRequestLog:
    """RequestLog (application/ports.py). It keeps nothing: callers and instances of one link may each have one."""

    def __init__(self, link: Link, subjects: Subjects) -> None:
        self._link = link
        self._subjects = subjects

    async def append(self, request: Request, *, timeout_s: float) -> Accepted:
        """One round trip. Raises: StoreFull, StoreTooLarge, StoreMissing: not stored; StoreUnreachable: it may be."""
        stored = await self._link.store(
            self._subjects.request(request.service, request.resource),
            request.payload,
            request.headers(),
            timeout_s=timeout_s,
        )
        return Accepted(stored.seq, stored.duplicate)

    async def find(self, service: str, request_id: str, *, timeout_s: float) -> Request | None:
        """O(all stored requests), by their headers: an id is no part of a stored request's subject, which names its resource.

        Raises: StoreUnreachable, when the end was not reached in time: also of a stream that is not there.
        """
        search = _Search(self._link, self._subjects, service, request_id)
        try:
            async with asyncio.timeout(timeout_s):
                seq = await search.found()
                return await self.read(service, seq) if seq else None
        except TimeoutError as error:
            raise StoreUnreachable(f"not all requests were read in {timeout_s:g} s") from error
        finally:
            await search.stop()

    async def services(self) -> Sequence[str]:
        """Sorted. The server tells names by the page, so it is some round trips for thousands. Raises: StoreUnreachable."""
        names: list[str] = []
        while True:
            asked = {"subject": self._subjects.all_requests, "offset": len(names)}
            page = await self._link.api("STREAM.NAMES", asked)
            found = page.get("streams") or []
            names += found
            if not found or len(names) >= int(page["total"]):
                return sorted(map(self._subjects.service_of_stream, names))

    async def read(self, service: str, seq: int) -> Request | None:
        """One read at the stream's leader; None when it is gone, or is no request. Raises: StoreMissing, StoreUnreachable."""
        kept = await message(self._link, self._subjects.request_stream(service), {"seq": seq})
        if kept is None:
            return None
        try:
            resource = _resource_of(kept.subject)
            return Request.parse(kept.headers, kept.payload, service=service, resource=resource)
        except (KeyError, ValueError):
            return None  # somebody else's: no request is at this place


class _Search:
    """Reads the ids of all requests that a service's stream keeps, until it meets one, for one question.

    It ends at the stream's end as of then: what is stored later may be missed. After a gap it reads from the beginning
    again, since "not there" may only be said when every message was seen.
    """

    def __init__(self, link: Link, subjects: Subjects, service: str, request_id: str) -> None:
        self._link = link
        self._stream = subjects.request_stream(service)
        self._filter = subjects.requests(service)
        self._request_id = request_id
        self._answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._loop = PullLoop(
            link,
            self._stream,
            make=self._make,
            on_message=self._look,
            credit=SEARCH_CREDIT,
            in_order=True,
            holds=False,
            owned=True,
        )

    async def found(self) -> int:
        """Its place; 0: the stream does not have it."""
        await self._loop.start()
        return await self._answer

    async def stop(self) -> None:
        await self._loop.stop()

    async def _make(self, again: bool, timeout_s: float) -> str:
        name, _, waiting = await make_reader(
            self._link,
            self._stream,
            [self._filter],
            {"deliver_policy": "all", "headers_only": True},
            timeout_s=timeout_s,
        )
        if not waiting:
            self._end(0)
        return name

    def _look(self, message: Message, meta: Meta) -> None:
        if message.headers.get(MSG_ID) == self._request_id:
            self._end(meta.stream_seq)
        elif not meta.pending:
            self._end(0)

    def _end(self, seq: int) -> None:
        if not self._answer.done():
            self._answer.set_result(seq)


class NatsDeliveries:
    """Deliveries (application/ports.py)."""

    def __init__(self, link: Link, subjects: Subjects, watch: LogWatch | None = None) -> None:
        """`watch` is told what is delivered: each request that was given must be in the stream for as long as it is the
        same.
        """
        self._link = link
        self._subjects = subjects
        self._watch = watch or LogWatch(link, subjects, "", "")

    async def open_group(
        self, service: str, *, credit: int, on_delivery: Callable[[Delivery], None]
    ) -> PullLoop:
        """Pull the group's requests, at most `credit` of them in hand. What can't be read is ended at the server, and logged.

        The consumer is control's, so it is looked up and never made here. Its metadata say up to which place requests may have
        been begun before it was made anew: those are suspects (domain/turns/begins.py). Raises: StoreForbidden.
        """
        suspect_to, stream = 0, self._subjects.request_stream(service)

        async def make(again: bool, timeout_s: float) -> str:
            nonlocal suspect_to  # control made it, shared by all instances, and makes it again
            info = await self._link.api(
                f"CONSUMER.INFO.{stream}.{GROUP_CONSUMER}", {}, timeout_s=timeout_s
            )
            metadata = info["config"].get("metadata") or {}
            suspect_to = int(metadata.get(SUSPECT_TO, "0"))
            return GROUP_CONSUMER

        acks = _Acks(self._link)

        def on_message(message: Message, meta: Meta) -> None:
            self._deliver(service, message, meta, suspect_to, acks, on_delivery)

        loop = PullLoop(
            self._link,
            self._subjects.request_stream(service),
            make=make,
            on_message=on_message,
            credit=credit,
            in_order=False,
            holds=True,
        )
        await loop.start()
        return loop

    def _deliver(
        self,
        service: str,
        message: Message,
        meta: Meta,
        suspect_to: int,
        acks: _Acks,
        on_delivery: Callable[[Delivery], None],
    ) -> None:
        try:
            request = Request.parse(
                message.headers,
                message.data,
                service=service,
                resource=_resource_of(message.subject),
            )
        except (KeyError, ValueError) as error:
            log.error("request_unreadable", service=service, seq=meta.stream_seq, error=repr(error))
            raise Unreadable from error
        self._watch.given(meta.stream_seq, request.request_id)
        reply, link = message.reply, self._link

        def extend() -> None:
            link.publish(reply, b"+WPI")

        def hand_back(delay_s: float) -> None:
            link.publish(reply, b"-NAK " + json.dumps({"delay": int(delay_s * 1e9)}).encode())

        arrival = Arrival(meta.stream_seq, meta.delivered, meta.stream_seq <= suspect_to)
        on_delivery(Delivery(request, arrival, acks.add(reply), extend, hand_back))


class _Acks:
    """Acknowledges finished requests; those of one moment leave in one write.

    Core NATS, without an answer: one that is lost costs a second delivery, whose outcome is found.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._finished: list[str] = []

    def add(self, reply: str) -> Callable[[], None]:
        def finished() -> None:
            self._finished.append(reply)
            if len(self._finished) == 1:
                asyncio.get_running_loop().call_later(ACK_DELAY_S, self._flush)

        return finished

    def _flush(self) -> None:
        finished, self._finished = self._finished, []
        for reply in finished:
            self._link.publish(reply, b"+ACK")


def _resource_of(subject: str) -> str | None:
    """`<prefix>.req.<service>.any` or `….at.<resource>`."""
    tokens = subject.split(".", 4)
    return decode_token(tokens[4]) if len(tokens) == 5 else None
