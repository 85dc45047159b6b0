"""What the console page is shown, and what it may ask to be done.

Every replica serves it: what only the leader knows is asked of the leader, like by any operator. However
many pages look, each document is made once in its time, and none waits for a slow read of the streams.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from aegis_sdk.contract.control import AdminReply, EventRecord, LeaseState, ServiceRecord
from aegis_sdk.errors import Unavailable
from pydantic import BaseModel, ConfigDict, Field

from aegis_control.application.operators.explain import Archive, Explain
from aegis_control.application.operators.history import Point, Query
from aegis_control.application.operators.survey import Overview, ServiceSummary
from aegis_control.application.ports import Backlog, Clock
from aegis_control.domain.operators import asyncapi
from aegis_control.domain.operators.alarms import Alarm, Part, ServiceFacts, SystemFacts, alarms
from aegis_control.domain.operators.health import Level
from aegis_control.domain.operators.story import Story
from aegis_control.domain.operators.timeline import Failover, failovers

EVENTS_MAX: Final = 500
LETTERS_MAX: Final = 200
OVERVIEW_AGE_S: Final = 0.5
"""Pages ask each second: one in a hundred of them finds what another has asked for already."""
BACKLOG_AGE_S: Final = 2.0
LETTERS_AGE_S: Final = 2.0
EXPLAIN_SEARCH_S: Final = 3.0
"""Control has other work: who needs a longer search has `ipc-cli explain --search`."""
EXPLAIN_S_MAX: Final = 8.0
"""For everything that is read: two searches, children and a month of events."""
_ITEMS_MAX: Final = 3
_NOT_SHOWN: Final = frozenset({"epochs", "trace"})
VERBS: Final = frozenset({"failover", "drain", "disconnect", "dlq-redrive"})

Ask = Callable[[str, bytes], Awaitable[AdminReply]]
"""An operator's verb to the leader. Raises: Unavailable."""
T = TypeVar("T")


class Letter(BaseModel):
    """A dead letter without its payload."""

    request_id: str
    service: str
    method: str
    resource: str | None
    since: float
    error_code: str
    error: str
    trace_id: str


class Shelf(Archive, Protocol):
    """The archive, with the newest dead letters."""

    async def newest_letters(self, most: int) -> list[Letter]:
        """The newest first. Raises: Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Replica:
    """This replica of control, now."""

    id: str
    version: str
    prefix: str
    connected: bool
    leader: str
    """The id of the leading one; empty when nobody leads."""


class ServiceNow(ServiceSummary):
    depth: int | None = None
    """Requests that wait or are in work; None when it could not be read."""


class OverviewNow(BaseModel):
    """`services` is None when no leader answers, and `why` says so."""

    time_s: float
    replica: str
    version: str
    prefix: str
    connected: bool
    leader: str
    actions: bool
    """A token is set: things can be changed from here."""
    why: str = ""
    alarms: list[Alarm] = []
    services: list[ServiceNow] | None = None
    dead_letters: int | None = None


class Event(BaseModel):
    seq: int
    time: float
    event: str
    details: dict[str, Any]


class EventsNow(BaseModel):
    """`last` is the newest event's sequence; the lists are empty when nothing is newer than asked for."""

    last: int
    events: list[Event] = []
    failovers: list[Failover] | None = None
    """All that are among the kept events; None when nothing is new."""


class LettersNow(BaseModel):
    """The newest of `total`."""

    total: int | None
    letters: list[Letter]


