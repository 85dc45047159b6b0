"""An outcome as the caller's return value or exception, and a handler's exception as an outcome."""

from __future__ import annotations

from typing import Any, TypeVar

from aegis_sdk.contract.bodies import ErrorBody
from aegis_sdk.contract.envelope import Outcome, OutcomeKind
from aegis_sdk.contract.method import Method
from aegis_sdk.errors import (
    AegisError,
    Cancelled,
    ContractError,
    Expired,
    HandlerFailed,
    InvalidPayload,
    Rejected,
    UnknownMethod,
)

Rep = TypeVar("Rep")

_CONTRACT = {error.code: error for error in (UnknownMethod, ContractError)}


def result_of(outcome: Outcome, method: Method[Any, Rep]) -> Rep:
    """The reply, or raise what the outcome says.

    Raises: Rejected, HandlerFailed, Expired, Cancelled, ContractError.
    """
    if outcome.kind is OutcomeKind.EXECUTED:
        return method.reply.decode(outcome.body)
    raise error_of(outcome, method)


def error_of(outcome: Outcome, method: Method[Any, Any]) -> AegisError:
    error = ErrorBody.model_validate_json(outcome.body)
    text = f"{method.service}.{method.name}: {error.message}"
    match outcome.kind:
        case OutcomeKind.EXPIRED:
            return Expired(text)
        case OutcomeKind.CANCELLED:
            return Cancelled(text)
        case OutcomeKind.FAILED:
            return HandlerFailed(text)
    if error.code == InvalidPayload.code:
        return InvalidPayload(text, [str(line) for line in error.details.get("fields", [])])
    if error.code in _CONTRACT:
        return _CONTRACT[error.code](text)
    return Rejected(error.code, error.message, error.details)


def rejected_by(error: AegisError) -> Outcome:
    """The outcome for a request that the contract or the handler refused."""
    if isinstance(error, Rejected):
        return Outcome.error(OutcomeKind.REJECTED, error.code, error.message, details=error.details)
    details = {"fields": list(error.fields)} if isinstance(error, InvalidPayload) else {}
    return Outcome.error(OutcomeKind.REJECTED, error.code, str(error), details=details)


def failed_by(error: BaseException) -> Outcome:
    """The outcome for a handler that raised: the exception's type and text, no traceback."""
    return Outcome.error(OutcomeKind.FAILED, HandlerFailed.code, f"{type(error).__name__}: {error}")
