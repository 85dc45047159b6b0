"""A service: a named set of handlers, without a connection. `Aegis.serve` runs an instance of it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from aegis_sdk.context import Context, ResourceContext
from aegis_sdk.contract.control import MethodSpec
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.names import check_service
from aegis_sdk.domain.delivery import Retries
from aegis_sdk.errors import ContractError

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


class Service:
    """`Service("accounts")`; handlers are added by `@service.handles(METHOD)`. Raises: InvalidName."""

    def __init__(self, name: str, *, version: str = "") -> None:
        self.name = check_service(name)
        self.version = version
        self.handlers: dict[str, Handler] = {}
        self.promoted_callbacks: list[Callback] = []
        self.demoted_callbacks: list[Callback] = []

    def handles(
        self, method: Method[Any, Any], *, retries: Retries | None = None, pure: bool = False
    ) -> Callable[[F], F]:
        """Serve `method` by an `async def`, or by a plain `def`, which runs in a thread.

        The handler takes (context, request). With a ResourceContext it serves targeted requests, with a
        Context group requests. `retries` are opt-in: without them, an exception is the answer
        (HandlerFailed).

        `pure` is your word that a plain `def` for targeted requests reads its request and the resource's
        state, changes nothing but that state, and is quick. It runs on the event loop itself, and on a
        replicated journal many requests of a hot resource are then stored at once: it may be run on a
        state that is not stored yet, and again if that does not come to be. It can make no requests.

        Raises:
            ContractError: the method belongs to another service, or has a handler already; a pure
                handler waits, takes no resource, or has retries.
        """
        if method.service != self.name:
            raise ContractError(f"{method!r} is not a method of service {self.name}")
        if method.name in self.handlers:
            raise ContractError(f"{method!r} has a handler already")

        def register(function: F) -> F:
            handler = Handler(
                method,
                function,
                inspect.iscoroutinefunction(function),
                _takes_resource(function),
                retries or Retries(),
                pure,
            )
            if pure and (handler.is_async or not handler.targeted or retries is not None):
                raise ContractError(
                    f"handler {function.__qualname__}: a pure one is a plain def that takes a"
                    " ResourceContext, without retries"
                )
            self.handlers[method.name] = handler
            return function

        return register

    def on_promoted(self, function: Callback) -> Callback:
        """Called with the resource when this instance became its active, before it serves."""
        self.promoted_callbacks.append(function)
        return function

    def on_demoted(self, function: Callback) -> Callback:
        """Called with the resource when this instance is no longer its active."""
        self.demoted_callbacks.append(function)
        return function

    def specs(self) -> list[MethodSpec]:
        return [handler.spec() for handler in self.handlers.values()]


def _takes_resource(function: Callable[..., Any]) -> bool:
    """Read from the annotation of the first parameter, the context."""
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 2:
        raise ContractError(f"handler {function.__qualname__}: expected (context, request)")
    annotation = parameters[0].annotation
    if isinstance(annotation, str):
        try:
            annotation = typing.get_type_hints(function).get(parameters[0].name)
        except NameError:  # a local name under `from __future__ import annotations`
            name = str(annotation).rsplit(".", 1)[-1]
            if name not in (ResourceContext.__name__, Context.__name__):
                raise ContractError(
                    f"handler {function.__qualname__}: {annotation} can't be looked up from here;"
                    " annotate its context as Context or ResourceContext"
                ) from None
            return name == ResourceContext.__name__
    return isinstance(annotation, type) and issubclass(annotation, ResourceContext)
