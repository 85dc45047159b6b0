"""The services' journals: their fences, and removing what is past its retention.

A fence replaces the one before (rollup of its subject) and expects that one's sequence, so of two
control replicas that write one only the first succeeds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from aegis_sdk.contract.bodies import Fence
from aegis_sdk.contract.checkpoint import Checkpoint
from aegis_sdk.contract.envelope import Outcome
from aegis_sdk.contract.names import decode_token, encode_token
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.errors import InvalidName, Unavailable
from aegis_sdk.nats.codes import ERR_NO_STREAM, EXPECTED_SEQ, ROLLUP
from aegis_sdk.nats.jetstream import IN_FLIGHT_MAX, ApiRefused, JetStream, Kept, Outgoing

from aegis_control.application.ports import FenceWrite, NotWritten, StoredFence, Trimmed
from aegis_control.application.unreadable import said_by
from aegis_control.infrastructure.nats_buckets import publish_checked


class NatsJournal:
    """A `Journal`."""

    def __init__(self, link: JetStream, subjects: Subjects) -> None:
        self._link = link
        self._subjects = subjects

    async def load_fences(self, service: str) -> dict[str, StoredFence]:
        stream, fences = self._subjects.journal_stream(service), self._subjects.fences(service)
        try:
            reading = self._link.read_last_of_each(stream, fences)
            return {
                resource: _fence(stored)
                async for stored in reading
                if (resource := _resource(stored.subject)) is not None
            }
        except ApiRefused as error:
            if error.code == ERR_NO_STREAM:
                return {}
            raise Unavailable(f"journal {stream}: {error}") from error

    async def last_fence(self, service: str, resource: str) -> StoredFence | None:
        stream = self._subjects.journal_stream(service)
        subject = self._subjects.fence(service, resource)
        try:
            stored = await self._link.last_message(stream, subject)
        except ApiRefused as error:
            raise Unavailable(f"journal {stream}: {error}") from error
        return None if stored is None else _fence(stored)

    async def write_fences(
        self, service: str, writes: Sequence[FenceWrite]
    ) -> list[int | NotWritten]:
        return await publish_checked(
            self._link,
            [
                Outgoing(
                    self._subjects.fence(service, write.resource),
                    write.fence.model_dump_json().encode(),
                    {EXPECTED_SEQ: str(write.after_seq), ROLLUP: "sub"},
                )
                for write in writes
            ],
        )

    async def trim(self, service: str, resources: Sequence[str], *, keep_s: float) -> Trimmed:
        stream = self._subjects.journal_stream(service)
        try:
            return await self._trim(service, stream, resources, keep_s)
        except ApiRefused as error:
            if error.code == ERR_NO_STREAM:
                return Trimmed(0)
            raise Unavailable(f"journal {stream}: {error}") from error

    async def _trim(
        self, service: str, stream: str, resources: Sequence[str], keep_s: float
    ) -> Trimmed:
        kept_from = await self._link.first_younger(stream, keep_s)
        oldest = await self._link.first_of(stream, self._subjects.outcomes(service))
        if oldest is None or oldest.seq >= kept_from:
            return Trimmed(0)
        held_up_by, parts_from = "", kept_from
        checkpoints = await self._checkpoints(service, stream)
        for resource in resources:
            checkpoint = checkpoints.get(resource)
            covered = checkpoint.position if checkpoint else 0
            needed = await self._first_served(service, stream, resource, covered)
            if needed is not None and needed.seq < kept_from:
                kept_from, held_up_by = needed.seq, resource
            if checkpoint is not None and checkpoint.parts:
                parts_from = min(parts_from, checkpoint.first_seq)
        removed = 0
        for subject, before in self._subjects.trimmed(service, kept_from, parts_from):
            answer = await self._link.api(
                f"STREAM.PURGE.{stream}", {"filter": subject, "seq": before}
            )
            removed += int(answer["purged"])
        return Trimmed(removed, held_up_by)

    async def remove_torn(
        self, service: str, resources: Sequence[str], *, beginning_lost: bool
    ) -> None:
        stream = self._subjects.journal_stream(service)
        fences = {} if beginning_lost else await self.load_fences(service)
        try:
            checkpoints = await self._checkpoints(service, stream)
            torn = [name for name in resources if name not in fences and name not in checkpoints]
            purge = f"STREAM.PURGE.{stream}"
            filters = [f"{self._subjects.journal_of(service, name)}.>" for name in torn]
            for at in range(0, len(filters), IN_FLIGHT_MAX):
                chunk = filters[at : at + IN_FLIGHT_MAX]
                await asyncio.gather(*(self._link.api(purge, {"filter": f}) for f in chunk))
        except ApiRefused as error:
            if error.code != ERR_NO_STREAM:
                raise Unavailable(f"journal {stream}: {error}") from error

    async def _checkpoints(self, service: str, stream: str) -> dict[str, Checkpoint]:
        subject = self._subjects.checkpoint(service, None)
        found: dict[str, Checkpoint] = {}
        async for stored in self._link.read_last_of_each(stream, subject):
            resource = _resource(stored.subject)
            with contextlib.suppress(ValueError):  # one that can't be read covers nothing
                if resource is not None:
                    found[resource] = Checkpoint.decode(stored.payload)
        return found

    async def _first_served(
        self, service: str, stream: str, resource: str, position: int
    ) -> Kept | None:
        """The first outcome behind `position` that an active wrote: a later checkpoint will cover it."""
        subject = self._subjects.outcomes(service, resource)
        while True:
            outcome = await self._link.first_of(stream, subject, from_seq=position + 1)
            if outcome is None or _of_an_active(outcome):
                return outcome
            position = outcome.seq


def _of_an_active(stored: Kept) -> bool:
    """One that can't be read may be a newer version's, and is kept. What is no outcome at all is not."""
    try:
        return bool(Outcome.parse(stored.headers, stored.payload).request_seq)
    except KeyError:
        return False
    except ValueError:
        return True


def _resource(subject: str) -> str | None:
    """`<prefix>.jrn.<service>.<resource>.fence`; None if no resource is called so."""
    token = subject.split(".")[3]
    with contextlib.suppress(ValueError, InvalidName):
        resource = decode_token(token)
        if encode_token(resource) == token:
            return resource
    return None


_NO_FENCE: Final = Fence(epoch=0, owner="", incarnation="", grant="none", start_seq=0)


def _fence(stored: Kept) -> StoredFence:
    try:
        return StoredFence(Fence.model_validate_json(stored.payload), stored.seq)
    except ValueError as error:
        return StoredFence(_NO_FENCE, stored.seq, unreadable=said_by(error))
