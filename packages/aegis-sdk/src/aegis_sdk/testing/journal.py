"""Journal and JournalReader (application/ports.py) on the bus."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from aegis_sdk.contract.bodies import ErrorBody, Fence
from aegis_sdk.contract.checkpoint import Checkpoint
from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.names import NO_RESOURCE
from aegis_sdk.contract.subjects import resource_token
from aegis_sdk.domain.journal import Entry, EntryKind
from aegis_sdk.testing.connection import MemoryConnection
from aegis_sdk.testing.faults import Flow, Op
from aegis_sdk.testing.streams import JournalStream, Key, attempt_key, outcome_key, outcome_of


class MemoryJournal:
    """Writes, reads and follows journals over one link."""

    def __init__(self, link: MemoryConnection) -> None:
        self._link = link
        self._bus = link.bus

    # --- writing --------------------------------------------------------------------------------------
    async def commit(self, request: Request, outcome: Outcome, *, fence_seq: int | None) -> int:
        def store() -> int:
            key, checked = outcome_key(request), _fence_for(request, fence_seq)
            seq = self._stream(request.service).write(
                key, outcome.payload(), outcome.headers(), fence_seq=checked
            )
            self._bus.republish(request.request_id, outcome)
            return seq

        return await self._link.call(Op.COMMIT, store)

    async def commit_together(
        self, commits: Sequence[tuple[Request, Outcome]], *, fence_seq: int
    ) -> int:
        def store() -> int:
            stream = self._stream(commits[0][0].service)
            seq = stream.write_together(
                [(outcome_key(r), outcome.payload(), outcome.headers()) for r, outcome in commits],
                fence_seq=fence_seq,
            )
            for request, outcome in commits:
                self._bus.republish(request.request_id, outcome)
            return seq

        return await self._link.call(Op.COMMITS, store)

    async def note_attempt(self, request: Request, n: int, *, fence_seq: int | None) -> None:
        await self._link.call(
            Op.ATTEMPT,
            lambda: self._stream(request.service).write(
                attempt_key(request),
                str(n).encode(),
                {},
                rollup=True,
                fence_seq=_fence_for(request, fence_seq),
            ),
        )

    async def claim(self, service: str, resource: str, fence: Fence, *, after_seq: int) -> int:
        key = (resource_token(resource), EntryKind.FENCE, "")
        payload = fence.model_dump_json().encode()
        return await self._write_state(service, key, payload, after_seq)

    async def store_checkpoint(
        self, service: str, resource: str, checkpoint: Checkpoint, *, fence_seq: int
    ) -> tuple[int, Checkpoint]:
        part_bytes = self._bus.limits.payload_bytes_max // 2
        if len(checkpoint.values) > part_bytes:
            checkpoint = await self._store_parts(
                service, resource, checkpoint, part_bytes, fence_seq
            )
        key = (resource_token(resource), EntryKind.CHECKPOINT, "")
        return await self._write_state(service, key, checkpoint.encode(), fence_seq), checkpoint

    async def forget_parts(self, service: str, resource: str, checkpoint_id: int) -> None:
        def forget() -> None:
            self._stream(service).remove_parts(resource_token(resource), f"{checkpoint_id}.")

        await self._link.call(Op.CHECKPOINT, forget)

    async def _store_parts(
        self, service: str, resource: str, checkpoint: Checkpoint, part_bytes: int, fence_seq: int
    ) -> Checkpoint:
        values, seqs = checkpoint.values, []
        for n, at in enumerate(range(0, len(values), part_bytes)):
            key = (resource_token(resource), EntryKind.PART, f"{checkpoint.position}.{n}")
            part = values[at : at + part_bytes]
            seqs.append(await self._write_state(service, key, part, fence_seq))
        return replace(checkpoint, values=b"", parts=len(seqs), first_seq=seqs[0])

    async def _write_state(self, service: str, key: Key, payload: bytes, fence_seq: int) -> int:
        return await self._link.call(
            Op.CHECKPOINT,
            lambda: self._stream(service).write(key, payload, {}, rollup=True, fence_seq=fence_seq),
        )

    async def dead_letter(self, request: Request, outcome: Outcome) -> None:
        letter = _letter(request, outcome)

        def store() -> None:
            self._bus.limits.check_size(letter.headers(), request.payload)
            self._bus.dead_letters.setdefault(request.request_id, (request, outcome))

        await self._link.call(Op.DEAD_LETTER, store)

    # --- reading --------------------------------------------------------------------------------------
    async def outcome(self, request: Request, *, anywhere: bool = False) -> Outcome | None:
        def read() -> Outcome | None:
            stream = self._stream(request.service)
            entry = (
                stream.outcome_anywhere(request.request_id)
                if anywhere
                else stream.get(outcome_key(request))
            )
            return None if entry is None else outcome_of(entry)

        return await self._link.call(Op.READ, read)

    async def children(self, service: str, parent_token: str) -> list[str]:
        def read() -> list[str]:
            return [
                name
                for (_, kind, name), _ in self._stream(service).entries()
                if kind is EntryKind.OUTCOME and name.startswith(f"{parent_token}.")
            ]

        return await self._link.call(Op.READ, read)

    async def attempts(self, request: Request) -> int:
        def read() -> int:
            entry = self._stream(request.service).get(attempt_key(request))
            return 0 if entry is None else int(entry.payload)

        return await self._link.call(Op.READ, read)

    async def start_of(self, service: str, resources: Sequence[str]) -> Mapping[str, int]:
        def read() -> dict[str, int]:
            stream = self._stream(service)
            starts = {}
            for resource in resources:
                entry = stream.get((resource_token(resource), EntryKind.CHECKPOINT, ""))
                if entry is not None:
                    starts[resource] = entry.seq
                    with contextlib.suppress(ValueError):
                        starts[resource] = Checkpoint.decode(entry.payload).first_seq or entry.seq
            return starts

        return await self._link.call(Op.READ, read)

    # --- following ------------------------------------------------------------------------------------
    async def mark(self, service: str) -> int:
        key = (NO_RESOURCE, EntryKind.MARKER, "")
        return await self._link.call(
            Op.MARKER, lambda: self._stream(service).write(key, b"", {}, rollup=True)
        )

    async def follow(
        self,
        service: str,
        *,
        whole: Sequence[str],
        fences: Sequence[str],
        from_seq: int | None,
        on_entry: Callable[[Entry], None],
    ) -> MemoryFollower:
        return MemoryFollower(
            self._link,
            self._stream(service),
            whole=frozenset(map(resource_token, whole)),
            fences=frozenset(map(resource_token, fences)),
            next_seq=self._stream(service).last_seq + 1 if from_seq is None else max(1, from_seq),
            on_entry=on_entry,
        )

    def _stream(self, service: str) -> JournalStream:
        return self._bus.journal(service)


class MemoryFollower:
    """FollowSource: reads on whenever entries were stored or the link lets them through again."""

    def __init__(
        self,
        link: MemoryConnection,
        stream: JournalStream,
        *,
        whole: frozenset[str],
        fences: frozenset[str],
        next_seq: int,
        on_entry: Callable[[Entry], None],
    ) -> None:
        self._link = link
        self._stream = stream
        self._whole = whole
        self._fences = fences
        self._next_seq = next_seq
        self._on_entry = on_entry
        self._stopped = False
        self._read_more = asyncio.Event()
        stream.listeners.append(self._wake)
        link.add_pump(Flow.ENTRIES, self._wake)
        self._wake()

    @property
    def lag_entries(self) -> int:
        return max(0, self._stream.last_seq + 1 - self._next_seq)

    @property
    def read_to(self) -> int:
        return self._next_seq - 1

    async def reached(self, seq: int) -> None:
        while self.read_to < seq:
            self._read_more.clear()
            await self._read_more.wait()

    async def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._stream.listeners.remove(self._wake)
            self._link.drop_pump(Flow.ENTRIES, self._wake)

    def _wake(self) -> None:
        self._link.bus.soon(self._pump)

    def _pump(self) -> None:
        while not self._stopped and self._link.lets(Flow.ENTRIES) and self.lag_entries:
            found = self._stream.at(self._next_seq)
            if found is not None and self._wants(found[0]):
                self._on_entry(found[1])
            self._next_seq += 1
            self._read_more.set()

    def _wants(self, key: Key) -> bool:
        token, kind, _ = key
        return token in self._whole or (kind is EntryKind.FENCE and token in self._fences)


def _fence_for(request: Request, fence_seq: int | None) -> int | None:
    return None if request.resource is None else fence_seq


def _letter(request: Request, outcome: Outcome) -> DeadLetter:
    error = ErrorBody.model_validate_json(outcome.body)
    return DeadLetter(request, error.code, error.message)
