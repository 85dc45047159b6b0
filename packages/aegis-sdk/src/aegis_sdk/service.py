"""A service: a named set of handlers, without a connection. `Aegis.serve` runs an instance of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin

from aegis_sdk.context import Context, ReadContext, ResourceContext
from aegis_sdk.contract import arguments
from aegis_sdk.contract.control import Compatibility, EventSpec, MethodSpec
from aegis_sdk.contract.event import Event
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.names import check_service
from aegis_sdk.domain.retries import Retries
from aegis_sdk.errors import ContractError, InvalidArgument
from aegis_sdk.evolution import Evolution, Migration
from aegis_sdk.words import said

F = TypeVar("F", bound=Callable[..., Any])
Callback = Callable[[str], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Handler:
    """A registered handler. `targeted`: it takes a ResourceContext, so requests must name a resource.

    `pure`: it only computes, see `Service.handles`.
    """

    method: Method[Any, Any]
    function: Callable[[Any, Any], Any]
    is_async: bool
    targeted: bool
    retries: Retries
    pure: bool = False

    def spec(self) -> MethodSpec:
        return MethodSpec(
            name=self.method.name,
            targeted=self.targeted,
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


class Service:
    """`Service("accounts")`; handlers are added by `@service.handles(METHOD)`.

    `compatibility`: control compares its contracts with those that are registered. What breaks callers is told by an event
    ("warn"), refuses the instance ("strict"), or is nobody's concern ("off").

    `emits`: events that its handlers emit. They may emit others, too: what is named here is in the registered contract, and its
    stream is there before the first one.

    Raises: InvalidName, InvalidArgument; ContractError, for an event of another service, or one that is named twice.
    """

    def __init__(
        self,
        name: str,
        *,
        version: str = "",
        compatibility: str = Compatibility.WARN,
        emits: Iterable[Event[Any]] = (),
    ) -> None:
        self.compatibility = _compatibility(compatibility)
        self.name = check_service(arguments.text(name, "name"))
        self.version = arguments.text(version, "version", error=InvalidArgument)
        self.handlers: dict[str, Handler] = {}
        self.events = _own_events(self.name, emits)
        self.evolution = Evolution()
        self.readers: dict[str, Reader] = {}
        self.promoted_callbacks: list[Callback] = []
        self.demoted_callbacks: list[Callback] = []

    def handles(
        self, method: Method[Any, Any], *, retries: Retries | None = None, pure: bool = False
    ) -> Callable[[F], F]:
        """Serve `method` by an `async def`, or by a plain `def`, which runs in a thread.

        The handler takes (context, request); bound methods, partials and callable objects do, too. What it
        returns is awaited if it can be. With its context annotated as ResourceContext it serves targeted requests, as
        Context group requests. `retries` are opt-in: without them, an exception is the answer
        (HandlerFailed).

        `pure` is your word that a plain `def` for targeted requests reads its request and the resource's
        state, changes nothing but that state, and is quick. It runs on the event loop itself, and on a
        replicated journal many requests of a hot resource are then stored at once: it may be run on a
        state that is not stored yet, and again if that does not come to be. It can make no requests.

        Raises:
            ContractError: the method belongs to another service, or has a handler already; the handler's
                context is not annotated, or it can't be called with (context, request); a pure
                handler waits, takes no resource, or has retries.
        """
        arguments.instance_of(method, Method, "method")
        if retries is not None:
            arguments.instance_of(retries, Retries, "retries")
        self._check_new(method)

        def register(function: F) -> F:
            handler = Handler(
                method,
                function,
                _is_async(function),
                _takes_resource(function),
                retries or Retries(),
                pure,
            )
            if pure and (handler.is_async or not handler.targeted or retries is not None):
                raise ContractError(
                    f"handler {_name(function)}: a pure one is a plain def that takes a"
                    " ResourceContext, without retries"
                )
            self.handlers[method.name] = handler
            return function

        return register

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

    def reads(self, method: Method[Any, Any]) -> Callable[[F], F]:
        """Answer `method` from a resource's state, by a plain `def` that takes (context, query).

        It is asked by `aegis.read`, and nothing of it is stored. It runs on the event loop itself, at the
        resource's active or at a standby, beside handlers that are slow: so it has to be quick. Its context is annotated
        as ReadContext, and has no way to change anything.

        Raises:
            ContractError: the method belongs to another service, has a handler or a reader already, or is stored; the
                context is not annotated; the function is async, yields, or can't be called with (context, query).
        """
        arguments.instance_of(method, Method, "method")
        self._check_new(method)
        if method.stored:
            raise ContractError(
                f"{method!r} is declared stored=True, and nothing of a read is stored"
            )

        def register(function: F) -> F:
            name = _name(function)
            annotation = _context_annotation(function)
            if not _is_kind_of(annotation, ReadContext):
                raise ContractError(
                    f"reader {name}: annotate its first parameter as ReadContext; it says"
                    f" {_shown(annotation)}"
                )
            if _is_async(function):
                raise ContractError(
                    f"reader {name} is async: a read computes, and waits for nothing"
                )
            self.readers[method.name] = Reader(method, function)
            return function

        return register

    def _check_new(self, method: Method[Any, Any]) -> None:
        """Raises: ContractError."""
        if method.service != self.name:
            raise ContractError(f"{method!r} is not a method of service {self.name}")
        if method.name in self.handlers:
            raise ContractError(f"{method!r} has a handler already")
        if method.name in self.readers:
            raise ContractError(f"{method!r} has a reader already: it is read, and not handled")

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
        handled = [handler.spec() for handler in self.handlers.values()]
        return handled + [reader.spec() for reader in self.readers.values()]

    def event_specs(self) -> list[EventSpec]:
        return [
            EventSpec(name=event.name, payload_schema=event.payload.schema())
            for event in self.events.values()
        ]

    def methods(self) -> list[tuple[str, bool]]:
        """The name of each, and whether it takes a resource."""
        handled = [(name, handler.targeted) for name, handler in self.handlers.items()]
        return handled + [(name, True) for name in self.readers]


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


def _takes_resource(function: Callable[..., Any]) -> bool:
    """Read from the annotation of the first parameter, the context. Raises: ContractError."""
    annotation = _context_annotation(function)
    if _is_kind_of(annotation, Context):
        return issubclass(annotation, ResourceContext)
    hint = "; a ReadContext is for `reads`" if _is_kind_of(annotation, ReadContext) else ""
    raise ContractError(
        f"handler {_name(function)}: annotate its first parameter as Context (group requests) or as"
        f" ResourceContext (requests that name a resource); it says {_shown(annotation)}{hint}"
    )


def _is_kind_of(annotation: Any, kind: type) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, kind)


def _shown(annotation: Any) -> str:
    return "nothing" if annotation is inspect.Parameter.empty else repr(annotation)


def _context_annotation(function: Callable[..., Any]) -> Any:
    """Of the first parameter. Raises: ContractError."""
    annotation = _annotation(function)
    if isinstance(annotation, str):
        annotation = _looked_up(annotation, function)
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _annotation(function: Callable[..., Any]) -> Any:
    """Of the parameter that is given the context. Raises: ContractError."""
    name = _name(function)
    if not callable(function):
        raise ContractError(
            f"handler {name} can't be called: register the bound method of an object"
        )
    yields = inspect.isgeneratorfunction, inspect.isasyncgenfunction
    if any(is_one(layer) for is_one in yields for layer in _layers(function)):
        raise ContractError(f"handler {name} yields: it must return its reply")
    try:
        signature = inspect.signature(function)
        signature.bind(None, None)
    except (TypeError, ValueError) as error:
        raise ContractError(
            f"handler {name}: expected (context, request), {error}; of a class, register the bound"
            " method of an object"
        ) from error
    return next(iter(signature.parameters.values())).annotation


def _looked_up(annotation: str, function: Callable[..., Any]) -> Any:
    """The class that an annotation in quotes, or under `from __future__ import annotations`, names."""
    innermost = inspect.unwrap(_layers(function)[-1])
    try:
        return eval(annotation, getattr(innermost, "__globals__", {}))
    except Exception:  # a local name, or one that only type checkers import
        known = {known.__name__: known for known in (Context, ReadContext, ResourceContext)}
        return known.get(annotation.rsplit(".", 1)[-1], annotation)


def _is_async(function: Callable[..., Any]) -> bool:
    return any(map(inspect.iscoroutinefunction, _layers(function)))


def _layers(function: Any) -> list[Any]:
    """The handler, what it is a partial of, and what runs when an object is called."""
    layers = [function]
    while isinstance(layers[-1], functools.partial):
        layers.append(layers[-1].func)
    if not inspect.isroutine(layers[-1]):
        layers.append(type(layers[-1]).__call__)
    return layers


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or said(function, chars_max=200)
