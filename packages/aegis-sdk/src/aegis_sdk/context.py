"""What a handler is given. The type says what it may do: only a ResourceContext has state.

Invariant: nothing here reaches outside until the outcome is stored; a state change is an overlay
that becomes part of that one message.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Protocol, TypeVar

from aegis_sdk.application.calls import Calls
from aegis_sdk.contract import arguments, order_ids
from aegis_sdk.contract.envelope import Change, Request
from aegis_sdk.contract.event import Event
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.trace import trace_id
from aegis_sdk.contract.turns.events import content_of
from aegis_sdk.contract.turns.sends import handed_in
from aegis_sdk.contract.turns.timers import NO_TIMERS, Timer
from aegis_sdk.errors import ContractError, InvalidArgument
from aegis_sdk.evolution import Evolution
from aegis_sdk.state import ReadState, State
from aegis_sdk.telemetry import about, log
from aegis_sdk.timers import TimerChanges, due_s

Req = TypeVar("Req")
Rep = TypeVar("Rep")
T = TypeVar("T")


class Ticket:
    """A durable request that was accepted; `id` outlives this process and is all that attach needs."""

    __slots__ = ("id", "resource", "service")

    def __init__(self, request_id: str, service: str, resource: str | None) -> None:
        self.id = request_id
        self.service = service
        self.resource = resource

    def __repr__(self) -> str:
        return f"Ticket({self.id!r})"


class Asks(Protocol):
    """Makes requests on behalf of a handler, with ids derived from the request it serves."""

    async def ask(
        self,
        method: Method[Req, Rep],
        payload: Req,
        *,
        resource: str | None,
        timeout_s: float | None,
        parent: Request,
        calls: Calls,
    ) -> Rep: ...

    async def hand_in(
        self,
        method: Method[Req, Any],
        payload: Req,
        *,
        resource: str | None,
        parent: Request,
        calls: Calls,
    ) -> Ticket: ...

    def later(
        self, method: Method[Req, Any], payload: Req, *, name: str, parent: Request
    ) -> Request: ...


class Context:
    """The request being handled, and the way to make further ones."""

    def __init__(
        self, request: Request, *, instance_id: str, begun: int, asks: Asks, calls: Calls
    ) -> None:
        self._request = request
        self._asks = asks
        self._calls = calls
        self.instance_id = instance_id
        self.attempt = begun
        """1 at the first run; higher when the handler runs again (a retry, or after a crash)."""

    @property
    def request_id(self) -> str:
        """As the caller knows it: `<caller>.<n>`, the same in every run."""
        return self._request.request_id

    @property
    def idempotency_key(self) -> str:
        """Stable over every re-run of this request: pass it to outside systems that take any text.

        It has up to 2,048 characters, dots and tildes among them. Where a venue takes fewer, see `order_id`.
        """
        return self._request.request_id

    def order_id(
        self,
        name: str = "",
        *,
        length: int = order_ids.LENGTH,
        alphabet: str = order_ids.ALPHABET,
    ) -> str:
        """An id for a system that takes so many characters of these kinds (a ClOrdID): the same in every run.

        Whatever instance runs this request, after a crash or a failover, gets the same id for the same arguments. It is
        also the same when a retry of the caller's handler asks this request anew, or an operator sends it again: it may have
        reached the venue before it failed. A handler that needs several names each (`order_id(leg.symbol)`); then
        it does not matter in which order they are asked for.

        Ids are refused that could be equal by chance: with N possible ids and n in use, that is about n² / 2N. At least
        5 · 10¹⁷ must be possible, so that among a million ids two are equal with a chance of at most one in a million.
        So 18 digits are enough, or 12 digits and capitals. Whose venue compares more ids than that takes longer ones.

        Raises:
            InvalidArgument: too few ids, over 64 characters, or an alphabet that repeats a character.
            ContractError: this run has that id already; a second order needs another name.
        """
        name = arguments.text(name, "name", error=InvalidArgument)
        made = order_ids.order_id(self.request_id, name, length=length, alphabet=alphabet)
        if made in self._order_ids:
            raise ContractError(
                f"this run has the order id of name {name!r} already: give each order a name of its own, or keep"
                " the id in a variable"
            )
        self._order_ids = self._order_ids | {made}
        return made

    @property
    def trace_id(self) -> str:
        """Of the caller's trace, 32 hexadecimal digits; every log line about this request carries it."""
        return trace_id(self._request.traceparent)

    @property
    def deadline_s(self) -> float | None:
        """Unix time after which the outcome can no longer be `executed`, or None."""
        return self._request.deadline_s

    def remaining_s(self) -> float | None:
        """Seconds to the deadline by this machine's clock, or None when there is none."""
        deadline = self._request.deadline_s
        return None if deadline is None else deadline - time.time()

    async def request(
        self,
        method: Method[Req, Rep],
        payload: Req,
        *,
        resource: str | None = None,
        timeout_s: float | None = None,
    ) -> Rep:
        """Ask another service and wait; a re-run of this handler gets the stored reply.

        Calls may be made side by side, in any order. What they ask has to come from this request, the state and
        earlier replies: with a clock or chance in it, a re-run would ask something else (CallChanged).

        The deadline is this request's own, or earlier by `timeout_s`. Raises: as Aegis.request, CallChanged, and
        Deadlock when the call chain comes back to a resource that waits for it.
        """
        return await self._asks.ask(
            method,
            payload,
            resource=resource,
            timeout_s=timeout_s,
            parent=self._request,
            calls=self._calls,
        )

    async def submit(
        self, method: Method[Req, Any], payload: Req, *, resource: str | None = None
    ) -> Ticket:
        """Hand a request in without waiting for its outcome; it has no deadline. To the own resource, too.

        Raises: as Aegis.submit, and CallChanged.
        """
        return await self._asks.hand_in(
            method, payload, resource=resource, parent=self._request, calls=self._calls
        )

    def emit(self, event: Event[T], payload: T) -> None:
        """Tell whoever subscribes to `event`, once the outcome of this request is stored.

        It is part of that outcome: a handler that fails, or is rejected, has emitted nothing. The events of a resource
        are stored in the order of its outcomes, each once. It waits for nothing, so pure handlers may emit, too.

        Raises:
            ContractError: the event belongs to another service.
            InvalidPayload: `payload` is not of the event's type; the message names the field.
        """
        arguments.instance_of(event, Event, "event")
        if event.service != self._request.service:
            raise ContractError(
                f"{event!r} belongs to service {event.service}, and this handler to {self._request.service}: a service"
                " emits its own events"
            )
        data = event.payload.encode(payload)
        n = len(self._emitted)
        self._emitted = (*self._emitted, content_of(self._request, event.name, data, n))

    def request_blocking(
        self,
        method: Method[Req, Rep],
        payload: Req,
        *,
        resource: str | None = None,
        timeout_s: float | None = None,
    ) -> Rep:
        """`request` for plain `def` handlers, which run in a thread; never call it on the event loop.

        Raises: as `request`; ContractError in a handler that runs on the loop, as a pure one does.
        """
        if self._loop is None:
            raise ContractError("request_blocking is for plain handlers that run in a thread")
        call = self.request(method, payload, resource=resource, timeout_s=timeout_s)
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def _change(self) -> Change | None:
        """What is stored with the outcome, beside the reply."""
        sends = self._sends()
        return Change(send=sends) if sends else None

    def _sends(self) -> tuple[Mapping[str, Any], ...]:
        return self._emitted + tuple([handed_in(request) for request in self._calls.handed_in])

    _loop: asyncio.AbstractEventLoop | None = None
    _order_ids: frozenset[str] = frozenset()
    _emitted: tuple[Mapping[str, Any], ...] = ()