class Action(BaseModel):
    """What an operator wants done. `by` is the name that he or she typed."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    by: str = Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")
    service: str | None = None
    resources: list[str] | None = None
    to: str | None = None
    instance_id: str | None = None
    request_id: str | None = None
    reason: str = Field("", max_length=500)
    dry_run: bool = False


class Timeline:
    """The last events, bounded, with their places in the stream."""

    def __init__(self) -> None:
        self._kept: deque[tuple[int, EventRecord]] = deque(maxlen=EVENTS_MAX)
        self._failovers: list[Failover] | None = []
        """None: not told yet from what is kept."""

    @property
    def last(self) -> int:
        return self._kept[-1][0] if self._kept else 0

    @property
    def failovers(self) -> list[Failover]:
        """The newest first."""
        if self._failovers is None:
            self._failovers = failovers(event for _, event in self._kept)
        return self._failovers

    def keep(self, seq: int, event: EventRecord) -> None:
        """Once each, in their order; a stream that was made anew begins again."""
        if seq <= self.last:
            self._kept.clear()
        self._kept.append((seq, event))
        self._failovers = None

    def since(self, seq: int) -> EventsNow:
        """All that are kept if `seq` is of another stream's time."""
        if seq == self.last:
            return EventsNow(last=self.last)
        after = seq if seq < self.last else 0
        news = [_shown(at, event) for at, event in self._kept if at > after]
        return EventsNow(last=self.last, events=news, failovers=self.failovers)


class Console:
    """One replica's. All methods but `overview` and `events` may raise Unavailable."""

    def __init__(
        self,
        *,
        ask: Ask,
        shelf: Shelf,
        backlog: Callable[[Sequence[str]], Awaitable[Backlog]],
        history: Callable[[Query], Mapping[str, Sequence[Point]]],
        replica: Callable[[], Replica],
        clock: Clock,
        actions: bool,
        explain_s_max: float = EXPLAIN_S_MAX,
    ) -> None:
        self._ask = ask
        self._explain_s_max = explain_s_max
        self._shelf = shelf
        self._history = history
        self._replica = replica
        self._clock = clock
        self._actions = actions
        self._names: list[str] = []
        self._overview = Fresh(self._make_overview, clock, age_s=OVERVIEW_AGE_S)
        self._letters = Fresh(self._read_letters, clock, age_s=LETTERS_AGE_S)
        self._backlog = Lazy(lambda: backlog(self._names), clock, age_s=BACKLOG_AGE_S)
        self.timeline = Timeline()

    async def overview(self) -> OverviewNow:
        return await self._overview.get()

    async def resources(self, data: bytes) -> AdminReply:
        """The leader's answer to FindResources."""
        return await self._ask("resources", data)

    async def contract(self, service: str) -> AdminReply:
        """The leader's answer: the ServiceRecord."""
        return await self._ask("contract", json.dumps({"service": service}).encode())

    def asyncapi(self, record: ServiceRecord) -> dict[str, Any]:
        """The same as an AsyncAPI document."""
        return asyncapi.document(record, self._replica().prefix)

    def events(self, after: int) -> EventsNow:
        return self.timeline.since(after)

    async def letters(self) -> LettersNow:
        return await self._letters.get()

    async def explain(self, request_id: str) -> Story:
        """What `ipc-cli explain` says, as far as it is found soon. Raises: InvalidName, NotFound, Unavailable."""
        tell = Explain(self._shelf, now_s=self._clock.wall(), search_s=EXPLAIN_SEARCH_S)
        try:
            async with asyncio.timeout(self._explain_s_max):
                return await tell(request_id)
        except TimeoutError as error:
            what = (
                f"{request_id} was not told within {self._explain_s_max:g} s; try ipc-cli explain"
            )
            raise Unavailable(what) from error

    async def act(self, verb: str, action: Action) -> AdminReply:
        """`verb` is one of VERBS; control records who asked, as with every operator."""
        wanted = action.model_dump(exclude_none=True) | {"by": f"console:{action.by}"}
        return await self._ask(verb, json.dumps(wanted).encode())

    async def _make_overview(self) -> OverviewNow:
        me = self._replica()
        now = OverviewNow(
            time_s=self._clock.wall(),
            replica=me.id,
            version=me.version,
            prefix=me.prefix,
            connected=me.connected,
            leader=me.leader,
            actions=self._actions,
        )
        try:
            reply = await self._ask("overview", b"")
        except Unavailable as error:
            why = str(error) if me.connected else "this control is not connected to NATS"
            return _without_leader(now, why)
        if not reply.ok:
            return _without_leader(now, reply.message)
        return self._filled(now, Overview.model_validate(reply.data))

    def _filled(self, now: OverviewNow, told: Overview) -> OverviewNow:
        self._names = [service.service for service in told.services]
        backlog = self._backlog.get()
        depths = backlog.by_service() if backlog else {}
        now.services = [
            ServiceNow(**dict(service), depth=depths.get(service.service))
            for service in told.services
        ]
        now.dead_letters = backlog.dead_letters if backlog else None
        facts = SystemFacts(
            now_s=self._clock.wall(),
            services=[self._facts_of(service) for service in now.services],
            dead_letters=now.dead_letters or 0,
            unreadable_values=told.unreadable_values,
            failovers=self.timeline.failovers,
        )
        now.alarms = alarms(facts)
        return now

    def _facts_of(self, service: ServiceNow) -> ServiceFacts:
        after_s = self._clock.wall() - _LOOKED_AT_S
        points = self._history(Query(service.service, after_s))[service.service]
        return ServiceFacts(
            name=service.service,
            instances=service.instances,
            waiting=service.leases.get(LeaseState.WAITING, 0),
            vacant=service.leases.get(LeaseState.VACANT, 0),
            unfollowed=service.unfollowed,
            log_lost=service.log_lost,
            paused=service.paused,
            depth=service.depth or 0,
            failures_per_s=[point.failures_per_s for point in points],
            p99_ms=[point.p99_ms for point in points if point.p99_ms is not None],
        )

    async def _read_letters(self) -> LettersNow:
        backlog = self._backlog.get()
        letters = await self._shelf.newest_letters(LETTERS_MAX)
        return LettersNow(total=backlog.dead_letters if backlog else None, letters=letters)


