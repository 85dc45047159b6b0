"""The dead letters in JetStream, and the way back into a request stream."""

from __future__ import annotations

from typing import Final

from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.events import Emitted
from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.jetstream import ApiRefused, JetStream, Outgoing, Refusal

from aegis_control.application.ports import RequestsFull
from aegis_control.infrastructure.nats_outcomes import NatsOutcomes
from aegis_control.infrastructure.nats_reading import last, stream_info

_AROUND_ITS_LETTER_S: Final = 600.0


class NatsLetters:
    """`Letters`."""

    def __init__(self, link: JetStream, subjects: Subjects) -> None:
        self._link = link
        self._subjects = subjects
        self._outcomes = NatsOutcomes(link, subjects)

    async def find(self, request_id: str) -> DeadLetter | None:
        subject = self._subjects.dead_letter_anywhere(request_id)
        stored = await last(self._link, self._subjects.dlq_stream, subject)
        try:
            return None if stored is None else DeadLetter.parse(stored.headers, stored.payload)
        except (KeyError, ValueError) as error:
            raise Unavailable(
                f"the dead letter of {request_id} can't be read: {error!r}"
            ) from error

    async def outcome(self, service: str, request_id: str) -> Outcome | None:
        ended = await self._outcomes.named(service, request_id)
        if ended is None:
            subject = self._subjects.dead_letter(service, request_id)
            letter = await last(self._link, self._subjects.dlq_stream, subject)
            if letter is not None:  # it was kept shortly before, or after, its outcome was stored
                since_s = letter.at_s - _AROUND_ITS_LETTER_S
                ended = await self._outcomes.shared(service, request_id, since_s=since_s)
        return None if ended is None else ended.outcome

    async def send(self, request: Request) -> None:
        subject = self._subjects.request(request.service, request.resource)
        message = Outgoing(subject, request.payload, request.headers())
        await self._store(message, f"the requests of {request.service}")

    async def emit(self, event: Emitted) -> None:
        subject = self._subjects.emitted(event.service, event.event, event.resource, event.id)
        message = Outgoing(subject, event.payload, event.headers())
        await self._store(message, f"the events of {event.service}")

    async def _store(self, message: Outgoing, what: str) -> None:
        [result] = await self._link.publish_all([message])
        if result is None:
            raise Unavailable(f"{what} were not acknowledged")
        if isinstance(result, Refusal) and not result.is_there:
            raise RequestsFull(f"{what}: {result.message}")

    async def drop(self, service: str, request_id: str) -> None:
        await self._purge(self._subjects.dead_letter(service, request_id))

    async def count(self, service: str) -> int:
        asked = {"subjects_filter": self._subjects.dead_letter(service, ">")}
        info = await stream_info(self._link, self._subjects.dlq_stream, asked)
        return sum((info["state"].get("subjects") or {}).values()) if info else 0

    async def drop_all(self, service: str) -> None:
        await self._purge(self._subjects.dead_letter(service, ">"))

    async def _purge(self, subject: str) -> None:
        try:
            await self._link.api(f"STREAM.PURGE.{self._subjects.dlq_stream}", {"filter": subject})
        except ApiRefused as error:
            raise Unavailable(f"the dead letters {subject} were not removed: {error}") from error
