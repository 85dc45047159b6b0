"""The journal in JetStream: commits, reads from the leader, attempts, checkpoints, and following.

It translates between our values and subjects, headers and API calls (docs/protocol.md); who may commit
and what an entry means is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from aegis_sdk.application.ports import FenceRefused, FollowSource, StoreMissing
from aegis_sdk.contract.bodies import Fence
from aegis_sdk.contract.checkpoint import Checkpoint
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.names import NO_RESOURCE, decode_token
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.domain.journal import Entry, EntryKind
from aegis_sdk.infrastructure.consumer import Meta, PullLoop
from aegis_sdk.infrastructure.letters import NatsLetters
from aegis_sdk.infrastructure.log_watch import LogWatch
from aegis_sdk.infrastructure.messages import last_message
from aegis_sdk.nats.codes import EXPECTED_SEQ, EXPECTED_SUBJECT, ROLLUP, TTL
from aegis_sdk.nats.link import Link, Stored
from aegis_sdk.nats.wire import Message

COMMIT_TIMEOUT_S: Final = 2.0
READ_TIMEOUT_S: Final = 2.0
FOLLOW_CREDIT: Final = 256
"""More reads no faster, and holds the reader's loop, and commits at the server, up for longer at a time."""
FOLLOW_INACTIVE_S: Final = 15.0
"""After this long without its reader the server drops a follower's consumer."""
FILTERS_MAX: Final = 100
"""Beyond it the whole journal is followed. The server reads through many filters slowly, the more so the
longer the journal: 1,000 fences took 150 ms to arrive through 1,000 filters, and about 10 ms without."""
CHECKPOINTS_A_READ: Final = 500


