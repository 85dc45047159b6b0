"""Stores to a service's log: turns and singles as one writer, and gates, claims, ownership entries and ends.

A turn is stored under the exact subject of its writer's gate (R3). What becomes of it is told to `on_stored` and its
siblings, from the connection's reading itself: no task and no future is made for it. A try without an answer is
repeated as it is, which is harmless: its subject takes one message, and if the gate has moved it is refused.

Theory of operation. The core (domain/turns/writer.py) decides what is in an entry and which gate it names, and hands it
over as a `Write`. From then on this class owes it exactly one word about it, however long that takes:

- `on_stored`: the server acknowledged this try.
- `on_refused`: the gate has moved (10071). No proof that an earlier try is not in the log: its answer may have been lost
  and the gate moved since. The core waits for the newer gate to be read, and knows then (R7).
- `on_taken`: the subject holds an entry (10077). It is this one, by an earlier try, or another process's that has the same
  identity (R10). The reader brings it, and its nonce tells.
- `on_clashed`: of a batch. A single in it has its outcome already, so nothing of the batch is stored.

All else is no word: no leader, no room, "busy", a lost connection. The try is sent again as it is, since nobody but the
server knows what became of the last one. A journal without room holds everything up, and is said aloud; nothing is given up
for it.

On a new connection the core asks for silence instead (`forget_unanswered`): it stores a claim and a gate, and when it has read
these it has read what became of each earlier try. An answer that comes for a forgotten try finds no token.

A write that has singles or checkpoints with it goes as an atomic batch, by a task of its own, since it has several
steps. Concurrent checks of one gate refuse each other on three nodes (10164); in one batch there is one check.

A checkpoint that is larger than a message is stored in parts first, and then by its head, which alone counts. A crash
between them leaves parts that nobody names; those of older checkpoints are purged after the next head. Parts carry no check
of the gate, the head does: a replaced writer can leave useless parts behind, and never a checkpoint.

What it rests on: one message a subject with `discard new`, the check of one exact subject's last sequence (R3), rollup by
subject, per-message time to live, and atomic batches (contract/turns/streams.py sets all of them).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from aegis_sdk.application.outcomes import given_up
from aegis_sdk.application.ports import (
    AlreadyStored,
    GateRefused,
    StoreError,
    StoreFull,
    StoreMissing,
    StoreTooLarge,
    StoreUnreachable,
)
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import (
    PAYLOAD_KEPT_BYTES_MAX,
    Moves,
    encode_record,
    noted,
    turn_head,
    turn_header,
)
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.domain.turns.output import Save
from aegis_sdk.domain.turns.sessions import is_single
from aegis_sdk.domain.turns.work import TURN_BYTES_MAX, Work, Write
from aegis_sdk.infrastructure.log_watch import LogWatch
from aegis_sdk.infrastructure.messages import last_message
from aegis_sdk.infrastructure.turns.search import outcome_at, outcomes_up_to
from aegis_sdk.nats.codes import EXPECTED_SEQ, EXPECTED_SUBJECT, ROLLUP, TTL
from aegis_sdk.nats.link import Busy, Link, Stored, stored_or_why
from aegis_sdk.nats.wire import Message
from aegis_sdk.telemetry import log

ANSWER_S: Final = 2.0
"""A try that was not answered for so long is repeated."""
SWEEP_S: Final = 0.25
"""How often it is looked for such tries, while there are any."""
BUSY_WAIT_S: Final = 0.001
"""R3: a gate is being stored just now (10164)."""
SAY_FULL_AGAIN_S: Final = 30.0
TROUBLE_WAIT_S: Final = 0.05
"""No leader, no space: this too passes, or an operator sees to it."""
STORE_TIMEOUT_S: Final = 2.0
"""For one try of a single entry, or of a batch."""
OUTCOMES_KEPT: Final = "86400s"
"""Of group requests: nothing else removes them."""
PROOFS_KEPT: Final = "60s"
"""Nobody reads one: that the server took it was its use."""
LOOK_S: Final = 0.5
"""Between two looks at whether it is the same log."""
FEW: Final = 4
"""More are found by one reading of all headers."""
FINDS_AT_ONCE_MAX: Final = 64
"""Reads at the log's leader that are on their way together."""
FIND_SILENCE_S: Final = 10.0
"""How long nothing may come while the headers of a log are read; a long log may take minutes."""


