"""What a handler's annotations say: its kind of context, and the types of its request and its reply.

Read when the handler is registered, so that what is wrong is told where it is written, at the import of its
module. A handler may be a function, a bound method, a partial or an object that can be called.

It knows nothing of services or of NATS.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, Final, get_args, get_origin

from pydantic import BaseModel

from aegis_sdk.context import Context, ReadContext, ResourceContext
from aegis_sdk.contract.method import Method
from aegis_sdk.errors import ContractError
from aegis_sdk.words import said

_ABSENT: Final = inspect.Parameter.empty
_AWAITED: Final = (Awaitable, Coroutine)


def takes_resource(function: Callable[..., Any]) -> bool:
    """Read from the annotation of the first parameter, the context. Raises: ContractError."""
    annotation = context_annotation(function)
    if is_kind_of(annotation, Context):
        return issubclass(annotation, ResourceContext)
    hint = "; a ReadContext is for `reads`" if is_kind_of(annotation, ReadContext) else ""
    raise ContractError(
        f"handler {name_of(function)}: annotate its first parameter as Context (group requests) or as"
        f" ResourceContext (requests that name a resource); it says {shown(annotation)}{hint}"
    )


def context_annotation(function: Callable[..., Any]) -> Any:
    """Of the first parameter. Raises: ContractError."""
    annotation = next(iter(_signature(function).parameters.values())).annotation
    if isinstance(annotation, str):
        annotation = _context_called(annotation, function)
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def method_of(service: str, name: str, function: Callable[..., Any]) -> Method[Any, Any]:
    """The contract that the annotations of the second parameter and of the return make.

    Raises: ContractError: one is missing, can't be looked up, or names a type that can't be stored.
    """
    signature = _signature(function)
    request = _declared(
        _second(signature).annotation, function, "its request, the second parameter"
    )
    reply = _declared(signature.return_annotation, function, "its reply, what it returns")
    if get_origin(reply) in _AWAITED:
        reply = get_args(reply)[-1]
    return Method(service, name, request=request, reply=reply)


def check_fits(method: Method[Any, Any], function: Callable[..., Any]) -> None:
    """A handler that is annotated with another model than its method has would be given that one all the same.

    Raises: ContractError.
    """
    signature = _signature(function)
    parts = (
        ("request", method.request.type, _second(signature).annotation),
        ("reply", method.reply.type, signature.return_annotation),
    )
    for what, declared, written in parts:
        annotation = written
        if isinstance(written, str):
            annotation = _looked_up(written, function, or_else=_ABSENT)
        if _are_strangers(declared, annotation):
            raise ContractError(
                f"handler {name_of(function)}: {method!r} has the {what} {declared.__name__}, and"
                f" its annotation says {annotation.__name__}"
            )


def is_kind_of(annotation: Any, kind: type) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, kind)


def shown(annotation: Any) -> str:
    return "nothing" if annotation is _ABSENT else repr(annotation)


def is_async(function: Callable[..., Any]) -> bool:
    return any(map(inspect.iscoroutinefunction, _layers(function)))


def name_of(function: Any) -> str:
    """For people."""
    return getattr(function, "__qualname__", None) or said(function, chars_max=200)


def method_name_of(function: Any) -> str:
    """The function's own name. Raises: ContractError, for what has none."""
    name = getattr(function, "__name__", None)
    if not isinstance(name, str):
        raise ContractError(f'handler {name_of(function)} has no name: write handles("book")')
    return name


def _are_strangers(declared: Any, annotation: Any) -> bool:
    """Two models of which neither is a kind of the other; all else may be meant so."""
    if not (is_kind_of(declared, BaseModel) and is_kind_of(annotation, BaseModel)):
        return False
    return not (issubclass(declared, annotation) or issubclass(annotation, declared))


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Of what can be called with a context and a request. Raises: ContractError."""
    name = name_of(function)
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
    return signature


def _second(signature: inspect.Signature) -> inspect.Parameter:
    """What is given the request: of `*args`, that too."""
    parameters = list(signature.parameters.values())
    return parameters[min(1, len(parameters) - 1)]


def _declared(annotation: Any, function: Callable[..., Any], what: str) -> Any:
    """Raises: ContractError."""
    name = name_of(function)
    if annotation is _ABSENT:
        raise ContractError(
            f"handler {name}: annotate {what}, or give its Method: its type is the contract"
        )
    if not isinstance(annotation, str):
        return annotation
    found = _looked_up(annotation, function, or_else=_ABSENT)
    if found is _ABSENT:
        raise ContractError(
            f"handler {name}: {what} is annotated as {annotation}, which its module does not have:"
            " define it there, or give a Method"
        )
    return found


def _context_called(annotation: str, function: Callable[..., Any]) -> Any:
    """A context is told by its name alone where it is a local one, or one that only type checkers import."""
    known = {known.__name__: known for known in (Context, ReadContext, ResourceContext)}
    or_else = known.get(annotation.rsplit(".", 1)[-1], annotation)
    return _looked_up(annotation, function, or_else=or_else)


def _looked_up(annotation: str, function: Callable[..., Any], *, or_else: Any) -> Any:
    """What an annotation in quotes, or under `from __future__ import annotations`, names."""
    innermost = inspect.unwrap(_layers(function)[-1])
    try:
        return eval(annotation, getattr(innermost, "__globals__", {}))
    except Exception:
        return or_else


def _layers(function: Any) -> list[Any]:
    """The handler, what it is a partial of, and what runs when an object is called."""
    layers = [function]
    while isinstance(layers[-1], functools.partial):
        layers.append(layers[-1].func)
    if not inspect.isroutine(layers[-1]):
        layers.append(type(layers[-1]).__call__)
    return layers