class NatsJournal:
    """Journal and JournalReader (application/ports.py) over one connection."""

    def __init__(
        self,
        link: Link,
        subjects: Subjects,
        *,
        outcome_ttl_s: float = 86_400.0,
        watch: LogWatch | None = None,
    ) -> None:
        """`watch`: notices when the journal of the service it names is not the one it was."""
        self._link = link
        self._subjects = subjects
        self._letters = NatsLetters(link, subjects)
        self._ttl = f"{int(outcome_ttl_s)}s"
        self._watch = watch or LogWatch(link, subjects, "", "")

    # --- writing ------------------------------------------------------------------------------------------
    async def commit(self, request: Request, outcome: Outcome, *, fence_seq: int | None) -> int:
        watched = request.service == self._watch.service
        if watched and not self._watch.is_sure:
            await self._watch.make_sure()
        headers = outcome.headers()
        self._add_check(headers, request, fence_seq)
        subject = self._subjects.outcome(request.service, request.resource, request.request_id)
        stored = await self._store(
            request.service, request.resource, subject, outcome.payload(), headers
        )
        if watched:
            self._watch.stored(stored.seq, subject)
        return stored.seq

    async def commit_together(
        self, commits: Sequence[tuple[Request, Outcome]], *, fence_seq: int
    ) -> int:
        service = commits[0][0].service
        watched = service == self._watch.service
        if watched and not self._watch.is_sure:
            await self._watch.make_sure()
        posts = []
        for request, outcome in commits:
            headers = outcome.headers()
            self._add_check(headers, request, fence_seq)
            subject = self._subjects.outcome(request.service, request.resource, request.request_id)
            posts.append((subject, outcome.payload(), headers))
        try:
            stored = await self._link.store_together(posts, timeout_s=COMMIT_TIMEOUT_S)
        except (FenceRefused, StoreMissing) as error:
            if watched:
                await self._watch.refused(commits[0][0].resource, fence_seq, error)
            raise
        if watched:
            self._watch.stored(stored.seq, posts[-1][0])
        return stored.seq

    async def note_attempt(self, request: Request, n: int, *, fence_seq: int | None) -> None:
        headers = {ROLLUP: "sub"}
        self._add_check(headers, request, fence_seq)
        service, resource = request.service, request.resource
        subject = self._subjects.attempt(service, resource, request.request_id)
        await self._store(service, resource, subject, str(n).encode(), headers)

    async def _store(
        self,
        service: str,
        resource: str | None,
        subject: str,
        payload: bytes,
        headers: dict[str, str],
    ) -> Stored:
        """Raises: FenceRefused only where there is a newer fence; StoreUnreachable in a journal that lost it."""
        try:
            return await self._link.store(subject, payload, headers, timeout_s=COMMIT_TIMEOUT_S)
        except (FenceRefused, StoreMissing) as error:
            if service == self._watch.service:
                await self._watch.refused(resource, int(headers.get(EXPECTED_SEQ, 0)), error)
            raise

    def _add_check(self, headers: dict[str, str], request: Request, fence_seq: int | None) -> None:
        if fence_seq is not None and request.resource is not None:
            headers[EXPECTED_SEQ] = str(fence_seq)
            headers[EXPECTED_SUBJECT] = self._subjects.fence(request.service, request.resource)
        elif request.resource is None:
            headers[TTL] = self._ttl

    async def claim(self, service: str, resource: str, fence: Fence, *, after_seq: int) -> int:
        if service == self._watch.service and not self._watch.is_sure:
            await self._watch.make_sure()
        subject, check = self._subjects.fence(service, resource), {EXPECTED_SEQ: str(after_seq)}
        payload = fence.model_dump_json().encode()
        stored = await self._store(service, resource, subject, payload, check | {ROLLUP: "sub"})
        if service == self._watch.service:
            self._watch.placed(stored.seq)
        return stored.seq

    async def store_checkpoint(
        self, service: str, resource: str, checkpoint: Checkpoint, *, fence_seq: int
    ) -> tuple[int, Checkpoint]:
        checked = {
            EXPECTED_SEQ: str(fence_seq),
            EXPECTED_SUBJECT: self._subjects.fence(service, resource),
            ROLLUP: "sub",
        }
        part_bytes = self._link.payload_bytes_max // 2
        if len(checkpoint.values) > part_bytes:
            checkpoint = await self._store_parts(service, resource, checkpoint, checked, part_bytes)
        subject = self._subjects.checkpoint(service, resource)
        stored = await self._store(service, resource, subject, checkpoint.encode(), checked)
        return stored.seq, checkpoint

    async def forget_parts(self, service: str, resource: str, checkpoint_id: int) -> None:
        stream = self._subjects.journal_stream(service)
        parts = self._subjects.checkpoint_parts(service, resource, checkpoint_id)
        await self._link.api(f"STREAM.PURGE.{stream}", {"filter": parts})

    async def _store_parts(
        self,
        service: str,
        resource: str,
        checkpoint: Checkpoint,
        checked: dict[str, str],
        part_bytes: int,
    ) -> Checkpoint:
        values = checkpoint.values
        parts = [values[at : at + part_bytes] for at in range(0, len(values), part_bytes)]
        first_seq = 0
        for n, part in enumerate(parts):
            subject = self._subjects.checkpoint_part(service, resource, checkpoint.position, n)
            stored = await self._store(service, resource, subject, part, checked)
            first_seq = first_seq or stored.seq
        return replace(checkpoint, values=b"", parts=len(parts), first_seq=first_seq)

    async def dead_letter(self, request: Request, outcome: Outcome) -> None:
        await self._letters.dead_letter(request, outcome)

    # --- reading ------------------------------------------------------------------------------------------
    async def outcome(self, request: Request, *, anywhere: bool = False) -> Outcome | None:
        subject = (
            self._subjects.outcome_anywhere(request.service, request.request_id)
            if anywhere
            else self._subjects.outcome(request.service, request.resource, request.request_id)
        )
        found = await last_message(
            self._link, self._subjects.journal_stream(request.service), subject
        )
        return None if found is None else Outcome.found(found.headers, found.payload)

    async def children(self, service: str, parent_token: str) -> list[str]:
        stream = self._subjects.journal_stream(service)
        wanted = self._subjects.outcome_anywhere(service, f"{parent_token}.*")
        found: list[str] = []
        while True:
            info = await self._link.api(
                f"STREAM.INFO.{stream}",
                {"subjects_filter": wanted, "offset": len(found)},
                timeout_s=READ_TIMEOUT_S,
            )
            page = info["state"].get("subjects") or {}
            found += [".".join(subject.split(".")[5:]) for subject in page]
            if not page or len(found) >= int(info.get("total", 0)):
                return found

    async def attempts(self, request: Request) -> int:
        subject = self._subjects.attempt(request.service, request.resource, request.request_id)
        found = await last_message(
            self._link, self._subjects.journal_stream(request.service), subject
        )
        try:
            return 0 if found is None else int(found.payload)
        except ValueError:
            return 1  # begun at least once

    async def start_of(self, service: str, resources: Sequence[str]) -> Mapping[str, int]:
        starts: dict[str, int] = {}
        for at in range(0, len(resources), CHECKPOINTS_A_READ):
            chunk = resources[at : at + CHECKPOINTS_A_READ]
            starts |= await self._starts(service, chunk)
        return starts

    async def _starts(self, service: str, resources: Sequence[str]) -> dict[str, int]:
        subjects = [self._subjects.checkpoint(service, resource) for resource in resources]
        messages = await self._link.collect(
            f"$JS.API.DIRECT.GET.{self._subjects.journal_stream(service)}",
            {"multi_last": subjects},
            timeout_s=READ_TIMEOUT_S,
        )
        by_subject = {message.headers.get("Nats-Subject", ""): message for message in messages}
        starts = {}
        for resource, subject in zip(resources, subjects, strict=True):
            if (message := by_subject.get(subject)) is not None:
                starts[resource] = int(message.headers["Nats-Sequence"])
                with contextlib.suppress(ValueError):  # who reads it is told
                    starts[resource] = Checkpoint.decode(message.data).first_seq or starts[resource]
        return starts

    # --- following ----------------------------------------------------------------------------------------
    async def mark(self, service: str) -> int:
        stored = await self._link.store(
            self._subjects.marker(service), b"", {ROLLUP: "sub"}, timeout_s=COMMIT_TIMEOUT_S
        )
        if service == self._watch.service:
            self._watch.placed(stored.seq)
        return stored.seq

    async def follow(
        self,
        service: str,
        *,
        whole: Sequence[str],
        fences: Sequence[str],
        from_seq: int | None,
        on_entry: Callable[[Entry], None],
    ) -> FollowSource:
        follower = _Follower(
            self._link,
            self._subjects.journal_stream(service),
            self._filters(service, whole, fences),
            from_seq,
            on_entry,
            self._watch,
        )
        await follower.start()
        return follower

    def _filters(self, service: str, whole: Sequence[str], fences: Sequence[str]) -> list[str]:
        marker = self._subjects.marker(service)
        if not whole and len(fences) > 1:
            return [marker, self._subjects.fences(service)]
        if len(whole) + len(fences) > FILTERS_MAX:
            return [self._subjects.journal(service)]
        return [
            marker,
            *(f"{self._subjects.journal_of(service, resource)}.>" for resource in whole),
            *(self._subjects.fence(service, resource) for resource in fences),
        ]


