"""Control's decisions, as tables."""

from __future__ import annotations

import itertools

import pytest
from aegis_control.domain.leading import leadership
from aegis_control.domain.leading.connections import CLOSED_MAX, Connections, is_instances
from aegis_control.domain.leading.failover import Candidate, choose, plan
from aegis_control.domain.leading.leadership import LeaderRecord, Sighting
from aegis_control.domain.leading.lease import (
    Owner,
    owns,
    without_successor,
)
from aegis_control.domain.leading.liveness import TRANSITIONS, Limits, Sign, judge, next_state
from aegis_control.domain.leading.registry import (
    CLAIMS,
    Claim,
    Holder,
    Standing,
    check_registration,
    claim,
    service_record,
    standing,
)
from aegis_sdk.contract.control import (
    InstanceState,
    LeaseRecord,
    LeaseState,
    MethodSpec,
    Registration,
    Role,
    ServiceRecord,
)
from aegis_sdk.errors import InvalidName

ME = Owner("me", "run2")
LIMITS = Limits(
    heartbeat_interval_s=0.15, heartbeat_timeout_s=0.7, stall_limit_s=5.0, return_grace_s=30.0
)


def lease(
    owner: str = "other",
    run: str = "run1",
    state: LeaseState = LeaseState.HELD,
    *,
    epoch: int = 3,
) -> LeaseRecord:
    return LeaseRecord(
        service="accounts",
        resource="R1",
        state=state,
        owner=owner,
        incarnation=run,
        epoch=epoch,
    )


def holder(state: InstanceState, *, doubted: bool = False) -> Holder:
    return Holder(state, doubted)


@pytest.mark.parametrize(
    ("found", "by", "expected"),
    [
        (None, None, Standing.NEW),
        (lease("me", "run2"), None, Standing.MINE),
        (lease("me", "run2", LeaseState.WAITING), None, Standing.MINE),
        (lease("me", "run2", LeaseState.VACANT), None, Standing.FREE),
        (lease("me", "run1"), None, Standing.MINE_BEFORE),
        (lease(state=LeaseState.VACANT), holder(InstanceState.LIVE), Standing.FREE),
        (lease(), None, Standing.FREE),
        (lease(), holder(InstanceState.LOST), Standing.FREE),
        (lease(), holder(InstanceState.STALLED), Standing.FREE),
        (lease(), holder(InstanceState.EVICTED), Standing.FREE),
        (lease(), holder(InstanceState.LIVE), Standing.HELD),
        (lease(), holder(InstanceState.LIVE, doubted=True), Standing.DOUBTED),
        (lease(), holder(InstanceState.DRAINING), Standing.DOUBTED),
    ],
)
def test_a_resource_is_found_in_one_of_six_standings(
    found: LeaseRecord | None, by: Holder | None, expected: Standing
) -> None:
    assert standing(found, by, ME) is expected


def test_every_role_has_an_answer_to_every_standing() -> None:
    assert set(CLAIMS) == set(itertools.product(Role, Standing))


def test_only_a_claim_to_be_the_active_is_ever_refused() -> None:
    refusing = {role for (role, _), what in CLAIMS.items() if what is Claim.REFUSE}
    assert refusing == {Role.ACTIVE}


def test_one_who_returns_takes_what_it_finds() -> None:
    assert claim(Role.ACTIVE, Standing.HELD, returning=False) is Claim.REFUSE
    assert claim(Role.ACTIVE, Standing.HELD, returning=True) is Claim.FOLLOW
    assert claim(Role.STANDBY, Standing.NEW, returning=True) is Claim.GRANT


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        (None, LeaseState.VACANT),
        (InstanceState.EVICTED, LeaseState.VACANT),
        (InstanceState.LOST, LeaseState.WAITING),
        (InstanceState.STALLED, LeaseState.HELD),
    ],
)
def test_a_resource_that_nobody_can_take_over_waits_for_whom_may_return(
    owner: InstanceState | None, expected: LeaseState
) -> None:
    assert without_successor(owner, LeaseState.HELD) is expected


@pytest.mark.parametrize(
    ("silence_s", "loop_lag_s", "expected"),
    [
        (0.0, 0.0, Sign.BEAT),
        (0.7, 5.0, Sign.BEAT),
        (0.71, 0.0, Sign.SILENCE),
        (0.0, 5.1, Sign.LATE_LOOP),
        (0.71, 5.1, Sign.SILENCE),
    ],
)
def test_dead_stalled_and_busy_are_different_things(
    silence_s: float, loop_lag_s: float, expected: Sign
) -> None:
    assert judge(silence_s=silence_s, loop_lag_s=loop_lag_s, limits=LIMITS) is expected


@pytest.mark.parametrize("sign", Sign)
def test_an_evicted_run_never_comes_back(sign: Sign) -> None:
    assert next_state(InstanceState.EVICTED, sign) is InstanceState.EVICTED


@pytest.mark.parametrize(
    "state", [InstanceState.LIVE, InstanceState.STALLED, InstanceState.DRAINING]
)
@pytest.mark.parametrize("sign", [Sign.SILENCE, Sign.CLOSED])
def test_whoever_is_not_heard_is_lost(state: InstanceState, sign: Sign) -> None:
    assert TRANSITIONS[state, sign] is InstanceState.LOST


