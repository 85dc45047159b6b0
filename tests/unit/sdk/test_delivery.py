"""What to do with a delivered request, as tables; when to try again; an instance's roles."""

from __future__ import annotations

import itertools

import pytest
from aegis_sdk.contract.envelope import Request
from aegis_sdk.domain.delivery import (
    ATTEMPTS_MAX,
    Arrival,
    Verdict,
    backoff_s,
    could_be_second,
    judge,
    needs_lookup,
)
from aegis_sdk.domain.retries import Retries
from aegis_sdk.domain.roles import TRANSITIONS, InstanceRole, RoleEvent


@pytest.mark.parametrize(
    ("second", "noted", "verdict"),
    [
        (False, 0, Verdict.RUN),
        (True, 0, Verdict.RUN_NOTED),
        (True, 1, Verdict.RUN_ALONE),
        (True, 2, Verdict.GIVE_UP),
        (True, 3, Verdict.GIVE_UP),
        # A note says that it was begun twice, whatever the broker says of this delivery.
        (False, 1, Verdict.RUN_ALONE),
        (False, 2, Verdict.GIVE_UP),
    ],
)
def test_a_request_that_kills_its_process_is_given_up_in_the_end(
    second: bool, noted: int, verdict: Verdict
) -> None:
    assert judge(second=second, noted=noted) is verdict


def test_the_number_of_begins_is_bounded() -> None:
    """Begun, noted and begun, noted and begun alone; not a fourth time."""
    begins = 0
    for n in itertools.count():
        if judge(second=n > 0, noted=max(0, n - 1)) is Verdict.GIVE_UP:
            break
        begins += 1
    assert begins == ATTEMPTS_MAX


def _request(request_id: str = "c.1", attempt: int = 1) -> Request:
    return Request(request_id, "svc", "book", None, b"", attempt=attempt)


@pytest.mark.parametrize(
    ("request_", "arrival", "looked_up"),
    [
        (_request(), Arrival(5, 1, suspect=False), False),
        (_request(), Arrival(5, 2, suspect=False), True),
        (_request(attempt=2), Arrival(5, 1, suspect=False), True),
        (_request("key-svc.abc"), Arrival(5, 1, suspect=False), True),
    ],
)
def test_a_delivery_that_could_have_an_outcome_is_looked_up(
    request_: Request, arrival: Arrival, looked_up: bool
) -> None:
    """G3: sent again, delivered again, or with a key of the user's own."""
    assert needs_lookup(request_, arrival) is looked_up


def test_only_an_earlier_reader_makes_a_begin_possible() -> None:
    assert not could_be_second(Arrival(5, 1, suspect=False))
    assert could_be_second(Arrival(5, 1, suspect=True))
    assert could_be_second(Arrival(5, 2, suspect=False))


def test_without_retries_an_exception_is_the_answer() -> None:
    assert Retries().wait_before(2) is None


def test_retries_wait_longer_each_time_up_to_a_bound() -> None:
    retries = Retries(attempts=6, wait_s=0.1, wait_s_max=0.5)
    assert [retries.wait_before(n) for n in range(2, 8)] == [0.1, 0.2, 0.4, 0.5, 0.5, None]


def test_a_backoff_never_overflows() -> None:
    assert backoff_s(1, first_s=0.01, max_s=2.0) == 0.01
    assert backoff_s(10**6, first_s=0.01, max_s=2.0) == 2.0


# --- roles ------------------------------------------------------------------------------------------------


def test_only_the_own_fence_makes_an_active() -> None:
    """G5, G6: whatever it was before."""
    made_active = {event for (_, event), role in TRANSITIONS.items() if role is InstanceRole.ACTIVE}
    assert made_active == {RoleEvent.OWN_FENCE}


def test_every_role_knows_what_a_fence_means() -> None:
    for role in InstanceRole:
        assert TRANSITIONS[role, RoleEvent.OWN_FENCE] is InstanceRole.ACTIVE
        assert TRANSITIONS[role, RoleEvent.OTHER_FENCE] is InstanceRole.FOLLOWING


def test_a_refused_commit_ends_being_active() -> None:
    """G5: it says that a newer fence exists."""
    refused = InstanceRole.ACTIVE, RoleEvent.COMMIT_REFUSED
    assert TRANSITIONS[refused] is InstanceRole.FENCED
    assert len(TRANSITIONS) == 7
