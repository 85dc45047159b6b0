"""Control's use cases on in-memory ports, with a clock that stands still until it is told to move.

The fakes keep the ports' promises (compare-and-set, create-only) and can be told to misbehave:
lose an acknowledgement, let somebody else write first, or be away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from aegis_control.application.assembly import assemble
from aegis_control.application.leading.own import Leases
from aegis_control.application.ports import (
    BucketEntry,
    Going,
    NotWritten,
    RequestsFull,
    Write,
)
from aegis_control.application.state import Member
from aegis_control.application.world import Api, World
from aegis_control.domain.events import Event
from aegis_control.domain.leading.liveness import Limits
from aegis_control.domain.leading.logs import Sight
from aegis_control.domain.leading.owning import Owned, StoredGate, StoredMoves
from aegis_control.domain.leading.spreading import Policy
from aegis_sdk.contract.control import (
    Ack,
    Command,
    DriftView,
    Heartbeat,
    LeaseRecord,
    Leave,
    LogMark,
    MethodSpec,
    OnDemand,
    Registration,
    RegistrationReply,
    Role,
    ServerView,
)
from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.checkpoint import Checkpoint, SavedUpTo
from aegis_sdk.contract.turns.entries import Moves
from aegis_sdk.contract.turns.events import Emitted
from aegis_sdk.contract.turns.writers import run_of
from aegis_sdk.domain.turns.keeping import Keeping
from aegis_sdk.errors import Unavailable

SERVICE = "accounts"
LIMITS = Limits(
    heartbeat_interval_s=0.15, heartbeat_timeout_s=0.7, stall_limit_s=5.0, return_grace_s=30.0
)

SPREAD = Policy(on=True, wait_s=2.0, moves_max=10, difference=0.25)


@dataclass
class ManualClock:
    now_s: float = 1_000.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s


@dataclass
class MemoryBucket:
    """`lose_acks`: the next writes are stored, but nobody hears of it."""

    entries: dict[str, BucketEntry] = field(default_factory=dict)
    revision: int = 0
    lose_acks: int = 0
    away: bool = False

    async def load(self, *, after: int = 0, again: bool = False) -> list[BucketEntry]:
        self._check()
        newer = [entry for entry in self.entries.values() if entry.revision > after]
        return sorted(newer, key=lambda entry: entry.revision)

    async def read(self, key: str) -> BucketEntry | None:
        self._check()
        return self.entries.get(key)

    async def write(self, writes: Sequence[Write]) -> list[int | NotWritten]:
        self._check()
        return [self._write(write.key, write.value, write.revision) for write in writes]

    async def delete(self, key: str, revision: int) -> int | NotWritten:
        self._check()
        return self._write(key, None, revision)

    async def delete_all(self, entries: Sequence[BucketEntry]) -> list[int | NotWritten]:
        return [await self.delete(entry.key, entry.revision) for entry in entries]

    def put(self, key: str, value: bytes) -> None:
        """What another replica does."""
        self.revision += 1
        self.entries[key] = BucketEntry(key, value, self.revision)

    def _write(self, key: str, value: bytes | None, expected: int) -> int | NotWritten:
        known = self.entries.get(key)
        if (known.revision if known else 0) != expected:
            return NotWritten.CONFLICT
        self.revision += 1
        self.entries[key] = BucketEntry(key, value, self.revision)
        if self.lose_acks:
            self.lose_acks -= 1
            return NotWritten.UNKNOWN
        return self.revision

    def _check(self) -> None:
        if self.away:
            raise Unavailable("the bucket is away")


@dataclass
class MemoryOwnLog:
    """The logs of all services. `lose_acks`: the next entries are stored, but nobody hears of it."""

    entries: dict[str, list[StoredMoves | StoredGate]] = field(default_factory=dict)
    seq: int = 0
    lose_acks: int = 0
    away: bool = False
    entry_bytes_max: int = 1 << 20

    async def saved(self, service: str) -> dict[str, SavedUpTo]:
        self._check()
        return {}

    async def read(self, service: str, *, after: int) -> list[StoredMoves | StoredGate]:
        self._check()
        return [entry for entry in self.entries.get(service, ()) if entry.seq > after]

    async def write(self, service: str, number: int, entry: Moves) -> int | NotWritten:
        self._check()
        if number in self.numbers(service):
            return NotWritten.CONFLICT
        self._store(service, lambda seq: StoredMoves(seq, number, entry, 1_000.0))
        if self.lose_acks:
            self.lose_acks -= 1
            return NotWritten.UNKNOWN
        return self.seq

    async def shut_out(self, service: str, writers: Sequence[str]) -> list[int | None]:
        self._check()
        for writer in writers:
            kept = self.entries.get(service, [])
            kept[:] = [e for e in kept if not (isinstance(e, StoredGate) and e.writer == writer)]
            self._store(service, partial(StoredGate, writer=writer))
        return list(range(self.seq - len(writers) + 1, self.seq + 1))

    def numbers(self, service: str) -> list[int]:
        return [e.number for e in self.entries.get(service, ()) if isinstance(e, StoredMoves)]

    def _store(self, service: str, make: Callable[[int], StoredMoves | StoredGate]) -> None:
        self.seq += 1
        self.entries.setdefault(service, []).append(make(self.seq))

    def _check(self) -> None:
        if self.away:
            raise Unavailable("the log is away")


@dataclass
class MemoryLogSpace:
    """Nothing is old, and no resource has a checkpoint."""

    async def old(self, service: str, *, keep_s: float) -> int:
        return 0

    async def newest(self, service: str, resource: str) -> tuple[Checkpoint | None, int]:
        return None, 0

    async def fold(self, service: str, keeping: Keeping, *, outcomes: bool) -> int:
        return 0

    async def keep(self, service: str, checkpoint: Checkpoint, *, after_seq: int) -> bool:
        return True

    async def remove(self, service: str, going: Going) -> int:
        return 0


@dataclass
class MemoryRequests:
    provisioned: list[str] = field(default_factory=list)
    of_events: list[str] = field(default_factory=list)
    """Services whose stream of events was made."""
    forgotten: dict[str, int] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    """What `open` and `waiting` find, of whichever resource."""
    late: list[str] = field(default_factory=list)
    """What is stored just before the stream is closed."""
    closed: bool = False
    resources_asked: list[str] = field(default_factory=list)

    async def open(self, service: str, resource: str) -> list[str]:
        return self.stored

    async def resources(self, service: str) -> set[str]:
        return set(self.resources_asked)

    async def waiting(self, service: str) -> list[str]:
        return self.stored

    async def close(self, service: str) -> None:
        self.closed = True
        self.stored = self.stored + self.late

    async def reopen(self, service: str) -> None:
        self.closed = False

    async def provision(self, service: str) -> None:
        self.provisioned.append(service)

    async def provision_events(self, service: str) -> None:
        self.of_events.append(service)

    async def keep_group(self, service: str) -> bool:
        return False

    async def remove_settled(self, service: str, *, done_seq: int, held: Collection[str]) -> int:
        return 0

    async def forget(self, service: str, starts: Mapping[str, int]) -> None:
        self.forgotten = dict(starts)


@dataclass
class MemoryLogs:
    """Every stream is there, and as it was, unless `sights` says otherwise."""

    sights: dict[str, Sight | None] = field(default_factory=dict)
    begun: list[tuple[str, int]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    away: bool = False

    async def messages(self, stream: str) -> int | None:
        return None if await self.look(stream) is None else 7

    async def remove(self, stream: str, identity: str) -> None:
        if self.away:
            raise Unavailable("the streams are away")
        self.sights[stream] = None
        self.removed.append(stream)

    async def look(self, stream: str) -> Sight | None:
        return self.sights.get(stream, Sight("log-0", 1, 0))

    async def request_at(self, stream: str, seq: int) -> str:
        return f"c.{seq}"

    async def holds(self, stream: str, seq: int) -> bool:
        return True

    def seen_end(self, stream: str, identity: str) -> int:
        return 0

    def know(self, stream: str, identity: str) -> None:
        """Nothing loses the registry here."""

    async def adopt(self, stream: str, *, new: bool) -> LogMark:
        return LogMark(id="log-0")

    async def begin(self, stream: str, *, behind: int, generation: int) -> LogMark:
        self.begun.append((stream, behind))
        mark = LogMark(id=f"log-{len(self.begun)}", end=behind)
        self.sights[stream] = Sight(mark.id, 1, behind)
        return mark


@dataclass
class MemoryInstances:
    """`answer` is what every instance says to a command; None stays silent."""

    answer: Ack | None = field(default_factory=lambda: Ack(ok=True))
    sent: list[tuple[str, Command]] = field(default_factory=list)

    async def command(self, instance_id: str, command: Command, *, timeout_s: float) -> Ack | None:
        self.sent.append((instance_id, command))
        return self.answer

    async def tell(self, instance_id: str, command: Command) -> None:
        self.sent.append((instance_id, command))

    def kinds(self, instance_id: str) -> list[str]:
        return [command.kind.value for to, command in self.sent if to == instance_id]


@dataclass
class MemoryHearing:
    """`unread`: heartbeats that lie in the socket until somebody checks."""

    away: bool = False
    unread: list[Callable[[], None]] = field(default_factory=list)

    async def check(self) -> None:
        if self.away:
            raise Unavailable("NATS is away")
        while self.unread:
            self.unread.pop()()


@dataclass
class MemoryLetters:
    """`full`: the request stream takes nothing; `lose_drops`: control dies before it forgets a letter."""

    letters: dict[str, DeadLetter] = field(default_factory=dict)
    outcomes: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    sent: list[Request] = field(default_factory=list)
    emitted: list[Emitted] = field(default_factory=list)
    full: bool = False
    lose_drops: int = 0

    async def find(self, request_id: str) -> DeadLetter | None:
        return self.letters.get(request_id)

    async def outcome(self, service: str, request_id: str) -> Outcome | None:
        return self.outcomes.get((service, request_id))

    async def emit(self, event: Emitted) -> None:
        if self.full:
            raise RequestsFull("the events of accounts: maximum messages exceeded")
        self.emitted.append(event)

    async def send(self, request: Request) -> None:
        if self.full:
            raise RequestsFull("the requests of accounts: maximum messages exceeded")
        self.sent.append(request)

    async def drop(self, service: str, request_id: str) -> None:
        if self.lose_drops:
            self.lose_drops -= 1
            raise Unavailable("control is gone")
        self.letters.pop(request_id, None)

    async def count(self, service: str) -> int:
        return len(self.letters)

    async def drop_all(self, service: str) -> None:
        self.letters.clear()


@dataclass
class MemoryCheckup:
    replicas: int = 1
    found: list[DriftView] = field(default_factory=list)
    seen: list[ServerView] | None = None

    async def servers(self) -> list[ServerView] | None:
        return self.seen

    async def drift(self, services: Sequence[str]) -> list[DriftView]:
        return [drift for drift in self.found if drift.name in services]


@dataclass
class MemoryEvents:
    seen: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        self.seen.append((event.name, event.details()))

    def names(self) -> list[str]:
        return [event for event, _ in self.seen]

    def last(self, event: str) -> dict[str, object]:
        return [details for name, details in self.seen if name == event][-1]


def _nobody(_: Api) -> AbstractAsyncContextManager[None]:
    return nullcontext()


class Office:
    """A leader of control whose world is in memory. `Office(office.world)` is another replica's term."""

    made: ClassVar[list[Office]] = []
    """Of the test that runs: conftest.py ends them."""
    leases_follow = True
    """False: what writes them is `pending`."""

    def __init__(self, other: Office | None = None, *, policy: Policy = SPREAD) -> None:
        self.made.append(self)
        self.own_log: MemoryOwnLog = other.own_log if other else MemoryOwnLog()
        self.clock: ManualClock = other.clock if other else ManualClock()
        self.registry: MemoryBucket = other.registry if other else MemoryBucket()
        self.leases: MemoryBucket = other.leases if other else MemoryBucket()
        self.logs = MemoryLogs()
        self.requests: MemoryRequests = other.requests if other else MemoryRequests()
        self.instances = MemoryInstances()
        self.events = MemoryEvents()
        self.hearing = MemoryHearing()
        self.letters = MemoryLetters()
        self.checkup = MemoryCheckup()
        self.world = World(
            registry=self.registry,
            leases=self.leases,
            own_log=self.own_log,
            log_space=MemoryLogSpace(),
            requests=self.requests,
            logs=self.logs,
            instances=self.instances,
            hearing=self.hearing,
            letters=self.letters,
            checkup=self.checkup,
            events=self.events,
            clock=self.clock,
            subjects=Subjects(),
            limits=LIMITS,
            spread=policy,
            listen=_nobody,
            leader_id="control-1",
            version="0",
            ack_wait_s=1.0,
            outcome_ttl_s=60.0,
            replicas=1,
            record_wait_s=0.0,
        )
        self.pending: list[Coroutine[Any, Any, object]] = []
        self.parts = parts = assemble(self.world, spawn=self._spawn)
        self.state, self.roster, self.granting = parts.state, parts.roster, parts.leases
        self.fail_over, self.watch, self.reconcile = parts.fail_over, parts.watch, parts.reconcile
        self.register, self.leave, self.admin = parts.register, parts.leave, parts.admin
        self.spread = parts.spread

    def ends(self) -> None:
        """Its term, and what was begun in it."""
        while self.pending:
            self.pending.pop().close()

    def _spawn(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Leases follow the log by themselves: here at once, since memory makes nobody wait."""
        if (
            self.leases_follow
            and getattr(coroutine, "__name__", "") == Leases._write_leases.__name__
        ):
            with contextlib.suppress(StopIteration, Unavailable):
                coroutine.send(None)
        else:
            self.pending.append(coroutine)

    async def registers(
        self,
        instance_id: str,
        role: Role = Role.AUTO,
        resources: Sequence[str] = ("R1",),
        *,
        run: str = "run1",
        returning: bool = False,
        capacity: float = 1.0,
        offer: int = 0,
        on_demand: OnDemand | None = None,
    ) -> RegistrationReply:
        registration = Registration(
            service=SERVICE,
            instance_id=instance_id,
            incarnation=run,
            methods=[MethodSpec(name="book", targeted=True)],
            resources=dict.fromkeys(resources, role),
            returning=returning,
            offer=offer,
            on_demand=on_demand,
        ).model_copy(update={"capacity": capacity})
        return await self.register(registration.model_dump_json().encode())

    async def leaves(self, instance_id: str, *, run: str = "run1") -> Ack:
        leave = Leave(service=SERVICE, instance_id=instance_id, incarnation=run)
        return await self.leave(leave.model_dump_json().encode())

    def beats(
        self,
        *instance_ids: str,
        run: str = "run1",
        loop_lag_s: float = 0.0,
        lag_entries: int = 0,
        wall_s: float = 0.0,
        paused: int = 0,
        draining: bool = False,
        connected: str = "",
        offer: int = 0,
        requests_done: int = 0,
        own_number: int = 0,
        held_running: int = 0,
    ) -> None:
        for instance_id in instance_ids:
            self.watch.heard(
                Heartbeat(
                    service=SERVICE,
                    instance_id=instance_id,
                    incarnation=run,
                    session=f"{connected or instance_id}.main",
                    pulse=f"{connected or instance_id}.pulse",
                    n=1,
                    loop_lag_s=loop_lag_s,
                    lag_entries=lag_entries,
                    wall_s=wall_s,
                    paused=paused,
                    draining=draining,
                    offer=offer,
                    requests_done=requests_done,
                    own_number=own_number,
                    held_running=held_running,
                )
            )

    async def passes(self, seconds: float, *beating: str) -> None:
        """Time goes by; the instances in `beating` are heard, and silence is judged."""
        end_s = self.clock.now_s + seconds
        while self.clock.now_s < end_s:
            self.clock.now_s += 0.05
            self.beats(*beating)
            self.watch.tick()
            await self.settled()

    async def settled(self) -> None:
        """Everything that was begun has ended."""
        while self.pending:
            await self.pending.pop(0)

    def route(self, resource: str = "R1") -> str:
        """`b 2 held`: the owner, the epoch and the state, as stored."""
        entry = self.leases.entries[Subjects.lease_key(SERVICE, resource)]
        assert entry.value is not None
        lease = LeaseRecord.model_validate_json(entry.value)
        return f"{lease.owner} {lease.epoch} {lease.state.value}"

    def lease(self, resource: str = "R1") -> LeaseRecord:
        entry = self.leases.entries[Subjects.lease_key(SERVICE, resource)]
        assert entry.value is not None
        return LeaseRecord.model_validate_json(entry.value)

    def owned(self) -> Owned:
        """What the log says, read anew."""
        found = Owned()
        for entry in self.own_log.entries.get(SERVICE, ()):
            found.read(entry)
        return found

    def told(self, resource: str = "R1") -> str:
        """`b 2`: the owner and the epoch, as the log says them."""
        ownership = self.owned().ownership
        return f"{run_of(ownership.owner(resource))[0]} {ownership.epoch(resource)}"

    def member(self, instance_id: str) -> Member:
        return self.state.services[SERVICE].members[instance_id]
