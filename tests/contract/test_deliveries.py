"""Deliveries: a group shares its requests; a grant's come in order to its one reader."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial

import pytest
from aegis_sdk.application.ports import Delivery, DeliverySource
from aegis_sdk.infrastructure import requests as nats_requests

from tests.contract.worlds import ACK_WAIT_S, WAIT_S, Ports, World, request, until


@dataclass
class Reader:
    """What one process was given."""

    given: list[Delivery] = field(default_factory=list)
    restarts: list[int] = field(default_factory=list)
    """How many deliveries it had been given at each restart."""
    source: DeliverySource | None = None
    ended: int = 0
    most_in_hand: int = 0

    def take(self, delivery: Delivery) -> None:
        self.given.append(delivery)
        self.most_in_hand = max(self.most_in_hand, len(self.given) - self.ended)

    @property
    def ids(self) -> list[str]:
        return [delivery.request.request_id for delivery in self.given]

    def end(self, delivery: Delivery) -> None:
        assert self.source is not None
        self.ended += 1
        delivery.ack()
        if (finished := getattr(self.source, "finished", None)) is not None:  # a group's
            finished()

    def end_all(self) -> None:
        for delivery in list(self.given):
            self.end(delivery)


async def _group(world: World, ports: Ports, credit: int = 16) -> Reader:
    reader = Reader()
    reader.source = await ports.deliveries.open_group(
        world.service, credit=credit, on_delivery=reader.take
    )
    return reader


async def _grant(
    world: World,
    ports: Ports,
    *resources: str,
    name: str = "g-1",
    start_seq: int = 1,
) -> Reader:
    reader = Reader()
    reader.source = await ports.deliveries.open_grant(
        world.service,
        name,
        resources,
        start_seq=start_seq,
        on_delivery=reader.take,
        on_restart=lambda: reader.restarts.append(len(reader.given)),
    )
    return reader


async def _send(
    world: World, ports: Ports, first: int, last: int, resource: str | None = None
) -> list[str]:
    ids = [f"c.{n}" for n in range(first, last + 1)]
    for request_id in ids:
        await ports.requests.append(request(world.service, request_id, resource), timeout_s=5.0)
    return ids


async def test_a_reader_that_retires_is_given_what_was_on_its_way(
    world: World, ports: Ports
) -> None:
    """What it drops would be delivered elsewhere only after ack_wait, and counts as delivered then."""
    for n in range(20):
        one = await _group(world, ports, credit=16)
        sent = [f"r{n}.{number}" for number in range(40)]
        for request_id in sent:
            ports.requests.post(request(world.service, request_id, None))
        await asyncio.sleep(n * 0.0002)  # each time they are somewhere else on their way
        assert one.source is not None
        await one.source.retire()
        kept = set(one.ids)
        for delivery in one.given:
            delivery.ack()
        two = await _group(world, ports, credit=64)
        await until(lambda two=two, kept=kept, sent=sent: kept | set(two.ids) >= set(sent))  # type: ignore[misc]
        late = [d.request.request_id for d in two.given if d.arrival.delivered > 1]
        assert [request_id for request_id in late if request_id not in kept] == []
        two.end_all()
        assert two.source is not None
        await two.source.retire()


# --- the group --------------------------------------------------------------------------------------------


async def test_each_request_is_dealt_to_one_of_the_readers(world: World, ports: Ports) -> None:
    readers = [
        await _group(world, ports, credit=4),
        await _group(world, await world.connect(), credit=4),
        await _group(world, await world.connect(), credit=4),
    ]
    ids = await _send(world, ports, 1, 60)
    ended: set[str] = set()

    async def serve(reader: Reader) -> None:
        while len(ended) < 60:
            for delivery in reader.given:
                if delivery.request.request_id not in ended:
                    ended.add(delivery.request.request_id)
                    reader.end(delivery)
            await asyncio.sleep(0.002)

    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*map(serve, readers))
    assert sorted(id_ for reader in readers for id_ in reader.ids) == sorted(ids)
    assert all(len(reader.ids) >= 5 for reader in readers)


async def test_requests_of_resources_are_not_the_groups(world: World, ports: Ports) -> None:
    await _send(world, ports, 1, 2, "A")
    ids = await _send(world, ports, 3, 4)
    reader = await _group(world, ports)
    await until(lambda: len(reader.given) == 2)
    assert reader.ids == ids
    first = reader.given[0]
    assert (first.arrival.stream_seq, first.arrival.delivered, first.grant) == (3, 1, "")
    assert not first.arrival.suspect


async def test_credit_bounds_what_is_in_hand(world: World, ports: Ports) -> None:
    reader = await _group(world, ports, credit=4)
    await _send(world, ports, 1, 20)
    await until(lambda: len(reader.given) == 4)
    while reader.ended < 20:
        await until(lambda: len(reader.given) > reader.ended)
        for delivery in reader.given[reader.ended :]:
            reader.end(delivery)
    assert reader.most_in_hand == 4


async def test_what_a_dead_reader_had_is_dealt_again_after_ack_wait(
    world: World, ports: Ports
) -> None:
    """G1: a request that nobody finished is not forgotten with its reader."""
    dying = await world.connect()
    first = await _group(world, dying)
    await _send(world, ports, 1, 1)
    await until(lambda: first.given)
    await world.cut(dying)
    second = await _group(world, ports)
    await until(lambda: second.given)
    assert second.ids == ["c.1"]
    assert second.given[0].arrival.delivered == 2


async def test_what_is_acknowledged_never_comes_again(world: World, ports: Ports) -> None:
    """G3: only what is in hand is dealt again by time."""
    reader = await _group(world, ports)
    await _send(world, ports, 1, 3)
    await until(lambda: len(reader.given) == 3)
    reader.end(reader.given[1])
    await until(lambda: len(reader.given) == 5)
    assert sorted(reader.ids[3:]) == ["c.1", "c.3"]


async def test_what_is_extended_stays_in_hand(world: World, ports: Ports) -> None:
    reader = await _group(world, ports)
    await _send(world, ports, 1, 2)
    await until(lambda: len(reader.given) == 2)
    kept = reader.given[0]
    for _ in range(10):
        await asyncio.sleep(ACK_WAIT_S / 4)
        kept.extend()
    assert reader.ids.count("c.1") == 1
    assert reader.ids.count("c.2") > 1


async def test_what_is_handed_back_comes_to_another_at_once(world: World, ports: Ports) -> None:
    leaving = await world.connect()
    first = await _group(world, leaving)
    await _send(world, ports, 1, 1)
    await until(lambda: first.given)
    assert first.source is not None
    await first.source.stop()
    second = await _group(world, ports)
    begun_s = asyncio.get_running_loop().time()
    first.given[0].hand_back(0.02)
    await until(lambda: second.given)
    assert asyncio.get_running_loop().time() - begun_s < 0.75 * ACK_WAIT_S
    assert second.given[0].arrival.delivered == 2


async def test_a_reader_that_stopped_is_given_nothing(world: World, ports: Ports) -> None:
    stopped, going = await _group(world, ports), await _group(world, await world.connect())
    assert stopped.source is not None
    await stopped.source.stop()
    await stopped.source.stop()
    ids = await _send(world, ports, 1, 5)
    await until(lambda: len(going.given) == 5)
    assert sorted(going.ids) == ids
    assert stopped.given == []


async def test_a_group_reader_goes_on_after_its_connection_was_lost(
    world: World, ports: Ports
) -> None:
    """G8: it asks again by itself, on the new connection."""
    other = await world.connect()
    reader = await _group(world, ports)
    await _send(world, other, 1, 2)
    await until(lambda: len(reader.given) == 2)
    reader.end_all()
    await world.blink(ports)
    await _send(world, other, 3, 4)
    await until(lambda: {"c.3", "c.4"} <= set(reader.ids))


# --- grants -----------------------------------------------------------------------------------------------


async def test_a_grant_reads_its_resources_in_stream_order(world: World, ports: Ports) -> None:
    """G7: those stored, and those to come."""
    await _send(world, ports, 1, 3, "A")
    await _send(world, ports, 4, 4, "other")
    await _send(world, ports, 5, 5)
    reader = await _grant(world, ports, "A", "B 2")
    await until(lambda: len(reader.given) == 3)
    await _send(world, ports, 6, 7, "B 2")
    await _send(world, ports, 8, 8, "A")
    await until(lambda: len(reader.given) == 6)
    assert reader.ids == ["c.1", "c.2", "c.3", "c.6", "c.7", "c.8"]
    assert {delivery.grant for delivery in reader.given} == {"g-1"}
    assert [delivery.request.resource for delivery in reader.given[2:4]] == ["A", "B 2"]
    assert {delivery.arrival.delivered for delivery in reader.given} == {1}
    assert reader.restarts == []


async def test_a_grant_begins_at_its_start(world: World, ports: Ports) -> None:
    await _send(world, ports, 1, 6, "A")
    reader = await _grant(world, ports, "A", start_seq=4)
    await until(lambda: len(reader.given) == 3)
    assert reader.ids == ["c.4", "c.5", "c.6"]


async def test_what_was_stored_before_the_reader_is_suspect(world: World, ports: Ports) -> None:
    """An earlier active may have begun it."""
    await _send(world, ports, 1, 2, "A")
    reader = await _grant(world, ports, "A")
    await _send(world, ports, 3, 4, "A")
    await until(lambda: len(reader.given) == 4)
    assert [delivery.arrival.suspect for delivery in reader.given] == [True, True, False, False]


async def test_a_grant_is_given_all_that_waits_before_any_of_it_has_ended(
    world: World, ports: Ports
) -> None:
    """G7, G8: else a crowd at one resource would be before the requests of the others."""
    reader = await _grant(world, ports, "A", "B")
    sent = [f"c.{n}" for n in range(1, 1201)]
    for request_id in sent:
        ports.requests.post(request(world.service, request_id, "A"))
    await until(lambda: len(reader.given) == 1200)
    assert reader.ids == sent
    await _send(world, ports, 1201, 1201, "B")
    await until(lambda: reader.ids[-1] == "c.1201")


async def test_a_request_is_read_again_at_its_place(world: World, ports: Ports) -> None:
    await _send(world, ports, 1, 3, "A")
    reader = await _grant(world, ports, "A")
    await until(lambda: len(reader.given) == 3)
    again = [
        await ports.deliveries.read(world.service, delivery.arrival.stream_seq)
        for delivery in reader.given
    ]
    assert again == [delivery.request for delivery in reader.given]
    assert await ports.deliveries.read(world.service, 4) is None


async def test_a_request_that_takes_long_does_not_hold_up_other_resources(
    world: World, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: however many requests of theirs are served meanwhile."""
    if nats_requests.GRANT_PENDING_MAX > 0:  # a bound, if there is one, made small enough to reach
        monkeypatch.setattr(nats_requests, "GRANT_PENDING_MAX", 20)
    reader = await _grant(world, ports, "A", "B")
    await _send(world, ports, 1, 1, "A")
    await until(lambda: reader.given)
    await _send(world, ports, 2, 41, "B")
    for n in range(2, 42):
        await until(partial(_was_given, reader, f"c.{n}"))
        reader.end(reader.given[n - 1])
    assert reader.restarts == []


