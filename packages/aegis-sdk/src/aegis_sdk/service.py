"""A service: a named set of handlers, without a connection. `Aegis.serve` runs an instance of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from aegis_sdk import signatures
from aegis_sdk.context import ReadContext
from aegis_sdk.contract import arguments
from aegis_sdk.contract.control import Compatibility, EventSpec, MethodSpec
from aegis_sdk.contract.event import Event
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.names import check_service
from aegis_sdk.contract.subscription import Subscription, begin_of, handler_name, takes
from aegis_sdk.domain.retries import Retries
from aegis_sdk.errors import ContractError, InvalidArgument
from aegis_sdk.evolution import Evolution, Migration
from aegis_sdk.words import said

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
Callback = Callable[[str], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Handler:
    """A registered handler. `targeted`: it takes a ResourceContext, so requests must name a resource.

    `pure`: it only computes, and `urgent`: its requests pass others, see `Service.handles`.
    """

    method: Method[Any, Any]
    function: Callable[[Any, Any], Any]
    is_async: bool
    targeted: bool
    retries: Retries
    pure: bool = False
    urgent: bool = False
    takes: str = ""
    """The event that it handles."""

    def spec(self) -> MethodSpec:
        return MethodSpec(
            name=self.method.name,
            targeted=self.targeted,
            urgent=self.urgent,
            takes=self.takes,
            request_schema=self.method.request.schema(),
            reply_schema=self.method.reply.schema(),
        )


@dataclass(frozen=True, slots=True)
class Reader:
    """A registered reader: a plain function of a resource's state and a query."""

    method: Method[Any, Any]
    function: Callable[[Any, Any], Any]

    def spec(self) -> MethodSpec:
        return MethodSpec(
            name=self.method.name,
            targeted=True,
            reads=True,
            request_schema=self.method.request.schema(),
            reply_schema=self.method.reply.schema(),
        )


LARGE_CHANGE_BYTES: Final = 64 * 1024
"""Half of a turn: every request that changes so much is stored almost alone."""