_LOOKED_AT_S: Final = 30.0
"""Of the history, for what is said in words."""


class Fresh(Generic[T]):
    """A value that is made again when it is older than `age_s`; who comes meanwhile waits for that one."""

    def __init__(self, make: Callable[[], Awaitable[T]], clock: Clock, *, age_s: float) -> None:
        self._make = make
        self._clock = clock
        self._age_s = age_s
        self._made_at_s = float("-inf")
        self._value: T | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> T:
        """Raises what `make` raises."""
        async with self._lock:
            is_old = self._clock.monotonic() - self._made_at_s >= self._age_s
            if is_old or self._value is None:
                self._value = await self._make()
                self._made_at_s = self._clock.monotonic()
            return self._value


class Lazy:
    """The last value read, at once; reading goes on beside it, and only while somebody asks."""

    def __init__(
        self, read: Callable[[], Awaitable[Backlog]], clock: Clock, *, age_s: float
    ) -> None:
        self._read = read
        self._clock = clock
        self._age_s = age_s
        self._begun_at_s = float("-inf")
        self._value: Backlog | None = None
        self._reading: asyncio.Future[None] | None = None

    def get(self) -> Backlog | None:
        """None until it was read once."""
        is_old = self._clock.monotonic() - self._begun_at_s >= self._age_s
        if is_old and (self._reading is None or self._reading.done()):
            self._begun_at_s = self._clock.monotonic()
            self._reading = asyncio.ensure_future(self._take())
        return self._value

    async def _take(self) -> None:
        try:
            self._value = await self._read()
        except Unavailable:
            return  # what was read last stands, as on a page that is stale


def _without_leader(now: OverviewNow, why: str) -> OverviewNow:
    do = "requests go on meanwhile; nothing fails over: look at control's log and at NATS"
    now.why = why
    now.alarms = [Alarm(Level.BAD, Part.CONTROL, f"no leading control answers: {why}", do)]
    return now


def _shown(seq: int, event: EventRecord) -> Event:
    """Long lists by their first items and their length: an event may name thousands of resources."""
    details = {
        key: _short(value)
        for key, value in (event.model_extra or {}).items()
        if key not in _NOT_SHOWN and value not in _EMPTY
    }
    return Event(seq=seq, time=event.time, event=event.event, details=details)


_EMPTY: Final[tuple[object, ...]] = ("", None, [], {})


def _short(value: Any) -> Any:
    if isinstance(value, list) and len(value) > _ITEMS_MAX:
        return [*value[:_ITEMS_MAX], f"… ({len(value)})"]
    return value
