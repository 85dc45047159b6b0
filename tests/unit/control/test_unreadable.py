"""Any bytes in the buckets: control skips them, says which, and goes on with the rest."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aegis_sdk.contract.control import InstanceRecord, LeaseRecord, Role, ServiceRecord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.control.support import SERVICE, Office


async def pair() -> Office:
    """`a` is active for R1 and R2, `b` stands by."""
    office = Office()
    await office.registers("a", Role.ACTIVE, ("R1", "R2"))
    await office.registers("b", Role.STANDBY, ("R1", "R2"))
    return office


async def successor(office: Office) -> Office:
    """The next term on the same stores, in which both instances are heard."""
    another = Office(office)
    await another.roster.refresh()
    another.beats("a", "b")
    return another


def lease(**changes: Any) -> bytes:
    record = {
        "service": SERVICE,
        "resource": "R1",
        "state": "held",
        "owner": "a",
        "incarnation": "run1",
        "epoch": 1,
    }
    return json.dumps(record | changes).encode()


ODD_LEASES = {
    "no JSON": b"\xff\xfe",
    "empty": b"",
    "a list": b"[1]",
    "a state of a newer version": lease(state="handing_over"),
    "an epoch below zero": lease(epoch=-1),
    "an epoch that no counter reaches": lease(epoch=10**30),
    "no epoch": lease(epoch=None),
    "another resource's": lease(resource="R2"),
    "infinity": lease(since=float("inf")),
    "half a surrogate": b'{"service": "\\ud800"}',
    "a very deep one": b"[" * 5_000,
}


@pytest.mark.parametrize("value", ODD_LEASES.values(), ids=ODD_LEASES)
async def test_a_lease_that_can_not_be_read_stops_nobody_else(value: bytes) -> None:
    """G5, G8: its resource gets no epoch by a guess, every other one fails over, and control says why."""
    office = await pair()
    office.leases.put("accounts.R1", value)
    after = await successor(office)
    await after.passes(1.0, "b")
    await after.reconcile()
    assert after.route("R2") == "b 2 held"
    assert after.leases.entries["accounts.R1"].value == value
    assert after.told("R1") == "a 1"
    [details] = [d for name, d in after.events.seen if name == "value_unreadable"]
    assert (details["where"], details["key"]) == ("aegis_leases", "accounts.R1")
    checkup = (await after.admin("checkup", b"")).data
    assert [one["key"] for one in checkup["unreadable"]] == ["accounts.R1"]
    assert (await after.registers("c", Role.AUTO, ("R1", "R3"))).ok
    assert after.route("R3") == f"c {after.lease('R3').epoch} held"


async def test_a_stray_lease_that_is_deleted_goes_on_behind_the_log() -> None:
    """G5: the epoch does not start again."""
    office = await pair()
    office.leases.put("accounts.R1", b"stray")
    after = await successor(office)
    await after.passes(1.0, "b")
    revision = after.leases.entries["accounts.R1"].revision
    await after.leases.delete("accounts.R1", revision)
    await after.reconcile()
    assert (await after.registers("b", Role.AUTO, ("R1", "R2"), returning=True)).ok
    assert (after.route("R1"), after.route("R2")) == ("b 3 held", "b 2 held")
    assert not len(after.state.unreadables)


async def test_a_newer_contract_is_kept_and_a_stray_one_replaced() -> None:
    office = await pair()
    newer = b'{"service": "accounts", "methods": {"book": {}}}'
    office.registry.put("service.accounts", newer)
    after = await successor(office)
    assert (await after.registers("c", Role.AUTO, ("R3",))).ok
    assert after.registry.entries["service.accounts"].value == newer
    office.registry.put("service.accounts", b"\x00")
    await after.roster.refresh()
    assert (await after.registers("d", Role.AUTO, ("R3",))).ok
    value = after.registry.entries["service.accounts"].value
    assert value is not None
    record = ServiceRecord.read("service.accounts", value)
    assert [method.name for method in record.methods] == ["book"]
    assert not len(after.state.unreadables)


async def test_what_a_newer_version_noted_in_a_record_stays_in_it() -> None:
    office = await pair()
    for bucket in (office.registry, office.leases):
        for key, entry in list(bucket.entries.items()):
            assert entry.value is not None
            bucket.put(key, json.dumps({**json.loads(entry.value), "newer": key}).encode())
    after = await successor(office)
    await after.passes(1.0, "b")
    assert after.route("R1") == "b 2 held"
    for key in ("accounts.R1", "accounts.R2"):
        value = after.leases.entries[key].value
        assert value is not None
        assert LeaseRecord.read(key, value).model_extra == {"newer": key}
    key = "instance.accounts.a"
    value = after.registry.entries[key].value
    assert value is not None
    lost = InstanceRecord.read(key, value)
    assert (lost.state.value, lost.model_extra) == ("lost", {"newer": key})


async def test_an_instance_whose_record_can_not_be_read_registers_again() -> None:
    office = await pair()
    office.registry.put("instance.accounts.b", b'{"state": "hibernating"}')
    after = await successor(office)
    await after.settled()
    assert after.instances.kinds("b") == ["register"]
    assert (await after.registers("b", Role.STANDBY, ("R1", "R2"), returning=True)).ok
    assert not len(after.state.unreadables)


async def test_a_bucket_full_of_strays_does_not_fill_the_log() -> None:
    office = await pair()
    for n in range(500):
        office.registry.put(f"stray-{n}", b"")
    after = await successor(office)
    assert after.events.names().count("value_unreadable") == 100
    assert (await after.admin("checkup", b"")).data["unreadable_values"] == 500
    await after.reconcile()
    assert after.events.names().count("value_unreadable") == 100


KEYS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "accounts.R1",
            "service.accounts",
            "instance.accounts.a",
            "instance.accounts",
            "service",
            "accounts.=FF",
            "accounts.=",
            "service.",
            ".",
            "",
            "instance.accounts.a.b",
            "x.R1",
        ]
    ),
)
ODD_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["service", "resource", "state", "epoch", "methods", "owner", "since"])
        | st.text(max_size=5),
        inner,
        max_size=6,
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())
VALUES = st.binary(max_size=40) | ODD_JSON | st.sampled_from([lease(), *ODD_LEASES.values()])
ENTRIES = st.lists(st.tuples(st.booleans(), KEYS, VALUES), max_size=12)


@given(entries=ENTRIES)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_in_the_buckets_control_leads_and_instances_start(
    entries: list[tuple[bool, str, bytes]],
) -> None:
    """A leader begins its term, admits an instance, and moves the resources whose leases can be read."""

    async def scenario() -> None:
        office = await pair()
        touched = set()
        for to_leases, key, value in entries:
            (office.leases if to_leases else office.registry).put(key, value)
            touched.add(key)
        after = await successor(office)
        await after.reconcile()
        assert (await after.registers("new", Role.AUTO, ("R9",))).ok
        assert after.route("R9") == f"new {after.lease('R9').epoch} held"
        if "accounts.R2" not in touched:
            await after.registers("b", Role.STANDBY, ("R1", "R2"), returning=True)
            await after.passes(1.0, "b", "new")
            await after.reconcile()
            assert after.lease("R2").owner == "b"
        assert (await after.admin("status", b"")).ok
        assert (await after.admin("list-services", b"")).ok

    asyncio.run(scenario())