class Service:
    """`Service("accounts")`; handlers are added by `@service.handles(METHOD)`.

    `compatibility`: control compares its contracts with those that are registered. What breaks callers is told by an event
    ("warn"), refuses the instance ("strict"), or is nobody's concern ("off").

    `emits`: events that its handlers emit. They may emit others, too: what is named here is in the registered contract, and its
    stream is there before the first one.

    `large_change_bytes`: a request that changes more of the state is told by a log line, `change_large`, once a method.

    Raises: InvalidName, InvalidArgument; ContractError, for an event of another service, or one that is named twice.
    """

    def __init__(
        self,
        name: str,
        *,
        version: str = "",
        compatibility: str = Compatibility.WARN,
        emits: Iterable[Event[Any]] = (),
        large_change_bytes: int = LARGE_CHANGE_BYTES,
    ) -> None:
        self.compatibility = _compatibility(compatibility)
        self.name = check_service(arguments.text(name, "name"))
        self.version = arguments.text(version, "version", error=InvalidArgument)
        self.large_change_bytes = arguments.whole(
            large_change_bytes, "large_change_bytes", least=1, most=2**31
        )
        self.handlers: dict[str, Handler] = {}
        self.events = _own_events(self.name, emits)
        self.evolution = Evolution()
        self.readers: dict[str, Reader] = {}
        self.subscriptions: dict[str, Subscription] = {}
        """By the name of the method that handles it."""
        self.promoted_callbacks: list[Callback] = []
        self.demoted_callbacks: list[Callback] = []

    def handles(
        self,
        method: Method[Any, Any] | str = "",
        *,
        retries: Retries | None = None,
        pure: bool = False,
        urgent: bool = False,
    ) -> Callable[[F], F]:
        """Serve `method` by an `async def`, or by a plain `def`, which runs in a thread.

        The handler takes (context, request); bound methods, partials and callable objects do, too. What it
        returns is awaited if it can be. With its context annotated as ResourceContext it serves targeted requests, as
        Context group requests. `retries` are opt-in: without them, an exception is the answer
        (HandlerFailed).

        `method` is a Method where callers import it. With a name in its place, or with nothing, which means the function's
        name, the annotations of the request and of the return are the contract; `method(name)` returns it.

        `pure` is your word that a plain `def` for targeted requests reads its request and the resource's
        state, changes nothing but that state, and is quick. It runs on the event loop itself, and on a
        replicated journal many requests of a hot resource are then stored at once: it may be run on a
        state that is not stored yet, and again if that does not come to be. It can make no requests.

        `urgent` requests (a cancel) pass those that wait for their resource, also their own caller's and stored ones. They
        pass neither what has begun nor one another. Where they never cease, others wait until their deadlines.

        Raises:
            ContractError: the method belongs to another service, or has a handler already; the handler's
                context is not annotated, or it can't be called with (context, request); its annotations name other models
                than the method, or no type that can be stored; a pure handler waits, takes no resource, or has retries;
                an urgent one takes no resource.
        """
        _check_parentheses(method, "handles")
        if retries is not None:
            arguments.instance_of(retries, Retries, "retries")
        self._check_new(method)

        def register(function: F) -> F:
            handler = Handler(
                self._contract(method, function),
                function,
                signatures.is_async(function),
                signatures.takes_resource(function),
                retries or Retries(),
                pure,
                urgent,
            )
            if urgent and not handler.targeted:
                raise ContractError(
                    f"handler {signatures.name_of(function)}: an urgent one passes others of its resource, so it takes a"
                    " ResourceContext; the group's requests do not wait for each other"
                )
            self._add(handler, has_retries=retries is not None)
            return function

        return register

    def on(
        self,
        event: Event[T],
        *,
        resource: Callable[[T], str] | None = None,
        begin: datetime | int | str | None = None,
        retries: Retries | None = None,
        pure: bool = False,
    ) -> Callable[[F], F]:
        """Handle each `event` of another service, once.

            @pnl.on(FILLED, resource=lambda fill: fill.account)
            async def book(ctx: ResourceContext, fill: Fill) -> None: ...

        The handler takes (context, payload), and returns None. `resource` says which of this service's resources an event
        is for: its active handles it, with its state, and in the order in which the emitter's resource emitted. Without
        it, the group handles events, in any order. `retries` and `pure` are as for `handles`.

        A handler that rejects or fails ends the event, which becomes a dead letter: the next ones do not wait for it. So
        does a payload that can't be read, or for which `resource` gives no resource's id.

        `begin` says where a *new* subscription begins: from now on (None), from the oldest one that is kept ("all"), from a
        time (a datetime with a time zone), or from a position in the stream of events. A subscription is new once. From then
        on it goes on where it is, whatever `begin` says, also while no instance of this service runs.

        Raises:
            ContractError: the service has a handler for the event already; the handler's context does not fit `resource`; names
                that are too long together; and as for `handles`.
            InvalidArgument: `begin` is no beginning.
        """
        arguments.instance_of(event, Event, "event")
        if resource is not None:
            arguments.function(resource, "resource")
        if retries is not None:
            arguments.instance_of(retries, Retries, "retries")
        method: Method[T, None] = Method(
            self.name, handler_name(event), request=event.payload.type, reply=type(None)
        )
        if method.name in self.handlers:
            raise ContractError(f"{event!r} has a handler already")
        self._check_free(method.name)
        subscription = Subscription(event, method, resource, begin_of(begin))

        def register(function: F) -> F:
            signatures.check_fits(method, function)
            handler = Handler(
                method,
                function,
                signatures.is_async(function),
                signatures.takes_resource(function),
                retries or Retries(),
                pure,
                takes=takes(event),
            )
            _check_route(handler, has_route=resource is not None)
            self._add(handler, has_retries=retries is not None)
            self.subscriptions[method.name] = subscription
            return function

        return register

    def _add(self, handler: Handler, *, has_retries: bool) -> None:
        """Raises: ContractError."""
        if handler.pure and (handler.is_async or not handler.targeted or has_retries):
            raise ContractError(
                f"handler {signatures.name_of(handler.function)}: a pure one is a plain def that takes a"
                " ResourceContext, without retries"
            )
        self.handlers[handler.method.name] = handler

    def migrates(self, old: Any, new: Any) -> Callable[[F], F]:
        """Read state that is stored in the form `old` where a handler asks for a `new`.

            @accounts.migrates(PositionV1, Position)
            def in_shares(old: PositionV1) -> Position:
                return Position(quantity=old.lots * 100)

        It runs when `new` can't read all that is stored, and `old` can. Several make a chain. It must be pure: it runs at each
        such read. The new form is stored when the handler sets it. Both are types as `ctx.state.get` takes them.

        Raises: ContractError: it waits, there is one already, or `old` is a dict or the like, which takes any form.
        """

        def register(function: F) -> F:
            self.evolution.add(Migration(old, new, function))
            return function

        return register

    def reads(self, method: Method[Any, Any] | str = "") -> Callable[[F], F]:
        """Answer `method` from a resource's state, by a plain `def` that takes (context, query).

        It is asked by `aegis.read`, and nothing of it is stored. It runs on the event loop itself, at the
        resource's active or at a standby, beside handlers that are slow: so it has to be quick. Its context is annotated
        as ReadContext, and has no way to change anything. `method` is as for `handles`.

        Raises:
            ContractError: the method belongs to another service, has a handler or a reader already, or is stored; the
                context is not annotated; the function is async, yields, or can't be called with (context, query); its
                annotations name other models than the method, or no type that can be stored.
        """
        _check_parentheses(method, "reads")
        self._check_new(method)
        if isinstance(method, Method) and method.stored:
            raise ContractError(
                f"{method!r} is declared stored=True, and nothing of a read is stored"
            )

        def register(function: F) -> F:
            name = signatures.name_of(function)
            annotation = signatures.context_annotation(function)
            if not signatures.is_kind_of(annotation, ReadContext):
                raise ContractError(
                    f"reader {name}: annotate its first parameter as ReadContext; it says"
                    f" {signatures.shown(annotation)}"
                )
            if signatures.is_async(function):
                raise ContractError(
                    f"reader {name} is async: a read computes, and waits for nothing"
                )
            reader = Reader(self._contract(method, function), function)
            self.readers[reader.method.name] = reader
            return function

        return register

    def method(self, name: str) -> Method[Any, Any]:
        """The contract of one of its methods, to call it by. Raises: ContractError, when it has no such method."""
        found = self.handlers.get(name) or self.readers.get(name)
        if found is None:
            known = ", ".join(name for name, _ in self.methods()) or "none yet"
            raise ContractError(
                f"service {self.name} has no method {said(name, chars_max=80)!r}; it has: {known}"
            )
        return found.method

    def _contract(
        self, method: Method[Any, Any] | str, function: Callable[..., Any]
    ) -> Method[Any, Any]:
        """The method that is given, or the one that the annotations make. Raises: ContractError, InvalidName."""
        if isinstance(method, Method):
            signatures.check_fits(method, function)
            return method
        name = method or signatures.method_name_of(function)
        self._check_free(name)
        return signatures.method_of(self.name, name, function)

    def _check_new(self, method: Method[Any, Any] | str) -> None:
        """Raises: ContractError."""
        if not isinstance(method, Method):
            return  # its name is looked at when its function is known
        if method.service != self.name:
            raise ContractError(f"{method!r} is not a method of service {self.name}")
        self._check_free(method.name)

    def _check_free(self, name: str) -> None:
        """Raises: ContractError."""
        if name in self.handlers:
            raise ContractError(f"Method({self.name}.{name}) has a handler already")
        if name in self.readers:
            raise ContractError(
                f"Method({self.name}.{name}) has a reader already: it is read, and not handled"
            )

    def on_promoted(self, function: Callback) -> Callback:
        """Called with the resource when this instance became its active, before it serves.

        Its first request waits until the callback has ended, an async one included: for 30 s, then it is
        cancelled. What it raises is logged, and the resource is served.
        """
        arguments.function(function, "on_promoted's callback")
        self.promoted_callbacks.append(function)
        return function

    def on_demoted(self, function: Callback) -> Callback:
        """Called with the resource when this instance is no longer its active. What it raises is logged.

        A promotion's callbacks that still run are cancelled before.
        """
        arguments.function(function, "on_demoted's callback")
        self.demoted_callbacks.append(function)
        return function

    def servable(self) -> None:
        """Raises: ContractError."""
        if not (self.handlers or self.readers):
            raise ContractError(f"service {self.name} has no handler: nothing to serve")

    def specs(self) -> list[MethodSpec]:
        """Its methods as an instance registers them, with their JSON schemas."""
        handled = [handler.spec() for handler in self.handlers.values()]
        return handled + [reader.spec() for reader in self.readers.values()]

    def event_specs(self) -> list[EventSpec]:
        """The events that it says it emits, as an instance registers them."""
        return [
            EventSpec(name=event.name, payload_schema=event.payload.schema())
            for event in self.events.values()
        ]

    def methods(self) -> list[tuple[str, bool]]:
        """The name of each, and whether it takes a resource."""
        handled = [(name, handler.targeted) for name, handler in self.handlers.items()]
        return handled + [(name, True) for name in self.readers]


