"""The fences in the services' journals.

A fence replaces the one before (rollup of its subject) and expects that one's sequence, so of two
control replicas that write one only the first succeeds.
"""

from __future__ import annotations

from collections.abc import Sequence

from aegis_sdk.contract.envelope import Fence
from aegis_sdk.contract.names import decode_token
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.errors import Unavailable

from aegis_control.application.ports import FenceWrite, NotWritten, StoredFence
from aegis_control.infrastructure.nats_buckets import publish_checked
from aegis_control.infrastructure.nats_link import (
    ERR_NO_STREAM,
    EXPECTED_SEQ,
    ROLLUP,
    ApiRefused,
    NatsLink,
    Outgoing,
    Stored,
)


class NatsJournal:
    """A `Journal`."""

    def __init__(self, link: NatsLink, subjects: Subjects) -> None:
        self._link = link
        self._subjects = subjects

    async def load_fences(self, service: str) -> dict[str, StoredFence]:
        stream, fences = self._subjects.journal_stream(service), self._subjects.fences(service)
        try:
            return {
                _resource(stored.subject): _fence(stored)
                async for stored in self._link.read_last_of_each(stream, fences)
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


def _resource(subject: str) -> str:
    """`<prefix>.jrn.<service>.<resource>.fence`"""
    return decode_token(subject.split(".")[3])


def _fence(stored: Stored) -> StoredFence:
    return StoredFence(Fence.model_validate_json(stored.payload), stored.seq)