def _was_given(reader: Reader, request_id: str) -> bool:
    return request_id in reader.ids


async def test_nothing_of_a_grant_is_dealt_again_by_time(world: World, ports: Ports) -> None:
    """G7: it would break the order. What is dealt again by time meanwhile is the group's."""
    reader = await _grant(world, ports, "A")
    group = await _group(world, ports)
    await _send(world, ports, 1, 3, "A")
    await _send(world, ports, 4, 4)
    await until(lambda: len(reader.given) == 3 and len(group.given) == 3)
    await _send(world, ports, 5, 5, "A")
    await until(lambda: "c.5" in reader.ids)
    assert reader.ids == ["c.1", "c.2", "c.3", "c.5"]


async def test_after_a_loss_of_the_connection_all_that_is_unacknowledged_comes_in_order(
    world: World, ports: Ports
) -> None:
    """G1, G7: nothing is missing, and nothing overtakes what was stored before it."""
    other = await world.connect()
    reader = await _grant(world, ports, "A")
    await _send(world, other, 1, 6, "A")
    await until(lambda: len(reader.given) == 6)
    for delivery in reader.given[:2]:
        reader.end(delivery)
    reader.given[4].ack()
    while await world.ack_floor("g-1") < 2:
        assert not reader.restarts
    await world.blink(ports)
    await until(lambda: reader.restarts)
    await _send(world, other, 7, 8, "A")
    await until(lambda: reader.ids[-1] == "c.8")
    again = reader.ids[reader.restarts[-1] :]
    assert again[0] == "c.3"
    assert [id_ for id_ in again if id_ != "c.5"] == ["c.3", "c.4", "c.6", "c.7", "c.8"]
    assert again == sorted(again)