class ResourceContext(Context):
    """A Context of a targeted request: this instance is the resource's active, and has its state."""

    def __init__(
        self,
        request: Request,
        *,
        instance_id: str,
        begun: int,
        asks: Asks,
        calls: Calls,
        epoch: int,
        values: Mapping[str, Any],
        timers: Mapping[str, Timer] = NO_TIMERS,
        methods: Collection[str] = (),
        evolution: Evolution | None = None,
    ) -> None:
        """`timers`: the resource's by name. `methods`: what its service has here."""
        super().__init__(request, instance_id=instance_id, begun=begun, asks=asks, calls=calls)
        self.epoch = epoch
        """The fencing token: only rises. Pass it to outside systems that can check it."""
        self.state = State(values, evolution)
        self._evolution = evolution
        self._stored_timers = timers
        self._methods = methods

    def later(
        self,
        method: Method[Req, Any],
        payload: Req,
        *,
        after_s: float | None = None,
        at: datetime | None = None,
        name: str | None = None,
    ) -> str:
        """Have this resource do `method` once, after `after_s` seconds or at the time `at`; returns the timer's name.

        It is part of this handler's outcome, as its state: a handler that fails has set nothing. Whoever is the resource's active
        then fires it, within 50 ms, or when there is one again. A time that has passed fires soon. `at` names its zone:
        `datetime(2026, 11, 2, 16, tzinfo=ZoneInfo("America/New_York"))`. `after_s` counts from this call. A timer of the same
        `name` (1 to 200 bytes of text) is replaced; without one it gets a name of its own. `method` is this service's.

        Raises:
            InvalidArgument: neither or both of `after_s` and `at`, a datetime without a zone, seconds below 0.
            InvalidName: a name that is empty or too long.
            ContractError: another service's method, or one that this instance does not have; too many timers.
            InvalidPayload: the payload doesn't fit `method`.
        """
        due = due_s(after_s, at)
        arguments.instance_of(method, Method, "method")
        self._check_own(method)
        changes = self._timer_changes()
        name = changes.name(name, method.name, self.request_id)
        request = self._asks.later(method, payload, name=name, parent=self._request)
        changes.set(name, due, request)
        return name

    def drop_timer(self, name: str) -> bool:
        """Have a timer of this resource not fire; whether there was one of that name. Part of the outcome, as `later` is.

        One whose request waits for its turn behind this one does not run either. Raises: InvalidName.
        """
        return self._timer_changes().drop(name)

    @property
    def timers(self) -> dict[str, float]:
        """When each timer of this resource is due (Unix time), by name; with what this handler has set and dropped."""
        return self._timer_changes().now()

    def _timer_changes(self) -> TimerChanges:
        if self._timers is None:
            self._timers = TimerChanges(self._stored_timers)
        return self._timers

    def _check_own(self, method: Method[Any, Any]) -> None:
        if method.service != self._request.service:
            raise ContractError(
                f"a timer is for its own resource, and {method!r} is of another service: set a timer for a method of"
                f" {self._request.service}, and let its handler submit {method!r}"
            )
        if method.name not in self._methods:
            raise ContractError(
                f"{method!r} has no handler here: register one with `Service.handles` before a timer is set for it"
            )

    def _change(self) -> Change:
        change = self.state.change()
        if self.state.dropped:
            self._tell_dropped()
        change.send = self._sends()
        if self._timers is not None:
            change.drop, change.later = self._timers.change()
        return change

    _timers: TimerChanges | None = None

    @property
    def resource(self) -> str:
        """The id that the request names; the state is this resource's."""
        resource = self._request.resource
        assert resource is not None  # a ResourceContext is made for targeted requests only
        return resource

    def _tell_dropped(self) -> None:
        """Once for each type and its fields."""
        for key, type_name, fields in self.state.dropped:
            if self._evolution is None or self._evolution.is_news(type_name, *fields):
                log.warning(
                    "state_fields_dropped",
                    **about(self._request),
                    instance_id=self.instance_id,
                    key=key,
                    fields=fields,
                    hint="another version stored these fields, and the handler set the key without reading it: read it"
                    " before, so that they are kept",
                )


class ReadContext:
    """What a reader is given: a resource's state as this instance has it, and nothing to change it with."""

    __slots__ = ("_request", "instance_id", "state")

    def __init__(
        self,
        request: Request,
        *,
        instance_id: str,
        values: Mapping[str, Any],
        evolution: Evolution | None = None,
    ) -> None:
        self._request = request
        self.instance_id = instance_id
        self.state = ReadState(values, evolution)

    @property
    def resource(self) -> str:
        """The id that the read names; the state is this resource's."""
        return self._request.resource or ""

    @property
    def trace_id(self) -> str:
        """Of the caller's trace, 32 hexadecimal digits; every log line about this request carries it."""
        return trace_id(self._request.traceparent)