class _Try:
    """A write on its way. It leaves the table with its one answer, or when it is forgotten; `sent_s` is of the last sending."""

    __slots__ = ("headers", "sent_s", "subject", "write")

    def __init__(self, write: Write, subject: str, headers: dict[str, str]) -> None:
        self.write = write
        self.subject = subject
        self.headers = headers
        self.sent_s = 0.0


class TurnLog:
    """The log of one service, for one writer. `nonce` is known to this process alone.

    Its host sets the four callbacks before it opens it, and closes it when the writer has stopped. Invariants: each write in
    `_tries` has no answer yet; the timer runs whenever there is one; all that names the writer's gate (turns, singles,
    checkpoints, proofs) goes through this object.
    """

    def __init__(
        self,
        link: Link,
        names: LogSubjects,
        *,
        writer: str,
        log_id: str = "",
        nonce: str,
        watch: LogWatch | None = None,
    ) -> None:
        """`watch` is asked whether it is still the same log before anything is claimed in it."""
        self._link = link
        self._names = names
        self._writer = writer
        self._gate = names.gate(writer)
        self._log_id = log_id
        self._watch = watch
        self._looked_s = 0.0
        self._said_full_s = -SAY_FULL_AGAIN_S
        self._head = turn_head(writer, log_id, nonce)
        self._tries: dict[str, _Try] = {}
        self._tokens = itertools.count(1)
        self._inbox = ""
        self._timer: asyncio.TimerHandle | None = None
        self.on_stored: Callable[[Write, float], None] = _nobody
        self.on_refused: Callable[[Write], None] = _nobody
        self._closed = False
        self._parted: set[str] = set()
        """Resources whose newest checkpoint is in parts."""
        self.on_clashed: Callable[[Write], None] = _nobody
        """One of its singles has an outcome already, and nothing of it is stored."""
        self.on_taken: Callable[[Write], None] = _nobody
        """Its subject holds an entry: this one, stored by an earlier try, or another."""

    async def open(self) -> None:
        """Listen for the answers to writes, on an inbox of their own. Raises: StoreUnreachable."""
        self._inbox = f"{self._link.client.new_inbox()}."
        await self._link.subscribe(f"{self._inbox}*", self._on_answer)

    def close(self) -> None:
        """Nothing more is told. What was sent may still be stored: the next writer's gate decides about it."""
        self._closed = True
        self._tries.clear()
        if self._timer is not None:
            self._timer.cancel()

    @property
    def outcome_bytes_max(self) -> int:
        """What one outcome may take, its reply and its change together. The rest of a message is for its line, the repeated
        payload, headers, and marks and notes in the first line.
        """
        return self._link.payload_bytes_max * 3 // 4

    @property
    def turn_bytes_max(self) -> int:
        """Beyond it a turn takes no further outcome: the last one may be as large as one can be."""
        return min(TURN_BYTES_MAX, self._link.payload_bytes_max // 8)

    @property
    def _kept_bytes_max(self) -> int:
        """Of a request's payload, in the entry of its outcome."""
        return min(PAYLOAD_KEPT_BYTES_MAX, self._link.payload_bytes_max // 16)

    # --- turns and singles ----------------------------------------------------------------------------------
    def store(self, write: Write) -> bool:
        """Send it; whether the server republishes its one outcome to its caller."""
        subject, headers = self._entry(write)
        if write.singles or write.saves:
            self._link.aside(self._store_batch(write, subject, headers))
            return False
        token = str(next(self._tokens))
        self._tries[token] = each = _Try(write, subject, headers)
        self._send(token, each)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        return len(write.works) == 1

    def _entry(self, write: Write) -> tuple[str, dict[str, str]]:
        """The entry's subject and headers; its content is made.

        A turn of one outcome is named after its request, so the server republishes it to its caller, which saves a hop. One of
        several can't be: its header lists them. What has no gate is of the group: no resource, no owner, and a time to live.
        """
        works, kept = write.works, self._kept_bytes_max
        write.content = self._first_line(write) + b"".join(
            [
                encode_record(work.request, work.outcome, kept)
                for work in works
                if work.outcome is not None
            ]
        )
        headers = turn_header([work.request.request_id for work in works])
        if write.gate:
            headers[EXPECTED_SEQ] = str(write.gate)
            headers[EXPECTED_SUBJECT] = self._gate
        else:
            headers[TTL] = OUTCOMES_KEPT
        if not write.k:
            first = works[0].request
            subject = self._names.single(first.resource, first.request_id)
        elif len(works) == 1:
            subject = self._names.turn_of_one(self._writer, write.k, works[0].request.request_id)
        else:
            subject = self._names.turn(self._writer, write.k)
        return subject, headers

    async def _store_batch(self, write: Write, subject: str, headers: dict[str, str]) -> None:
        """A turn with its singles and checkpoints: all of it or nothing, under the one check of the gate.

        It ends when the core was told, or the reader will tell it. The gate is checked by the turn alone, the first of the
        batch. "Already stored" may mean the turn (an earlier try of the batch is in the log), a single (somebody was
        first), or the server's memory of a batch's ids: so both are looked for, and in this order, since with the turn its
        singles are there, too. The acknowledgement has the last one's sequence, from which the first one's follows.
        """
        posts = [(subject, write.content, headers)]
        posts += [self._single(work) for work in write.singles]
        heads: list[tuple[str, bytes, dict[str, str]]] = []
        parted: dict[str, int] = {}
        while not self._closed:
            try:
                if self._watch is not None and not self._watch.is_sure:
                    await self._watch.make_sure()  # a new connection may bring another log
                if len(heads) < len(write.saves):
                    heads = [await self._head_of(checkpoint, parted) for checkpoint in write.saves]
                batch = [*posts, *heads]
                end = await self._link.store_together(batch, timeout_s=STORE_TIMEOUT_S)
            except GateRefused:
                self._look_at_log()
                self.on_refused(write)
                return
            except AlreadyStored:
                if await self._is_there(subject):
                    return  # an earlier try of it is in the log: the reader brings it
                if await self._is_there(*(single for single, _, _ in posts[1:])):
                    self.on_clashed(write)
                    return
                await asyncio.sleep(TROUBLE_WAIT_S)  # an earlier try of it is on its way
            except StoreError as error:
                if isinstance(error, StoreMissing):
                    self._look_at_log()
                log.debug("turn_not_stored", subject=subject, error=str(error))
                await asyncio.sleep(TROUBLE_WAIT_S)
            else:
                write.seq = end.seq
                first = end.seq - len(batch) + 1
                self._is_stored(write, subject, first)
                await self._drop_parts(parted, before=first)
                return

    async def _head_of(
        self, checkpoint: Checkpoint, parted: dict[str, int]
    ) -> tuple[str, bytes, dict[str, str]]:
        """What is stored as the checkpoint, when its parts are. `parted` is told where those begin that are needed.

        0 there says that none are needed any more, of a resource that had some. One round trip for each part. Raises:
        StoreError.
        """
        names, resource = self._names, checkpoint.resource
        head, parts = checkpoint.split(self._part_bytes_max)
        for n, part in enumerate(parts):
            subject = names.part(resource, checkpoint.id, n)
            stored = await self._put(subject, part, {ROLLUP: "sub"})
            parted.setdefault(resource, stored.seq)
        if not parts and resource in self._parted:
            parted[resource] = 0
        return names.checkpoint(resource), head.encode(), {ROLLUP: "sub"} | head.headers()

    async def _drop_parts(self, parted: Mapping[str, int], *, before: int) -> None:
        """Of older checkpoints: all before the first that is needed, else all before the checkpoint, which stands at `before` or
        behind it. This may come late: by then a new owner's parts may be there, behind it.
        """
        for resource, seq in parted.items():
            which: dict[str, Any] = {"filter": self._names.parts(resource), "seq": seq or before}
            if seq:
                self._parted.add(resource)
            else:
                self._parted.discard(resource)
            with contextlib.suppress(StoreError):  # the next one drops them
                await self._link.api(f"STREAM.PURGE.{self._names.stream}", which)

    @property
    def _part_bytes_max(self) -> int:
        return self._link.payload_bytes_max * 3 // 4

    def _single(self, work: Work) -> tuple[str, bytes, dict[str, str]]:
        """As one of a batch. It names no gate: the turn before it in the batch does, for all of them."""
        request, outcome = work.request, work.outcome
        assert outcome is not None
        subject = self._names.single(request.resource, request.request_id)
        content = self._head + encode_record(request, outcome, self._kept_bytes_max)
        return subject, content, turn_header([request.request_id])

    async def _is_there(self, *subjects: str) -> bool:
        """Whether the log has an entry on one of them: asked until there is an answer, or this log is closed."""
        while not self._closed:
            try:
                for subject in subjects:
                    if await last_message(self._link, self._names.stream, subject) is not None:
                        return True
                return False
            except StoreError as error:
                log.debug("turn_not_found", subject=subjects[0], error=str(error))
            await asyncio.sleep(TROUBLE_WAIT_S)
        return False

    def _first_line(self, write: Write) -> bytes:
        """The same bytes for all turns that say nothing of marks and begins, as most do."""
        return noted(self._head, write.sent, write.begun) if write.says_more else self._head

    def push(self) -> None:
        self._link.push()

    def forget_unanswered(self) -> list[Write]:
        """What was sent and has no answer: none will be told. For a new connection, which tells by its gate."""
        tries, self._tries = self._tries, {}
        return [each.write for each in tries.values()]

    def _send(self, token: str, each: _Try) -> None:
        each.sent_s = time.monotonic()
        try:
            self._link.post(
                each.subject, each.write.content, each.headers, reply=self._inbox + token
            )
        except StoreTooLarge as error:
            log.error("turn_too_large", subject=each.subject, error=str(error))
        except StoreError as error:
            log.debug("turn_not_sent", subject=each.subject, error=str(error))

    def _send_again(self, token: str) -> None:
        if (each := self._tries.get(token)) is not None:
            self._send(token, each)

    def _sweep(self) -> None:
        """Repeat what was not answered. Not while NATS is away: the link would keep each repetition, and send all of them
        later.
        """
        late_s = time.monotonic() - ANSWER_S
        for token, each in self._tries.items():
            if each.sent_s < late_s and self._link.is_connected:
                log.debug("turn_unanswered", subject=each.subject)
                self._send(token, each)
        self._timer = None
        if self._tries:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _on_answer(self, answer: Message) -> None:
        """On the connection's reading: what the core makes of it (memory changes, answers leave, R8) happens in here."""
        token = answer.subject[len(self._inbox) :]
        each = self._tries.get(token)
        if each is None:
            return
        said = stored_or_why(answer)
        if isinstance(said, Stored):
            del self._tries[token]
            each.write.seq = said.seq
            self._is_stored(each.write, each.subject, said.seq)
        else:
            self._not_stored(token, each, said)

    def _is_stored(self, write: Write, subject: str, seq: int) -> None:
        """The watch first: from now on the log must have it. It may be lost again before any reader brings it."""
        if self._watch is not None:
            kind = "turn" if write.k else "at" if write.gate else "any"
            self._watch.stored(seq, subject, kind)
        self.on_stored(write, time.time())

    def _not_stored(self, token: str, each: _Try, said: StoreError) -> None:
        """A refusal ends the try, everything else is tried again after a moment.

        A gate that can't be the one that was read, or a stream that is gone, may mean that this is another log: that is
        looked at beside it.
        """
        if isinstance(said, GateRefused | StoreMissing):
            self._look_at_log()
        if isinstance(said, GateRefused | AlreadyStored):
            del self._tries[token]
            told = self.on_refused if isinstance(said, GateRefused) else self.on_taken
            told(each.write)
        else:
            wait_s = BUSY_WAIT_S if isinstance(said, Busy) else TROUBLE_WAIT_S
            log.debug("turn_not_stored", subject=each.subject, error=str(said))
            if isinstance(said, StoreFull):
                self._say_full(said)
            asyncio.get_running_loop().call_later(wait_s, self._send_again, token)

    def _say_full(self, said: StoreFull) -> None:
        """Everything of the service waits for room, and only an operator can make some."""
        now_s = time.monotonic()
        if now_s - self._said_full_s >= SAY_FULL_AGAIN_S:
            self._said_full_s = now_s
            log.warning("journal_full", stream=self._names.stream, error=str(said))

    def _look_at_log(self) -> None:
        """There is a newer gate, or no log any more that holds it."""
        now_s = time.monotonic()
        if self._watch is not None and now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._link.aside(_look(self._watch))

    # --- single entries ---------------------------------------------------------------------------------------
    async def gate(self, writer: str) -> int:
        """A new gate of any writer (R4, R6), also of this one: its sequence. Unconditional, so it can always be repeated.

        Raises: StoreError: it may be stored.
        """
        return await store_gate(self._link, self._names, writer)

    async def claim(self, nonce: str) -> int:
        """Say on a new connection that this process is the writer (R10): the claim's sequence.

        `nonce` is new for each try, so its subject is, too: what another process of this identity claims is another entry, and
        each of the two reads it. Raises: StoreError, also while it is not known to be the same log.
        """
        if self._watch is not None:
            await self._watch.make_sure()
        subject = self._names.claim(self._writer, nonce)
        seq = (await self._put(subject, b"", {})).seq
        if self._watch is not None:
            self._watch.stored(seq, subject, "claim")
        return seq

    async def prove(self, gate: int) -> None:
        """Have the log take something under the gate at that sequence: the proof that reads at the active rest on.

        Raises: GateRefused: there is a newer gate; StoreError: nobody knows.
        """
        headers = {ROLLUP: "sub", TTL: PROOFS_KEPT}
        headers |= {EXPECTED_SEQ: str(gate), EXPECTED_SUBJECT: self._gate}
        await self._put(self._names.proof(self._writer), b"", headers)

    async def own(self, number: int, moves: Mapping[str, str], *, why: str = "") -> int:
        """An ownership entry: its sequence. Control writes these; here it is for tests and tools without one.

        Raises: AlreadyStored, when that number is given; StoreError.
        """
        body = Moves(moves, why, self._log_id).encode()
        return (await self._put(self._names.own(number), body, {})).seq

    async def _put(self, subject: str, body: bytes, headers: dict[str, str]) -> Stored:
        return await self._link.store(subject, body, headers, timeout_s=STORE_TIMEOUT_S)

    async def begins(self, request_id: str) -> int:
        """How many begins of a group's request are noted; a note that can't be read counts as none. Raises: StoreError."""
        found = await last_message(self._link, self._names.stream, self._names.begins(request_id))
        return int(found.payload) if found is not None and found.payload.isdigit() else 0

    async def note_begin(self, request_id: str, n: int) -> None:
        """It replaces the note before, and goes when the request's outcome would. Raises: StoreError."""
        headers = {ROLLUP: "sub", TTL: OUTCOMES_KEPT}
        await self._put(self._names.begins(request_id), str(n).encode(), headers)

    async def save(self, save: Save) -> None:
        """Its parts, then its head under the gate, by one try: late, it could replace a newer one.

        Raises: GateRefused; StoreError: it may be stored, or still be.
        """
        parted: dict[str, int] = {}
        subject, body, headers = await self._head_of(save.checkpoint, parted)
        headers |= {EXPECTED_SEQ: str(save.gate), EXPECTED_SUBJECT: self._gate}
        head = await self._put(subject, body, headers)
        await self._drop_parts(parted, before=head.seq)

    # --- reading ------------------------------------------------------------------------------------------------
    async def find_all(self, request_ids: Collection[str], *, to_seq: int) -> dict[str, Outcome]:
        """A few are looked for each by its names, and by the log's headers only then; for more, all headers are read once.

        Singles have names of their own, and are always found by them. Raises: StoreError.
        """
        shared = [each for each in request_ids if not is_single(each)]
        if len(shared) <= FEW:
            return await self._find_each(request_ids, to_seq)
        singles = [each for each in request_ids if is_single(each)]
        found = await self._find_each(singles, to_seq)
        return found | await outcomes_up_to(
            self._link,
            self._names,
            shared,
            from_s=None,
            to_seq=to_seq,
            silence_s=FIND_SILENCE_S,
        )

    async def _find_each(self, request_ids: Collection[str], to_seq: int) -> dict[str, Outcome]:
        found: dict[str, Outcome] = {}
        todo = list(request_ids)
        for at in range(0, len(todo), FINDS_AT_ONCE_MAX):
            some = todo[at : at + FINDS_AT_ONCE_MAX]
            outcomes = await asyncio.gather(*(self.find(each, to_seq=to_seq) for each in some))
            found |= {i: o for i, o in zip(some, outcomes, strict=True) if o is not None}
        return found

    async def find_of_group(self, request_id: str) -> Outcome | None:
        """By one read at the log's leader. Raises: StoreError."""
        subject = self._names.single(None, request_id)
        return await outcome_at(self._link, self._names, subject, request_id)

    async def find(self, request_id: str, *, to_seq: int) -> Outcome | None:
        """Its own name is one read; a turn that it shares is found by reading all headers. Raises: StoreError."""
        names = self._names
        for subject in (names.single_anywhere(request_id), names.turn_of_one_anywhere(request_id)):
            if (outcome := await outcome_at(self._link, names, subject, request_id)) is not None:
                return outcome
            if is_single(request_id):
                return None
        outcomes = await outcomes_up_to(
            self._link, names, (request_id,), from_s=None, to_seq=to_seq, silence_s=FIND_SILENCE_S
        )
        return outcomes.get(request_id)


async def store_gate(link: Link, names: LogSubjects, writer: str) -> int:
    """A new gate of `writer`, whoever asks for it: its sequence. Raises: StoreError."""
    stored = await link.store(names.gate(writer), b"", {ROLLUP: "sub"}, timeout_s=STORE_TIMEOUT_S)
    return stored.seq


async def store_cancel(link: Link, names: LogSubjects, request: Request) -> Outcome:
    """Under its outcome's own name: what stands there now, this or what was first. Raises: StoreError.

    Create-only decides between the caller and the owner, so this needs no gate (R6 is for outcomes without a name of their
    own).
    """
    outcome = given_up(request)
    subject = names.single(request.resource, request.request_id)
    body = turn_head("", "", "") + encode_record(request, outcome)
    headers = turn_header([request.request_id]) | {TTL: OUTCOMES_KEPT}
    try:
        await link.store(subject, body, headers, timeout_s=STORE_TIMEOUT_S)
    except AlreadyStored:
        stored = await outcome_at(link, names, subject, request.request_id)
        if stored is None:
            raise StoreUnreachable(f"what stands at {subject} could not be read") from None
        return stored
    return outcome


async def store_end(
    link: Link, names: LogSubjects, resource: str, request_id: str, *, kept_s: float
) -> int:
    """The caller gave up on its request: the sequence of the end. Twice is once. Raises: StoreError.

    It must outlive every copy of the request that may still be run: half its time is what R9 grants to one that was sent.
    """
    subject = names.end(resource, request_id)
    try:
        stored = await link.store(subject, b"", {TTL: f"{int(kept_s)}s"}, timeout_s=STORE_TIMEOUT_S)
    except AlreadyStored:
        found = await last_message(link, names.stream, subject)
        if found is None:
            raise StoreUnreachable(f"what stood at {subject} has expired") from None
        return found.seq
    return stored.seq


async def _look(watch: LogWatch) -> None:
    with contextlib.suppress(StoreError):
        await watch.make_sure()


def _nobody(*_: object) -> None:
    raise AssertionError("the log was used before its host listened")
