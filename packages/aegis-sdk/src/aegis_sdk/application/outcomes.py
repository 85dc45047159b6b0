"""An outcome as the caller's return value or exception, and a handler's exception as an outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, TypeVar

from pydantic_core import from_json

from aegis_sdk.application.tracing import code_of
from aegis_sdk.contract.bodies import ErrorBody
from aegis_sdk.contract.envelope import BY_HANDLER, Change, Outcome, OutcomeKind, Request
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.turns.timers import RESERVED, TIMERS_MAX, Timer
from aegis_sdk.errors import (
    AegisError,
    Cancelled,
    ContractError,
    Expired,
    HandlerFailed,
    InvalidPayload,
    NeverAccepted,
    NotExecuted,
    OutcomeUnknown,
    OutcomeUnreadable,
    Paused,
    Rejected,
    ReplyUnreadable,
    Unavailable,
    UnknownMethod,
)
from aegis_sdk.words import WHOLE, said, said_of

Rep = TypeVar("Rep")

DOUBTS: Final = (OutcomeUnknown, Unavailable)
"""Raised by a nested request of which nobody knows how it ended."""
CODE_CHARS_MAX: Final = 200
TOO_MANY_TIMERS: Final = "too_many_timers"
"""The code of the refusal."""

_WITHOUT_EFFECT: Final = {error.code: error for error in (NotExecuted, Paused)}
_CONTRACT = {error.code: error for error in (UnknownMethod, ContractError)}


def result_of(outcome: Outcome, method: Method[Any, Rep], request_id: str = "") -> Rep:
    """The reply, or raise what the outcome says.

    Raises: Rejected, HandlerFailed, Expired, Cancelled, NotExecuted, ContractError, ReplyUnreadable, OutcomeUnreadable.
    """
    if outcome.kind is not OutcomeKind.EXECUTED:
        raise error_of(outcome, method, request_id)
    try:
        return method.reply.decode(outcome.body)
    except InvalidPayload as error:
        raise ReplyUnreadable(
            f"the request took effect, but its stored reply is of another type or version: {error}",
            error.fields,
        ) from error


def error_of(outcome: Outcome, method: Method[Any, Any], request_id: str = "") -> AegisError:
    try:
        error = ErrorBody.model_validate_json(outcome.body)
    except ValueError as unreadable:
        return _unreadable(method, request_id, said_of(unreadable))
    text = f"{method.service}.{method.name}: {error.message}"
    match outcome.kind:
        case OutcomeKind.EXPIRED:
            return Expired(text)
        case OutcomeKind.CANCELLED:
            return _WITHOUT_EFFECT.get(error.code, Cancelled)(text)
        case OutcomeKind.FAILED:
            return _failure(method, error)
        case OutcomeKind.UNREADABLE:
            return _unreadable(method, request_id, error.message)
    return _rejection(error, text)


def _failure(method: Method[Any, Any], error: ErrorBody) -> HandlerFailed:
    """What broke is said once, behind the methods on the way to it."""
    own, below = f"{method.service}.{method.name}", error.details.get("path")
    if not isinstance(below, list):
        return HandlerFailed(f"{own}: {error.message}", [own])
    return HandlerFailed(f"{own} > {error.message}", [own, *map(str, below)])


def _rejection(error: ErrorBody, text: str) -> AegisError:
    if error.by == BY_HANDLER:
        return Rejected(error.code, error.message, error.details)
    if error.code == InvalidPayload.code:
        fields = error.details.get("fields")
        return InvalidPayload(text, list(map(str, fields)) if isinstance(fields, list) else [])
    if error.code in _CONTRACT:
        return _CONTRACT[error.code](text)
    return Rejected(error.code, error.message, error.details)


def _unreadable(method: Method[Any, Any], request_id: str, why: str) -> AegisError:
    return OutcomeUnreadable(
        f"{method.service}.{method.name}: {request_id} has ended, and this version can't read how ({why}):"
        " attach to it from the version that wrote its outcome",
        request_id,
    )


def rejected_by(error: AegisError) -> Outcome:
    """The outcome for a request that the contract or the handler refused."""
    if isinstance(error, Rejected):
        return _refused_by(error)
    details = {"fields": list(error.fields)} if isinstance(error, InvalidPayload) else {}
    return Outcome.error(OutcomeKind.REJECTED, error.code, said(error), details=details)


def not_here(error: UnknownMethod) -> Outcome:
    """The outcome for a request whose method this version does not have, though its caller found it in the registry: others
    have it.
    """
    why = f"{said(error)}: another version has it; safe to try again, under a new key"
    return Outcome.error(OutcomeKind.CANCELLED, NotExecuted.code, why)


def is_unread(outcome: Outcome) -> bool:
    """Whether its request did not fit the contract of the version that was given it."""
    if outcome.kind is not OutcomeKind.REJECTED:
        return False
    error = ErrorBody.model_validate_json(outcome.body)
    return error.code == InvalidPayload.code and error.by != BY_HANDLER


def is_missed(outcome: Outcome) -> bool:
    """Whether its method is not here. A caller tries again; a timer has none."""
    return outcome.kind is OutcomeKind.CANCELLED and from_json(outcome.body)["code"] == (
        NotExecuted.code
    )


def _refused_by(error: Rejected) -> Outcome:
    try:
        code, message, details = error.code, error.message, error.details
    except Exception as broken:  # of a subclass that does not call its base, or makes them up
        return failed_by(broken)
    return Outcome.error(
        OutcomeKind.REJECTED,
        said(code),
        said(message, chars_max=WHOLE),
        details=details,
        by=BY_HANDLER,
    )


def failed_by(error: BaseException) -> Outcome:
    """The outcome for a handler that raised: the exception's type and text, no traceback."""
    if type(error) is HandlerFailed and error.path:  # of a request that the handler made
        details = {"path": list(error.path)}
        return Outcome.error(OutcomeKind.FAILED, HandlerFailed.code, said(error), details=details)
    text = said_of(error)
    if isinstance(error, asyncio.CancelledError):
        text = f"{text}: the handler was cancelled, and not by its instance"
    return Outcome.error(OutcomeKind.FAILED, HandlerFailed.code, text)