def test_a_vacant_lease_has_no_owner() -> None:
    assert owns(lease("me", "run2"), ME)
    assert not owns(lease("me", "run1"), ME)
    assert not owns(lease("me", "run2", LeaseState.VACANT), ME)


def candidate(name: str, *resources: str, lag: int = 0, active: int = 0) -> Candidate:
    return Candidate(name, frozenset(resources or {"R1"}), lag, active)


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ([], None),
        ([candidate("b", lag=900)], "b"),
        ([candidate("b", lag=2), candidate("c", lag=1, active=9)], "c"),
        ([candidate("b", active=2), candidate("c", active=1)], "c"),
        ([candidate("c"), candidate("b")], "b"),
    ],
)
def test_the_next_active_lags_least_then_has_least_to_do_then_is_first_by_name(
    candidates: list[Candidate], expected: str | None
) -> None:
    choice = choose(candidates)
    assert (choice.instance_id if choice else None) == expected


def test_a_plan_spreads_over_equal_standbys_and_names_the_orphans() -> None:
    names = [f"R{i}" for i in range(6)]
    result = plan([*names, "lonely"], [candidate("b", *names), candidate("c", *names)])
    assert {name: len(moved) for name, moved in result.moves.items()} == {"b": 3, "c": 3}
    assert result.orphans == ["lonely"]
    assert result.why["b"] == "lag 0, active for 0; best of 2 standbys"


def test_a_process_is_gone_when_both_the_connections_that_it_named_are() -> None:
    seen = Connections()
    assert seen.closed("s1.1", "Client Closed")
    assert not seen.have_closed("s1.1", "s1.2")
    assert seen.closed("s1.2", "Read Error: connection reset by peer")
    assert seen.have_closed("s1.1", "s1.2")
    assert not seen.have_closed("s1.3", "s1.2")
    assert not seen.have_closed("", "")


def test_a_server_that_shuts_down_says_nothing_about_its_clients() -> None:
    seen = Connections()
    assert not seen.closed("s1.1", "Server Shutdown")
    assert not seen.have_closed("s1.1", "s1.1")


def test_closings_are_remembered_within_a_bound() -> None:
    seen = Connections()
    for n in range(CLOSED_MAX + 2):
        seen.closed(f"s1.{n}", "Client Closed")
    assert not seen.have_closed("s1.0", "s1.1")
    assert seen.have_closed("s1.2", f"s1.{CLOSED_MAX + 1}")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("aegis/accounts/a/main", True),
        ("aegis/accounts/a/other", False),
        ("test/accounts/a/main", False),
        ("", False),
    ],
)
def test_only_names_of_our_instances_count(name: str, expected: bool) -> None:
    assert is_instances(name, "aegis") is expected


@pytest.mark.parametrize(
    ("sighting", "expected"),
    [
        (Sighting(), True),
        (Sighting(5, "other", released=True, since_s=10.0), True),
        (Sighting(5, "other", since_s=10.0), False),
        (Sighting(5, "other", since_s=8.9), True),
        (Sighting(5, "me", since_s=10.0), True),
    ],
)
def test_leadership_may_be_taken_when_nobody_has_it_or_its_owner_is_silent(
    sighting: Sighting, expected: bool
) -> None:
    assert leadership.may_take(sighting, me="me", now_s=10.0, timeout_s=1.0) is expected


def test_a_leaders_silence_counts_from_its_last_change() -> None:
    first = leadership.seen(None, 5, LeaderRecord(id="x", n=1), now_s=1.0)
    same = leadership.seen(first, 5, LeaderRecord(id="x", n=1), now_s=9.0)
    renewed = leadership.seen(same, 6, LeaderRecord(id="x", n=2), now_s=9.5)
    assert (first.since_s, same.since_s, renewed.since_s) == (1.0, 1.0, 9.5)


def registration(**changes: object) -> Registration:
    return Registration.model_validate(
        {
            "service": "accounts",
            "instance_id": "a",
            "incarnation": "r",
            "methods": [{"name": "book"}],
        }
        | changes
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"service": "Accounts"}, "name 'Accounts'"),
        ({"instance_id": "a.b"}, "instance id 'a.b'"),
        ({"incarnation": ""}, "incarnation"),
        ({"resources": {"": "active"}}, "empty"),
        ({"resources": {"x" * 201: "active"}}, "201 bytes"),
        ({"methods": [{"name": "book"}, {"name": "book"}]}, "twice"),
        ({"methods": [{"name": "Book"}]}, "name 'Book'"),
        ({"methods": []}, "no method"),
    ],
)
def test_a_registration_that_can_not_be_is_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidName, match=words):
        check_registration(registration(**changes))


def test_a_rolling_upgrade_keeps_methods_that_others_still_serve() -> None:
    old = ServiceRecord(service="accounts", methods=[MethodSpec(name="a"), MethodSpec(name="b")])
    new = registration(methods=[{"name": "b", "targeted": True}, {"name": "c"}], version="2")
    merged = service_record(new, old, alone=False)
    assert [method.name for method in merged.methods] == ["a", "b", "c"]
    assert merged.methods[1].targeted
    fresh = service_record(new, old, alone=True)
    assert [method.name for method in fresh.methods] == ["b", "c"]
