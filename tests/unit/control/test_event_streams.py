"""The streams of events: made for whoever needs them, when it registers or says that one is missing."""

from __future__ import annotations

from dataclasses import replace

from aegis_control.domain.operators.health import Level
from aegis_sdk.contract.control import (
    EventSpec,
    Heartbeat,
    MethodSpec,
    Registration,
    SubscriptionView,
)

from tests.unit.control.support import SERVICE, Office
from tests.unit.control.test_health import WELL, levels, of


def registration(*, emits: bool = False, takes: str = "") -> bytes:
    made = Registration(
        service=SERVICE,
        instance_id="a",
        incarnation="run1",
        methods=[MethodSpec(name="book", targeted=True, takes=takes)],
        events=[EventSpec(name="filled")] if emits else [],
    )
    return made.model_dump_json().encode()


async def test_a_service_that_neither_emits_nor_subscribes_has_none() -> None:
    office = Office()
    assert (await office.register(registration())).ok
    assert office.requests.of_events == []


async def test_what_it_emits_and_what_it_takes_has_a_stream_before_it_serves() -> None:
    """Also of an emitter that was never there; once in a term."""
    office = Office()
    for _ in range(2):
        assert (await office.register(registration(emits=True, takes="orders.placed"))).ok
    assert office.requests.of_events == [SERVICE, "orders"]
    record = office.state.services[SERVICE].record
    assert record is not None
    assert [event.name for event in record.events] == ["filled"]
    assert office.state.services[SERVICE].members["a"].record.takes == ["orders.placed"]


async def test_a_subscription_of_no_name_is_refused() -> None:
    for takes in ("orders", "Orders.placed", "orders.", "orders.placed.again"):
        reply = await Office().register(registration(takes=takes))
        assert (reply.ok, reply.code) == (False, "invalid")


async def test_one_that_is_missing_is_made_when_an_instance_says_so_and_not_at_each_heartbeat() -> (
    None
):
    office = Office()
    await office.register(registration())
    for n in range(5):
        beat = Heartbeat(
            service=SERVICE,
            instance_id="a",
            incarnation="run1",
            n=n,
            loop_lag_s=0.0,
            lacking=[SERVICE, "no such name"],
        )
        office.watch.heard(beat)
    for begun in office.pending:
        await begun
    assert office.requests.of_events == [SERVICE]


def test_a_subscription_that_stands_still_is_bad() -> None:
    view = SubscriptionView(service="pnl", takes="accounts.filled", lag_entries=7, lag_s=61.0)
    assert levels(replace(WELL, subscriptions=[view]), "subscriptions") == {Level.BAD}
    (finding,) = of(replace(WELL, subscriptions=[view]), "subscriptions")
    assert "7 events wait" in finding.found
    young = view.model_copy(update={"lag_s": 59.0})
    assert levels(replace(WELL, subscriptions=[young]), "subscriptions") == set()
