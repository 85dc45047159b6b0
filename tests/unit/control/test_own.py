"""Control on services' logs: moves are ownership entries, gates shut out, and the leases follow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from aegis_control.application.ports import NotWritten, Write
from aegis_control.domain.leading.owning import HEAD_BYTES, StoredGate, StoredMoves
from aegis_sdk.contract.control import InstanceState, ResourceSeen, Role
from aegis_sdk.contract.turns.entries import Moves
from aegis_sdk.errors import Unavailable

from tests.unit.control.support import SERVICE, Office

MANY = tuple(f"R{n}" for n in range(50))


def log_of(office: Office) -> list[str]:
    """`3 R1>b R2>` and `gate a`, in the log's order; runs are left out."""
    words = []
    for entry in office.own_log.entries.get(SERVICE, ()):
        if isinstance(entry, StoredGate):
            words.append(f"gate {entry.writer.partition('~')[0]}")
        else:
            to = [f"{r}>{w.partition('~')[0]}" for r, w in entry.moves.moves.items()]
            words.append(" ".join([str(entry.number), *to]))
    return words


async def pair(resources: tuple[str, ...] = ("R1",)) -> Office:
    """`a` is active, `b` stands by."""
    office = Office()
    await office.registers("a", Role.ACTIVE, resources)
    await office.registers("b", Role.STANDBY, resources)
    office.beats("a", "b")
    await office.settled()
    return office


async def settled(*offices: Office) -> None:
    """The leases have followed, of whichever replica they wait for."""
    for each in offices:
        await each.settled()


async def test_a_registration_a_loss_and_a_return_in_the_log() -> None:
    """G5: each move is one entry, and whoever lost something is shut out behind it."""
    office = await pair()
    assert (log_of(office), office.route()) == (["1 R1>a"], "a 1 held")
    await office.passes(0.8, "b")
    assert log_of(office) == ["1 R1>a", "2 R1>b", "gate a"]
    assert office.route() == "b 2 held"
    assert office.events.last("failover_done")["to"] == ["b"]
    assert office.events.last("instance_fenced")["instance_id"] == "a"
    await office.registers("a", Role.AUTO, returning=True)
    assert log_of(office)[3:] == []


async def test_any_number_of_resources_to_any_number_of_takers_is_one_entry() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE, MANY)
    for name in ("b", "c", "d"):
        await office.registers(name, Role.STANDBY, MANY)
    office.beats("a", "b", "c", "d")
    await office.passes(0.8, "b", "c", "d")
    assert office.own_log.numbers(SERVICE) == [1, 2]
    last = office.own_log.entries[SERVICE][1]
    assert isinstance(last, StoredMoves)
    counts = [list(last.moves.moves.values()).count(f"{name}~run1") for name in "bcd"]
    assert sorted(counts) == [16, 17, 17]
    assert {office.route(name)[2:] for name in MANY} == {"2 held"}


async def test_without_a_standby_the_log_says_nothing_and_the_return_is_awaited() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE)
    await office.passes(1.0)
    assert (log_of(office), office.route()) == (["1 R1>a"], "a 1 waiting")
    await office.passes(0.1, "a")
    assert office.route() == "a 1 held"


async def test_what_nobody_takes_from_one_that_is_evicted_is_nobodys() -> None:
    """G5: it could go on serving otherwise. Nobody but control can shut it out."""
    office = Office()
    await office.registers("a", Role.ACTIVE)
    await office.settled()
    await office.admin("disconnect", b'{"instance_id": "a"}')
    await office.settled()
    assert log_of(office) == ["1 R1>a", "2 R1>", "gate a"]
    assert office.route() == "a 2 vacant"


async def test_a_new_run_takes_over_from_the_one_before() -> None:
    office = await pair()
    await office.registers("a", Role.ACTIVE, run="run2")
    await office.settled()
    assert log_of(office) == ["1 R1>a", "2 R1>a", "gate a"]
    assert office.owned().ownership.owner("R1") == "a~run2"
    assert office.lease().incarnation == "run2"


async def test_a_handover_is_the_same_entry() -> None:
    office = await pair()
    reply = await office.admin("failover", b'{"resources": ["R1"]}')
    assert reply.ok, reply
    await office.settled()
    assert log_of(office) == ["1 R1>a", "2 R1>b", "gate a"]
    assert office.instances.kinds("a") == ["pause"]


