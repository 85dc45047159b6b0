"""An outcome as what a caller gets: the reply, or the error that says whether to try again."""

from __future__ import annotations

import pytest
from aegis_sdk import (
    Cancelled,
    ContractError,
    Expired,
    HandlerFailed,
    InvalidPayload,
    Method,
    Rejected,
    ReplyUnreadable,
    UnknownMethod,
)
from aegis_sdk.application.outcomes import error_of, failed_by, rejected_by, result_of
from aegis_sdk.contract.envelope import Outcome, OutcomeKind

METHOD = Method("svc", "one", request=int, reply=int)


def test_an_executed_request_gives_its_reply() -> None:
    assert result_of(Outcome(OutcomeKind.EXECUTED, b"7"), METHOD) == 7


def test_a_reply_of_another_contract_says_that_the_request_took_effect() -> None:
    with pytest.raises(ReplyUnreadable, match="took effect"):
        result_of(Outcome(OutcomeKind.EXECUTED, b'"x"'), METHOD)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (OutcomeKind.EXPIRED, Expired),
        (OutcomeKind.CANCELLED, Cancelled),
        (OutcomeKind.FAILED, HandlerFailed),
    ],
)
def test_each_end_has_its_error(kind: OutcomeKind, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"svc\.one: why"):
        result_of(Outcome.error(kind, "code", "why"), METHOD)


def test_a_rejection_comes_to_the_caller_as_it_was_raised() -> None:
    raised = Rejected("no_funds", "10 short", {"short": 10})
    error = error_of(rejected_by(raised), METHOD)
    assert isinstance(error, Rejected)
    assert (error.code, error.message, error.details) == ("no_funds", "10 short", {"short": 10})


def test_what_the_contract_refused_keeps_its_class() -> None:
    refused = error_of(rejected_by(InvalidPayload("bad", ["quantity: too small"])), METHOD)
    assert isinstance(refused, InvalidPayload)
    assert refused.fields == ("quantity: too small",)
    assert type(error_of(rejected_by(UnknownMethod("x")), METHOD)) is UnknownMethod
    assert type(error_of(rejected_by(ContractError("x")), METHOD)) is ContractError


def test_a_failure_says_what_was_raised_without_a_traceback() -> None:
    error = error_of(failed_by(ZeroDivisionError("by zero")), METHOD)
    assert str(error) == "svc.one: ZeroDivisionError: by zero"
