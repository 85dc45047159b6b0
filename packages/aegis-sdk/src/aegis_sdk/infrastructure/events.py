"""Storing messages in a stream of JetStream, side by side or together: events, and the requests that are made of them.

The order of messages is their caller's care (application/turns/lanes.py): what is given to `each` may be stored in any
order, or in part. What is there already counts as stored, since each has a name of its own: an event its subject, a request
its id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from aegis_sdk.application.ports import AlreadyStored, StoreError
from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.events import Emitted
from aegis_sdk.nats.link import Link, Stored, stored_or_why
from aegis_sdk.nats.wire import Message

M = TypeVar("M")
Post = tuple[str, bytes, dict[str, str]]


class NatsAppender(Generic[M]):
    """Appender (application/turns/lanes.py). `post` makes (subject, payload, headers) of one message."""

    def __init__(self, link: Link, post: Callable[[M], Post]) -> None:
        self._link = link
        self._post = post

    async def each(self, messages: Sequence[M], *, timeout_s: float) -> Sequence[StoreError | None]:
        answers = await self._link.ask_all(list(map(self._post, messages)), timeout_s=timeout_s)
        return list(map(_why_not, answers))

    async def together(self, messages: Sequence[M], *, timeout_s: float) -> None:
        await self._link.store_together(list(map(self._post, messages)), timeout_s=timeout_s)


def _why_not(answer: Message | StoreError) -> StoreError | None:
    """None: it is stored, by this or by an earlier try."""
    stored = answer if isinstance(answer, StoreError) else stored_or_why(answer)
    if isinstance(stored, Stored | AlreadyStored):
        return None
    return stored


def event_appender(link: Link, subjects: Subjects) -> NatsAppender[Emitted]:
    """To the stream of the emitting service, which takes one message a subject: a second one is refused (10077)."""

    def post(emitted: Emitted) -> Post:
        subject = subjects.emitted(emitted.service, emitted.event, emitted.resource, emitted.id)
        return subject, emitted.payload, emitted.headers()

    return NatsAppender(link, post)


def request_appender(link: Link, subjects: Subjects) -> NatsAppender[Request]:
    """To the subscriber's request stream. After the dedup window a second one is stored, too: sessions tell it (G3)."""

    def post(request: Request) -> Post:
        subject = subjects.request(request.service, request.resource)
        return subject, request.payload, request.headers()

    return NatsAppender(link, post)
