"""Makes room in the services' logs: what the trim reads, stores and removes there."""

from __future__ import annotations

from typing import Final

from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import TURN, EntryUnreadable
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.domain.turns.keeping import Keeping
from aegis_sdk.domain.turns.parsing import parse_entry
from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.codes import ERR_NO_STREAM, EXPECTED_SEQ, ROLLUP
from aegis_sdk.nats.jetstream import ApiRefused, JetStream, Outgoing, from_seq

from aegis_control.application.ports import Going

_MARKER: Final = "control"
"""Its gate shows where the reading ends: nobody writes under this name."""


class NatsLogSpace:
    """A `LogSpace`."""

    def __init__(self, js: JetStream, subjects: Subjects) -> None:
        self._js = js
        self._subjects = subjects

    async def old(self, service: str, *, keep_s: float) -> int:
        stream = self._subjects.journal_stream(service)
        try:
            return await self._js.first_younger(stream, keep_s) - 1
        except ApiRefused as error:
            if error.code == ERR_NO_STREAM:
                return 0
            raise Unavailable(f"log {stream}: {error}") from error

    async def newest(self, service: str, resource: str) -> tuple[Checkpoint | None, int]:
        names = LogSubjects(self._subjects, service)
        try:
            stored = await self._js.last_message(names.stream, names.checkpoint(resource))
        except ApiRefused as error:
            raise Unavailable(f"log {names.stream}: {error}") from error
        if stored is None:
            return None, 0
        try:
            return await self._whole(names, Checkpoint.decode(stored.payload)), stored.seq
        except ApiRefused as error:
            raise Unavailable(f"log {names.stream}: {error}") from error
        except ValueError as error:
            raise EntryUnreadable(f"{stored.subject}: {error}") from error

    async def _whole(self, names: LogSubjects, checkpoint: Checkpoint) -> Checkpoint:
        """With its parts. Raises: ApiRefused, Unavailable, ValueError."""
        data = b""
        for n in range(checkpoint.parts):
            subject = names.part(checkpoint.resource, checkpoint.id, n)
            part = await self._js.last_message(names.stream, subject)
            if part is None:
                raise Unavailable(f"{subject}: there is a newer checkpoint by now")
            data += part.payload
        return Checkpoint.decode(data) if data else checkpoint

    async def fold(self, service: str, keeping: Keeping, *, outcomes: bool) -> int:
        names = LogSubjects(self._subjects, service)
        end = await self._mark(names)
        filters = [names.own_anywhere, names.ends, names.gate(_MARKER)]
        filters += names.outcomes if outcomes else []
        seq = 0
        try:
            start = from_seq(keeping.begins_after + 1)
            async for stored in self._js.read(names.stream, filters, start):
                seq, words = stored.seq, names.words(stored.subject)
                header = stored.headers.get(TURN, "")
                entry = parse_entry(words, header, stored.payload, seq, stored.at_s)
                if entry is not None:
                    keeping.read(entry)
        except ApiRefused as error:
            raise Unavailable(f"log {names.stream}: {error}") from error
        if seq < end:
            raise Unavailable(f"log {names.stream} was read up to {seq} of {end}")
        return end

    async def _mark(self, names: LogSubjects) -> int:
        [seq] = await self._js.publish_all([Outgoing(names.gate(_MARKER), b"", {ROLLUP: "sub"})])
        if not isinstance(seq, int):
            raise Unavailable(f"log {names.stream}: {seq}")
        return seq

    async def keep(self, service: str, checkpoint: Checkpoint, *, after_seq: int) -> bool:
        names, resource = LogSubjects(self._subjects, service), checkpoint.resource
        head, parts = checkpoint.split(self._js.link.payload_bytes_max * 3 // 4)
        first = 0
        for n, part in enumerate(parts):
            subject = names.part(resource, checkpoint.id, n)
            [seq] = await self._js.publish_all([Outgoing(subject, part, {ROLLUP: "sub"})])
            if not isinstance(seq, int):
                return False
            first = first or seq
        headers = {EXPECTED_SEQ: str(after_seq), ROLLUP: "sub"} | head.headers()
        subject = names.checkpoint(resource)
        [seq] = await self._js.publish_all([Outgoing(subject, head.encode(), headers)])
        if not isinstance(seq, int):
            return False
        await self._drop_parts(names, resource, before=first or seq)
        return True

    async def _drop_parts(self, names: LogSubjects, resource: str, *, before: int) -> None:
        """Those of earlier checkpoints. Raises: Unavailable."""
        try:
            await self._purge(names.stream, names.parts(resource), before)
        except ApiRefused as error:
            raise Unavailable(f"log {names.stream}: {error}") from error

    async def remove(self, service: str, going: Going) -> int:
        """Gates first: without its entries a gate would mean something else (trimming.py)."""
        names = LogSubjects(self._subjects, service)
        behind = going.upto + 1
        todo = [(names.gate(writer), behind) for writer in going.writers]
        todo += [(names.claims(writer), behind) for writer in going.writers]
        todo += [(names.own_anywhere, min(behind, going.newest_own))]
        todo += [(subject, behind) for subject in names.outcomes]
        todo += [(names.group_outcomes, going.old + 1)]
        try:
            return sum([await self._purge(names.stream, *each) for each in todo if each[1] > 1])
        except ApiRefused as error:
            raise Unavailable(f"log {names.stream}: {error}") from error

    async def _purge(self, stream: str, subject: str, before: int) -> int:
        answer = await self._js.api(f"STREAM.PURGE.{stream}", {"filter": subject, "seq": before})
        return int(answer["purged"])
