"""The ports of turns (application/turns/ports.py, serving.py) on the bus.

Theory of operation. The use cases and the core are the real ones; only what stands between them and NATS is here. So what a
test finds wrong is wrong in what is shipped, and what is here must promise no more than NATS does:

- An operation is one step of the event loop at the server, and takes a step there and a step back
  (`MemoryConnection.call`). Each of the two may be lost (`Fault.LOST`, `LOST_ANSWER`): its caller then knows nothing, and
  the server has done it or not.
- A turn is answered by a callback, as on the link. One without an answer is tried again as it is, with the same subject, so
  the second try meets its own entry (`on_taken`).
- What is sent and not stored (requests, answers, announcements) reaches whoever subscribes at that moment, or is gone.
- Entries are the same bytes as on NATS, by the same functions, and are read by the same parser.

What it leaves out: batches (singles travel alone, so nothing clashes), parts of checkpoints, times to live, the trim, and a
log that lost something. Those are tried on real servers (tests/contract, tests/integration). The contract suite runs on
both.

`LastWord` is done in one step here. Its order of steps (R6) is tried by the simulation and on NATS.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from aegis_sdk.application.outcomes import given_up
from aegis_sdk.application.ports import (
    AlreadyStored,
    Deliveries,
    Delivery,
    GateRefused,
    GroupSource,
    StoreError,
    StoreUnreachable,
)
from aegis_sdk.application.turns.ports import FoundCheckpoint
from aegis_sdk.application.turns.serving import OnEntry, OnStored, OnUnreadable
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.names import NO_RESOURCE, encode_token
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import (
    PAYLOAD_KEPT_BYTES_MAX,
    TURN,
    EntryUnreadable,
    Record,
    encode_record,
    noted,
    turn_head,
    turn_header,
)
from aegis_sdk.contract.turns.reads import position_text
from aegis_sdk.contract.turns.sent import Answer
from aegis_sdk.domain.turns.entries import Claim, Entry, Gate, Own
from aegis_sdk.domain.turns.output import Save
from aegis_sdk.domain.turns.ownership import Ownership
from aegis_sdk.domain.turns.parsing import parse_entry
from aegis_sdk.domain.turns.sessions import is_single
from aegis_sdk.domain.turns.work import Write
from aegis_sdk.testing.connection import MemoryConnection
from aegis_sdk.testing.faults import Fault, Flow, Op
from aegis_sdk.testing.log_stream import LogStream, Stored

TRIES_MAX: Final = 100
AGAIN_S: Final = 0.02
"""A write without an answer is tried again after so long."""


def single_subject(resource: str | None, request_id: str) -> str:
    """Of an outcome that stands alone."""
    if resource is None:
        return f"any.{NO_RESOURCE}.out.{request_id}"
    return f"at.{encode_token(resource)}.out.{request_id}"


class MemoryTurnLog:
    """WriterLog: one writer's. `_tries` has each write that was told of nothing yet, and what it does at the server."""

    def __init__(self, link: MemoryConnection, service: str, *, writer: str, nonce: str) -> None:
        self._link = link
        self._service = service
        self._writer = writer
        self._head = turn_head(writer, "", nonce)
        self._tries: dict[Write, Callable[[], int]] = {}
        self.on_stored: Callable[[Write, float], None] = lambda write, at_s: None
        self.on_refused: Callable[[Write], None] = lambda write: None
        self.on_taken: Callable[[Write], None] = lambda write: None
        self.on_clashed: Callable[[Write], None] = lambda write: None
        """Never told: here no entries are stored together."""

    @property
    def outcome_bytes_max(self) -> int:
        return self._link.bus.limits.payload_bytes_max * 3 // 4

    @property
    def turn_bytes_max(self) -> int:
        return self._link.bus.limits.payload_bytes_max // 8

    async def open(self) -> None: ...

    def close(self) -> None:
        self._tries.clear()

    def push(self) -> None: ...

    def forget_unanswered(self) -> list[Write]:
        tries, self._tries = self._tries, {}
        return list(tries)

    # --- turns and singles ----------------------------------------------------------------------------------
    def store(self, write: Write) -> bool:
        works = write.works
        kept = min(PAYLOAD_KEPT_BYTES_MAX, self._link.bus.limits.payload_bytes_max // 16)
        head = noted(self._head, write.sent, write.begun) if write.says_more else self._head
        write.content = head + b"".join(
            encode_record(work.request, work.outcome, kept)
            for work in works
            if work.outcome is not None
        )
        if not write.k:
            subject = single_subject(works[0].request.resource, works[0].request.request_id)
        elif len(works) == 1:
            subject = f"turn.{self._writer}.{write.k}.{works[0].request.request_id}"
        else:
            subject = f"turn.{self._writer}.{write.k}"
        header = turn_header([work.request.request_id for work in works])[TURN]
        gate = (self._writer, write.gate) if write.gate else None
        self._tries[write] = partial(self._write, subject, write, header, gate)
        self._try(write)
        return len(works) == 1

    def _write(self, subject: str, write: Write, header: str, gate: tuple[str, int] | None) -> int:
        """At the server: store the entry, and republish its one outcome. Raises: GateRefused, AlreadyStored, StoreError."""
        seq = self._stream.write(subject, write.content, header, gate=gate)
        if len(write.works) == 1 and (outcome := write.works[0].outcome) is not None:
            outcome.position = position_text("", seq)
            self._link.bus.republish(write.works[0].request.request_id, outcome)
        return seq

    def _try(self, write: Write) -> None:
        self._link.bus.soon(lambda: self._arrive(write))

    def _arrive(self, write: Write) -> None:
        """At the server. A lost try and a lost answer look the same from here on: there is no word, and it is tried again."""
        effect = self._tries.get(write)
        if effect is None or not self._link.reachable:
            return
        fault = self._link.bus.faults.draw(Op.COMMIT if len(write.works) == 1 else Op.COMMITS)
        told: Callable[[], None] | None = partial(self.on_stored, write, time.time())
        if fault is Fault.LOST:
            told = None
        else:
            try:
                write.seq = effect()
            except GateRefused:
                told = partial(self.on_refused, write)
            except AlreadyStored:
                told = partial(self.on_taken, write)
            except StoreError:
                told = None  # no space: this too passes
        if told is None or fault is Fault.LOST_ANSWER:
            asyncio.get_running_loop().call_later(AGAIN_S, self._try, write)
        else:
            self._link.bus.soon(partial(self._answer, write, told))

    def _answer(self, write: Write, told: Callable[[], None]) -> None:
        """Back at the writer: not over a link that was cut meanwhile, and not for what was forgotten."""
        if self._link.reachable and self._tries.pop(write, None) is not None:
            told()

    # --- single entries -------------------------------------------------------------------------------------
    async def gate(self, writer: str) -> int:
        return await self._put(Op.MARKER, f"gate.{writer}", rollup=True)

    async def claim(self, nonce: str) -> int:
        return await self._put(Op.MARKER, f"claim.{self._writer}.{nonce}")

    async def prove(self, gate: int) -> None:
        own = self._writer, gate
        await self._link.call(
            Op.MARKER,
            lambda: self._stream.write(f"proof.{self._writer}", rollup=True, gate=own),
        )

    async def save(self, save: Save) -> None:
        checkpoint = save.checkpoint
        subject = f"at.{encode_token(checkpoint.resource)}.state"
        gate = self._writer, save.gate
        await self._link.call(
            Op.CHECKPOINT,
            lambda: self._stream.write(subject, checkpoint.encode(), rollup=True, gate=gate),
        )

    async def begins(self, request_id: str) -> int:
        def read() -> int:
            found = self._stream.get(f"begun.{request_id}")
            return 0 if found is None else int(found.data)

        return await self._link.call(Op.READ, read)

    async def note_begin(self, request_id: str, n: int) -> None:
        await self._put(Op.ATTEMPT, f"begun.{request_id}", str(n).encode(), rollup=True)

    async def find_of_group(self, request_id: str) -> Outcome | None:
        found = await self._link.call(Op.READ, lambda: self._stream.record(request_id))
        return None if found is None else found.outcome

    async def find_all(self, request_ids: Collection[str], *, to_seq: int) -> dict[str, Outcome]:
        found = await self._link.call(Op.READ, lambda: map(self._stream.record, request_ids))
        return {record.request_id: record.outcome for record in found if record is not None}

    async def _put(self, op: Op, subject: str, data: bytes = b"", *, rollup: bool = False) -> int:
        return await self._link.call(op, lambda: self._stream.write(subject, data, rollup=rollup))

    @property
    def _stream(self) -> LogStream:
        return self._link.bus.log(self._service)


class MemorySent:
    """Sent: the requests that are sent to what is served here.

    Who serves what stands at the server (`served`), one for each place: of two that serve one resource, the later one has
    it. What arrives while the link holds deliveries up waits in `_waiting`, as in a socket.
    """

    def __init__(self, link: MemoryConnection, service: str) -> None:
        self._link = link
        self._service = service
        self._waiting: list[Callable[[], None]] = []
        self.on_request: Callable[[Request, float, int], None] = lambda request, sent_s, after: None
        self.on_cancel: Callable[[str], None] = lambda request_id: None
        self.on_asked: Callable[[str], bool] = lambda request_id: False
        link.add_pump(Flow.DELIVERIES, self._pump)

    @property
    def is_reachable(self) -> bool:
        return self._link.reachable

    def serve(self, resources: Iterable[str]) -> None:
        for resource in resources:
            self._link.bus.served[self._service, f"at {resource}"] = self

    def serve_group(self, instance_id: str) -> None:
        """As the member of that id; callers send to members by it, each in its turn."""
        self._link.bus.served[self._service, f"any {instance_id}"] = self

    def leave(self, resources: Iterable[str]) -> None:
        self._leave(lambda place: place in {f"at {resource}" for resource in resources})

    def leave_all(self) -> None:
        self._leave(lambda place: True)

    async def settle(self) -> None:
        """Nothing is on its way for longer than a turn of the loop."""

    def _leave(self, leaves: Callable[[str], bool]) -> None:
        served = self._link.bus.served
        for key in [k for k, who in served.items() if who is self and leaves(k[1])]:
            del served[key]

    async def has_in_hand(self, instance_id: str, request_id: str) -> bool | None:
        """Answered without a way there and back. None, as of a member that is silent, where its link lets nothing through."""
        member = self._link.bus.served.get((self._service, f"any {instance_id}"))
        if not isinstance(member, MemorySent) or not member._link.lets(Flow.DELIVERIES):
            return None
        return member.on_asked(request_id)

    def announce(self, instance_id: str, resources: Collection[str]) -> None:
        """To all callers of the bus; those that never asked for the service make nothing of it."""
        names = frozenset(resources)
        for caller in list(self._link.bus.callers):
            self._link.bus.soon(partial(caller.hear_of, self._service, instance_id, names))

    def answer(self, request_id: str, outcome: Outcome) -> None:
        self._link.bus.soon(lambda: self._link.bus.republish(request_id, outcome))

    def refuse(self, request_id: str, answer: Answer) -> None:
        for caller in list(self._link.bus.callers):
            self._link.bus.soon(partial(caller.hear_answer, request_id, answer))

    def arrive(self, work: Callable[[], None]) -> None:
        """Something that was sent here; it waits while the link holds it up."""
        self._waiting.append(work)
        self._pump()

    def _pump(self) -> None:
        while self._waiting and self._link.lets(Flow.DELIVERIES):
            self._waiting.pop(0)()


class MemoryCalls:
    """CallsOut. Answers that come while the link is cut or held are missed, as on core NATS.

    A request arrives as a copy, through its wire form: the two sides never share an object, and what headers can't carry
    shows here.
    """

    def __init__(self, link: MemoryConnection) -> None:
        self._link = link
        self._asked: set[str] = set()
        self.on_outcome: Callable[[str, Outcome], None] = lambda request_id, outcome: None
        self.on_answer: Callable[[str, Answer], None] = lambda request_id, answer: None
        self.on_served: Callable[[str, str, Collection[str]], None] = lambda *_: None

    def send(self, request: Request, *, sent_s: float, after: int, member: str) -> None:
        self._link.bus.limits.check_size(request.headers(), request.payload)
        self._asked.add(request.request_id)

        def work(to: MemorySent) -> None:
            copy = Request.parse(
                request.headers(),
                request.payload,
                service=request.service,
                resource=request.resource,
            )
            to.on_request(copy, sent_s, after)

        self._post(request, member, work)

    def cancel(self, request: Request, *, member: str) -> None:
        self._post(request, member, lambda to: to.on_cancel(request.request_id))

    def _post(self, request: Request, member: str, work: Callable[[MemorySent], None]) -> None:
        """Raises: StoreUnreachable."""
        if not self._link.reachable:
            raise StoreUnreachable(f"link {self._link.name}: not connected")
        self._link.bus.soon(lambda: self._arrive(request, member, work))

    def _arrive(self, request: Request, member: str, work: Callable[[MemorySent], None]) -> None:
        bus, resource = self._link.bus, request.resource
        fault = bus.faults.draw(Op.SEND)
        if not self._link.reachable or fault is Fault.LOST:
            return
        place = f"any {member}" if resource is None else f"at {resource}"
        to = bus.served.get((request.service, place))
        if not isinstance(to, MemorySent) or not to.is_reachable:
            self.hear_answer(request.request_id, Answer.NOBODY)
            return
        to.arrive(partial(work, to))
        if fault is Fault.TWICE:
            to.arrive(partial(work, to))

    async def expect(self, request_id: str) -> None:
        self._asked.add(request_id)

    def forget(self, request_id: str) -> None:
        self._asked.discard(request_id)

    def hear(self, request_id: str, outcome: Outcome) -> None:
        if request_id not in self._asked:
            return
        fault = self._link.bus.faults.draw(Op.REPLY)
        if fault is Fault.LOST:
            return
        for _ in range(2 if fault is Fault.TWICE else 1):
            self._link.bus.soon(partial(self._hear, request_id, outcome))

    def _hear(self, request_id: str, outcome: Outcome) -> None:
        if self._link.lets(Flow.REPLIES):
            self.on_outcome(request_id, outcome)

    def hear_answer(self, request_id: str, answer: Answer) -> None:
        if request_id in self._asked and self._link.lets(Flow.REPLIES):
            self.on_answer(request_id, answer)

    def hear_of(self, service: str, instance_id: str, resources: Collection[str]) -> None:
        if self._link.lets(Flow.REPLIES):
            self.on_served(service, instance_id, resources)


class MemoryOutcomes:
    """Outcomes. The stream knows every request's entry, so nothing is searched; what each may find is as on NATS."""

    def __init__(self, link: MemoryConnection) -> None:
        self._link = link

    async def named(self, request: Request, *, anywhere: bool) -> Record | None:
        def read() -> Record | None:
            record = self._stream(request.service).record(request.request_id)
            if record is None or not is_single(request.request_id):
                return None
            return record if anywhere or record.resource == request.resource else None

        return await self._link.call(Op.READ, read)

    async def anywhere(self, request: Request, *, timeout_s: float) -> Outcome | None:
        def read() -> Outcome | None:
            record = self._stream(request.service).record(request.request_id)
            return None if record is None else record.outcome

        return await self._link.call(Op.READ, read)

    async def children(self, service: str, parent_token: str) -> list[str]:
        def read() -> list[str]:
            ids = [record.request_id for record in self._stream(service).records()]
            return [each for each in ids if each.startswith(f"{parent_token}.")]

        return await self._link.call(Op.READ, read)

    def _stream(self, service: str) -> LogStream:
        return self._link.bus.log(service)


class MemoryLastWord:
    """LastWord: all steps of R6 at once."""

    def __init__(self, link: MemoryConnection) -> None:
        self._link = link

    async def settle(
        self, service: str, requests: Sequence[Request], *, open_s: float, stored: bool
    ) -> dict[str, Outcome]:
        def ended() -> dict[str, Outcome]:
            stream = self._link.bus.log(service)
            for request in requests:
                self._end(stream, request)
            found = [stream.record(request.request_id) for request in requests]
            return {record.request_id: record.outcome for record in found if record is not None}

        return await self._link.call(Op.COMMIT, ended)

    def _end(self, stream: LogStream, request: Request) -> None:
        """One request's end: its cancel under its own name, or an end and a gate of each writer that may write its resource."""
        if stream.record(request.request_id) is not None:
            return
        if request.resource is None or is_single(request.request_id):
            outcome = given_up(request)
            stream.write(
                single_subject(request.resource, request.request_id),
                turn_head("", "", "") + encode_record(request, outcome),
                turn_header([request.request_id])[TURN],
            )
            return
        end = f"end.{encode_token(request.resource)}.{request.request_id}"
        stream.write(end, rollup=True)
        for writer in _ownership(stream).may_write(request.resource):
            stream.write(f"gate.{writer}", rollup=True)


class MemoryReaders:
    """Readers, of one service for one instance."""

    def __init__(
        self,
        link: MemoryConnection,
        service: str,
        *,
        writer: str,
        deliveries: Deliveries,
    ) -> None:
        self._link = link
        self._service = service
        self._writer = writer
        self._deliveries = deliveries

    def log(
        self, on_entry: OnEntry, on_unreadable: OnUnreadable, *, is_main: bool
    ) -> MemoryLogReader:
        stream = self._link.bus.log(self._service)
        own = self._writer if is_main else ""
        return MemoryLogReader(self._link, stream, own, on_entry, on_unreadable)

    def requests(
        self,
        on_request: OnStored,
        on_past: Callable[[int], None],
        resources: Collection[str] | None = None,
    ) -> MemoryStoredRequests:
        return MemoryStoredRequests(self._link, self._service, on_request, on_past)

    async def checkpoints(self, resources: Collection[str]) -> Mapping[str, FoundCheckpoint]:
        def read() -> dict[str, FoundCheckpoint]:
            stream = self._link.bus.log(self._service)
            found: dict[str, FoundCheckpoint] = {}
            for resource in resources:
                entry = stream.get(f"at.{encode_token(resource)}.state")
                if entry is not None:
                    found[resource] = Checkpoint.decode(entry.data), entry.at_s
            return found

        return await self._link.call(Op.READ, read)

    async def newest_own(self) -> Own | None:
        """It holds what is paused. Raises: StoreUnreachable."""

        def read() -> Own | None:
            stored = [s for s in self._link.bus.log(self._service).entries() if s.words[0] == "own"]
            entry = _parsed(stored[-1]) if stored else None
            return entry if isinstance(entry, Own) else None

        return await self._link.call(Op.READ, read)

    async def open_group(
        self, *, credit: int, on_delivery: Callable[[Delivery], None]
    ) -> GroupSource:
        return await self._deliveries.open_group(
            self._service, credit=credit, on_delivery=on_delivery
        )


class Pump:
    """Reads on whenever something was stored or the link lets it through again.

    A reader that is held up lags, and misses nothing: it goes on behind `position`, as one of NATS does after a new connection.
    """

    flow: Flow

    def __init__(self, link: MemoryConnection, listeners: list[Callable[[], None]]) -> None:
        self._link = link
        self._listeners = listeners
        self._runs = False
        self.position = 0

    async def start(self, *, after: int = 0) -> None:
        self.position = after
        self._runs = True
        self._listeners.append(self._wake)
        self._link.add_pump(self.flow, self._wake)
        self._wake()

    async def stop(self) -> None:
        if self._runs:
            self._runs = False
            self._listeners.remove(self._wake)
            self._link.drop_pump(self.flow, self._wake)

    def _wake(self) -> None:
        self._link.bus.soon(self._pump)

    def _pump(self) -> None:
        """Each condition anew for each entry: what is given may stop the reader, or cut its link."""
        while self._runs and self._link.lets(self.flow) and self.lag_entries:
            self.position += 1
            self._give(self.position)

    @property
    def lag_entries(self) -> int:
        raise NotImplementedError

    def _give(self, seq: int) -> None:
        raise NotImplementedError


class MemoryLogReader(Pump):
    """LogSource: of a log, in order. An entry that was replaced meanwhile is left out, as by a consumer."""

    flow = Flow.ENTRIES

    def __init__(
        self,
        link: MemoryConnection,
        stream: LogStream,
        writer: str,
        on_entry: OnEntry,
        on_unreadable: OnUnreadable,
    ) -> None:
        super().__init__(link, stream.listeners)
        self._stream = stream
        self._writer = writer
        self._on_entry = on_entry
        self._on_unreadable = on_unreadable

    @property
    def lag_entries(self) -> int:
        return self._stream.last_seq - self.position

    async def read_to_end(self) -> None:
        """The end is asked for over the link, so a link that is cut answers nothing. Raises: StoreUnreachable."""
        end = await self._link.call(Op.READ, lambda: self._stream.last_seq)
        for _ in range(TRIES_MAX):
            if self.position >= end:
                return
            await asyncio.sleep(AGAIN_S)
        raise StoreUnreachable(f"link {self._link.name}: entries do not come")

    def _give(self, seq: int) -> None:
        if (stored := self._stream.at(seq)) is None:
            return
        try:
            entry = _parsed(stored, own=self._writer)
        except EntryUnreadable as error:
            self._on_unreadable(seq, str(error), stored.words)
            return
        if entry is not None:
            self._on_entry(entry)


class MemoryStoredRequests(Pump):
    """Source: of the stored requests to resources, in order. It gives all of them, also where only some were asked for."""

    flow = Flow.DELIVERIES

    def __init__(
        self,
        link: MemoryConnection,
        service: str,
        on_request: OnStored,
        on_past: Callable[[int], None],
    ) -> None:
        self._stream = link.bus.requests(service)
        super().__init__(link, self._stream.listeners)
        self._on_request = on_request
        self._on_past = on_past

    @property
    def lag_entries(self) -> int:
        return self._stream.last_seq - self.position

    def _give(self, seq: int) -> None:
        request = self._stream.get(seq)
        if request is not None and request.resource is not None:
            self._on_request(request, seq, time.time())
        self._on_past(seq)


def _parsed(stored: Stored, *, own: str = "") -> Entry | Claim | None:
    """Raises: EntryUnreadable."""
    return parse_entry(stored.words, stored.header, stored.data, stored.seq, stored.at_s, own=own)


def _ownership(stream: LogStream) -> Ownership:
    """As the whole log has it: nothing of it is ever trimmed here. O(entries)."""
    ownership = Ownership()
    for stored in stream.entries():
        if stored.words[0] in ("own", "gate"):
            entry = _parsed(stored)
            if isinstance(entry, Own):
                ownership.read_own(entry.number, entry.moves)
            elif isinstance(entry, Gate):
                ownership.read_gate(entry.writer, entry.seq)
    return ownership