async def test_of_two_replicas_one_stores_the_number_and_the_other_reads_and_plans_anew() -> None:
    """G5: the second one's plan is void as a whole, whatever it was about."""
    office = await pair(("R1", "R2"))
    other = Office(office)
    await other.roster.refresh()
    other.beats("a", "b")
    [table] = other.state.services.values()
    await other.granting.restore(table)
    await office.admin("failover", b'{"resources": ["R1"]}')
    moved = await other.granting.give(table, {"b": ["R1", "R2"]}, reason="late")
    assert moved == {"R1": "b"}  # as it is, whoever did it
    assert log_of(office) == ["1 R1>a R2>a", "2 R1>b", "gate a"]
    assert await other.granting.give(table, {"b": ["R1", "R2"]}, reason="anew") == {"R2": "b"}
    assert log_of(office)[2:] == ["3 R2>b", "gate a"]
    await settled(office, other)


async def test_of_a_plan_in_several_entries_nothing_follows_one_that_is_refused() -> None:
    """G5: the rest was planned on what is not so any more."""
    office = Office()
    for name in ("a", "b"):
        await office.registers(name, resources=MANY)
    office.beats("a", "b")
    office.own_log.entry_bytes_max = HEAD_BYTES + 300
    other = Office(office)
    await other.roster.refresh()
    [table] = other.state.services.values()
    await other.granting.restore(table)
    await office.admin("failover", b'{"resources": ["R0"]}')
    assert await other.granting.give(table, {"b": MANY}, reason="late") == {"R0": "b"}
    assert office.own_log.numbers(SERVICE) == [1, 2]
    assert len(await other.granting.give(table, {"b": MANY}, reason="anew")) == len(MANY) - 1
    assert len(office.own_log.numbers(SERVICE)) > 3
    await settled(office, other)


async def test_an_entry_whose_acknowledgement_is_lost_is_found_in_the_log() -> None:
    office = await pair()
    office.own_log.lose_acks = office.leases.lose_acks = 1
    await office.passes(0.8, "b")
    assert log_of(office) == ["1 R1>a", "2 R1>b", "gate a"]
    assert office.route() == "b 2 held"


async def test_leases_that_somebody_spoilt_follow_the_log_again() -> None:
    """The log decides; leases are what readers look at."""
    office = await pair(("R1", "R2"))
    key = office.world.subjects.lease_key(SERVICE, "R1")
    stolen = office.lease("R1").model_copy(update={"owner": "x", "incarnation": "y"})
    office.leases.put(key, stolen.model_dump_json().encode())
    del office.leases.entries[office.world.subjects.lease_key(SERVICE, "R2")]
    other = Office(office)
    await other.roster.refresh()
    await other.reconcile()
    await other.settled()
    assert (office.route("R1"), office.route("R2")) == ("a 1 held", "a 1 held")


async def test_a_log_that_lost_entries_is_not_written() -> None:
    """G5: its next number was told as an epoch before."""
    office = await pair()
    await office.passes(0.8, "b")
    del office.own_log.entries[SERVICE][1:]
    other = Office(office)
    await other.roster.refresh()
    [table] = other.state.services.values()
    with pytest.raises(Unavailable, match="a lease names 2"):
        await other.granting.give(table, {"b": ["R2"]}, reason="no")
    assert log_of(office) == ["1 R1>a"]
    assert office.route() == "b 2 held"


async def test_after_an_accepted_loss_everything_is_nobodys_and_no_number_is_given_twice() -> None:
    office = await pair()
    await office.passes(0.8, "b")
    del office.own_log.entries[SERVICE][1:]
    other = Office(office)
    await other.roster.refresh()
    [table] = other.state.services.values()
    await other.granting.begin_again(table, {"R1": ResourceSeen(epoch=2)}, log_id="log-2")
    await other.settled()
    assert log_of(office) == ["1 R1>a", "2", "3 R1>", "gate a", "gate b"]
    assert office.route() == "b 3 vacant"


async def test_a_second_failover_does_not_wait_for_the_leases_of_the_first() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE)
    for name in ("b", "c"):
        await office.registers(name, Role.STANDBY)
    office.beats("a", "b", "c")
    await office.settled()
    [table] = office.state.services.values()
    hold, write = asyncio.Event(), office.leases.write

    async def slow(writes: Sequence[Write]) -> list[int | NotWritten]:
        await hold.wait()
        return await write(writes)

    office.leases.write = slow  # type: ignore[method-assign]
    office.leases_follow = False
    await office.fail_over.lose(table, office.member("a"), InstanceState.LOST, reason="test")
    following = asyncio.ensure_future(office.pending.pop())
    await office.fail_over.lose(table, office.member("b"), InstanceState.LOST, reason="test")
    owners = [words.partition(">")[2] for words in log_of(office) if words[0].isdigit()]
    assert owners == ["a", "b", "c"]
    hold.set()
    await following
    assert office.route() == "c 3 held"


def test_moves_without_words_are_written_as_they_are() -> None:
    assert Moves({}).encode() == b'{"to":{},"why":"","log":""}'