async def test_a_new_process_with_the_same_grant_gets_all_from_its_start(
    world: World, ports: Ports
) -> None:
    """G1: early is harmless, late would lose."""
    dying = await world.connect()
    first = await _grant(world, dying, "A", start_seq=2)
    await _send(world, ports, 1, 5, "A")
    await until(lambda: len(first.given) == 4)
    first.end_all()
    await world.cut(dying)
    second = await _grant(world, ports, "A", start_seq=2)
    await until(lambda: len(second.given) == 4)
    assert second.ids == ["c.2", "c.3", "c.4", "c.5"]
    assert all(delivery.arrival.suspect for delivery in second.given)


async def test_a_grant_that_was_stopped_is_given_nothing(world: World, ports: Ports) -> None:
    reader = await _grant(world, ports, "A")
    await _send(world, ports, 1, 1, "A")
    await until(lambda: reader.given)
    assert reader.source is not None
    await reader.source.stop()
    await _send(world, ports, 2, 3, "A")
    reader.end_all()
    other = await _grant(
        world, ports, "A", name="g-2"
    )  # the same connection, so it is given them later
    await until(lambda: len(other.given) == 3)
    assert reader.ids == ["c.1"]
    assert reader.restarts == []


async def test_two_grants_of_one_resource_read_side_by_side(world: World, ports: Ports) -> None:
    """An old active and its successor: each has its own reader, and acknowledges its own."""
    old = await _grant(world, ports, "A", name="g-1")
    new = await _grant(world, await world.connect(), "A", name="g-2")
    ids = await _send(world, ports, 1, 3, "A")
    await until(lambda: len(old.given) == len(new.given) == 3)
    old.end_all()
    assert new.ids == old.ids == ids