def _check_route(handler: Handler, *, has_route: bool) -> None:
    """Raises: ContractError."""
    name = signatures.name_of(handler.function)
    if has_route and not handler.targeted:
        raise ContractError(
            f"handler {name}: with resource=... an event goes to a resource: annotate its first parameter as ResourceContext"
        )
    if handler.targeted and not has_route:
        raise ContractError(
            f"handler {name} takes a ResourceContext: say which resource an event is for by resource=lambda payload: ..."
        )


def _own_events(service: str, given: Iterable[Event[Any]]) -> dict[str, Event[Any]]:
    """By name. Raises: ContractError, InvalidArgument."""
    events: dict[str, Event[Any]] = {}
    for event in arguments.several_of(given, Event, "emits", "[FILLED]"):
        if event.service != service:
            raise ContractError(f"{event!r} is not an event of service {service}")
        if event.name in events:
            raise ContractError(f"{event!r} is named twice in emits")
        events[event.name] = event
    return events


def _compatibility(given: object) -> Compatibility:
    """Raises: InvalidArgument."""
    try:
        return Compatibility(given)  # type: ignore[arg-type]
    except ValueError:
        raise InvalidArgument(
            f"compatibility must be one of {', '.join(Compatibility)}, and is"
            f" {said(given, chars_max=40)!r}"
        ) from None


def _check_parentheses(method: object, decorator: str) -> None:
    """Raises: ContractError, for `@service.handles` above a function, and for what is no method."""
    if isinstance(method, Method | str):
        return
    if callable(method) and not isinstance(method, type):
        raise ContractError(
            f"{signatures.name_of(method)}: write @service.{decorator}(METHOD), with a Method, or"
            f" @service.{decorator}() to take the contract from its annotations"
        )
    arguments.instance_of(method, Method, "method")