def given_up(request: Request) -> Outcome:
    """What a caller that gives up makes its request's outcome, unless there is one."""
    return Outcome.error(
        OutcomeKind.CANCELLED,
        Cancelled.code,
        "its caller gave up: its deadline passed, or it was cancelled",
        fingerprint=request.fingerprint,
        traceparent=request.traceparent,
    )


def until_its_time(request: Request, timers: int) -> Outcome:
    """The outcome of what makes a timer of `request`, which may not begin yet; its resource has so many. A refusal is of `request`."""
    if timers >= TIMERS_MAX:
        why = f"{request.resource!r} has {TIMERS_MAX} timers, as many as a resource can have"
        return Outcome.error(OutcomeKind.REJECTED, TOO_MANY_TIMERS, f"{why}: submit it later")
    timer = Timer.made(RESERVED + request.request_id, request.not_before_s, request)
    change = Change(later=(timer.content,))
    return Outcome(OutcomeKind.EXECUTED, b"null", change.encode(), changed=change)


def too_large(outcome: Outcome, method: str, why: str) -> Outcome:
    """What is stored in place of an outcome over the server's max_payload, which `why` says. A refusal
    stays one, without its details.
    """
    said_so = (
        f"the outcome of {method} can't be stored: {why}; answer with less, or raise max_payload"
    )
    kind, code, by = OutcomeKind.FAILED, "outcome_too_large", ""
    if outcome.kind is OutcomeKind.REJECTED:
        error = from_json(outcome.body)
        kind, code = OutcomeKind.REJECTED, said(error["code"], chars_max=CODE_CHARS_MAX)
        by = error.get("by", "")
        said_so = f"{said(error['message'])} (its details are left out: {why})"
    body = Outcome.error(kind, code, said_so, by=by).body
    return replace(outcome, kind=kind, body=body, change=b"", changed=None)


class Unusable(Exception):
    """Stands for a handler's exception that can't be looked at: its class, or what is in its group, raises."""


def deciding(error: BaseException) -> BaseException:
    """What a handler's error comes down to when it is a group, as a TaskGroup raises it. It never raises.

    One doubt in it leaves all in doubt. Otherwise it is the one error in it, or a refusal when nothing else is:
    what a TaskGroup cancelled on the way does not count.
    """
    try:
        cause = _deciding(error)
        code_of(cause)  # the log and the trace ask for it
        return cause
    except BaseException as broken:
        return Unusable(f"{said_of(error)} ({said_of(broken)} when it was looked at)")


def _deciding(error: BaseException) -> BaseException:
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, DOUBTS):
            return leaf
    counted = [leaf for leaf in leaves if not isinstance(leaf, asyncio.CancelledError)]
    if len(counted) == 1 or (counted and all(isinstance(leaf, Rejected) for leaf in counted)):
        return counted[0]
    return error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in error.exceptions:
        yield from _leaves(inner)


def never_accepted(service: str, request_id: str) -> NeverAccepted:
    return NeverAccepted(
        f"{request_id}: neither the requests of {service} nor its journal have it;"
        " it was never accepted, is past its retention, or was lost",
        request_id,
    )


def left_open(request: Request) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"the client was closed while {request.request_id} was open: attach to it later",
        request.request_id,
    )


def open_still(request_id: str, waited_s: float, why: str = "") -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{request_id} has no outcome yet after {waited_s:g} s{why}: attach again", request_id
    )
