"""Reads on the wire: at an instance, and of a caller. Core NATS request and reply; no stream has a part in it.

That an answer misses nothing is not decided here but by proofs (domain/turns/reads.py, ADR 0029). What the wire adds:

- A read goes to a subject of its resource and of what is wanted, the active or a standby. An instance that was replaced and
  does not know it may still subscribe there. It gets the read and must be silent or refuse, unless a proof holds.
- Those that follow a resource share a queue group, so each read at a standby reaches one of them. At the active there is no
  queue: while a resource moves, both owners may get the read, and the one that can prove it answers.
- A read that is lost, or whose answer is, has changed nothing. Its caller asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from nats.aio.subscription import Subscription

from aegis_sdk.application.ports import StoreMissing, StoreUnreachable
from aegis_sdk.application.turns.reads import Asked
from aegis_sdk.contract.envelope import OUTCOME, Outcome, Request
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.reads import READ, Answered, Refusal, Wanted
from aegis_sdk.contract.turns.sent import ANSWER, POSITION
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.wire import Message
from aegis_sdk.telemetry import log

QUEUE: Final = "aegis-standbys"
"""One of those that follow a resource is given a read."""
_NOBODY: Final = "503"


class NatsReadsIn:
    """ReadsIn (application/turns/reads.py), of one instance.

    `_subscriptions` holds what is subscribed to, by resource and place. An instance may be under both for a moment, when it
    takes over what it followed.
    """

    def __init__(self, link: Link, names: LogSubjects) -> None:
        self._link = link
        self._names = names
        self._subscriptions: dict[tuple[str, bool], Subscription] = {}
        self.on_read: Callable[[Asked], None] = lambda asked: None

    def serve(self, resources: Iterable[str], *, at_standby: bool) -> None:
        new = [name for name in resources if (name, at_standby) not in self._subscriptions]
        subjects = [self._names.read(name, at_standby=at_standby) for name in new]
        queue = QUEUE if at_standby else ""
        made = self._link.subscribe_all(subjects, self._receive, queue=queue)
        self._subscriptions |= {
            (name, at_standby): each for name, each in zip(new, made, strict=True)
        }

    def leave(self, resources: Iterable[str], *, at_standby: bool) -> None:
        found = [self._subscriptions.pop((name, at_standby), None) for name in resources]
        self._link.drop_all([each for each in found if each is not None])

    def leave_all(self) -> None:
        self._link.drop_all(list(self._subscriptions.values()))
        self._subscriptions.clear()

    def answer(self, asked: Asked, outcome: Outcome, position: str) -> None:
        headers = {OUTCOME: outcome.words(), POSITION: position}
        self._link.publish(asked.reply, outcome.body, headers)

    def refuse(self, asked: Asked, why: Refusal, said: str) -> None:
        self._link.publish(asked.reply, said.encode(), {ANSWER: why.value})

    def _receive(self, message: Message) -> None:
        headers = message.headers
        try:
            resource, at_standby = self._names.read_of(message.subject)
            wanted = Wanted.parse(headers[READ])
            request = Request.parse(
                headers, message.data, service=self._names.service, resource=resource
            )
        except (KeyError, ValueError) as error:
            log.error("request_unreadable", subject=message.subject, error=repr(error))
            return
        self.on_read(Asked(request, wanted, message.reply, at_standby=at_standby))


class NatsReadsOut:
    """ReadsOut (application/reading.py), of one client.

    `ask` raises StoreMissing at the speed of a round trip when nobody subscribes, and StoreUnreachable for everything that
    leaves the question open, an answer of another version among it. All may be asked again.
    """

    def __init__(self, link: Link, subjects: Subjects) -> None:
        self._link = link
        self._subjects = subjects
        self._names: dict[str, LogSubjects] = {}

    async def ask(
        self, request: Request, wanted: Wanted, *, at_standby: bool, timeout_s: float
    ) -> Answered:
        names = self._names.get(request.service)
        if names is None:
            names = self._names[request.service] = LogSubjects(self._subjects, request.service)
        subject = names.read(request.resource or "", at_standby=at_standby)
        headers = request.headers()
        headers[READ] = wanted.header()
        message = await self._link.ask(subject, request.payload, headers, timeout_s=timeout_s)
        if message.status == _NOBODY:
            raise StoreMissing(f"nobody answers on {subject}")
        try:
            return Answered.parse(message.headers, message.data)
        except (KeyError, ValueError) as error:
            raise StoreUnreachable(f"an answer that can't be read: {error!r}") from error