class _Follower:
    """Reads the journal in order for ever; after any gap it goes on behind the last entry read."""

    def __init__(
        self,
        link: Link,
        stream: str,
        filters: list[str],
        from_seq: int | None,
        on_entry: Callable[[Entry], None],
        watch: LogWatch,
    ) -> None:
        self._link = link
        self._watch = watch
        self._stream = stream
        self._filters = filters
        self._next_seq = from_seq
        self._on_entry = on_entry
        self.read_to = 0
        self._read_more = asyncio.Event()
        self._loop = PullLoop(
            link,
            stream,
            make=self._make,
            on_message=self._read,
            credit=FOLLOW_CREDIT,
            in_order=True,
            holds=False,
            owned=True,
        )

    @property
    def lag_entries(self) -> int:
        return self._loop.pending

    async def start(self) -> None:
        await self._loop.start()

    async def reached(self, seq: int) -> None:
        while self.read_to < seq:
            self._read_more.clear()
            await self._read_more.wait()

    async def stop(self) -> None:
        await self._loop.stop()

    async def _make(self, again: bool, timeout_s: float) -> str:
        start: dict[str, Any] = {"deliver_policy": "new"}
        if self._next_seq is not None:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._next_seq}
        name, read_to, self._loop.pending = await make_reader(
            self._link, self._stream, self._filters, start, timeout_s=timeout_s
        )
        # Made again it must begin there too, though nothing was read yet.
        self._next_seq = self._next_seq or read_to + 1
        return name

    def _read(self, message: Message, meta: Meta) -> None:
        self._next_seq = meta.stream_seq + 1
        entry = parse_entry(message, meta.stream_seq)
        if entry is not None:
            if entry.kind is EntryKind.OUTCOME:
                self._watch.read(entry.seq, message.subject)
            self._on_entry(entry)
        self.read_to = meta.stream_seq
        self._watch.passed(meta.stream_seq, message.subject, meta.stored_s)
        self._read_more.set()


def parse_entry(message: Message, seq: int) -> Entry | None:
    """`aegis.jrn.<service>.<resource>.<kind>[.<name>]`; None for group requests and kinds of a newer version."""
    tokens = message.subject.split(".", 5)
    if len(tokens) < 5 or tokens[3] == NO_RESOURCE:
        return None  # of the group, not of a resource that is called so
    try:
        resource, kind = decode_token(tokens[3]), EntryKind(tokens[4])
    except ValueError:
        return None
    name = tokens[5] if len(tokens) > 5 else ""
    return Entry(seq, resource, kind, name, message.headers, message.data)


async def make_reader(
    link: Link,
    stream: str,
    filters: Sequence[str],
    start: Mapping[str, Any],
    *,
    timeout_s: float,
) -> tuple[str, int, int]:
    """An ephemeral consumer without acknowledgements: its name, the sequence behind which it begins, and
    how much it has to deliver now.

    Raises: StoreError.
    """
    config: dict[str, Any] = {
        "ack_policy": "none",
        "replay_policy": "instant",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": int(FOLLOW_INACTIVE_S * 1e9),
        **start,
    }
    if len(filters) == 1:
        config["filter_subject"] = filters[0]
    else:
        config["filter_subjects"] = list(filters)
    made = await link.api(
        f"CONSUMER.CREATE.{stream}",
        {"stream_name": stream, "config": config},
        timeout_s=timeout_s,
    )
    return (
        str(made["name"]),
        int(made["delivered"]["stream_seq"]),
        int(made.get("num_pending", 0)),
    )
