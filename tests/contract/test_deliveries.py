"""Deliveries: a group shares its requests."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from aegis_sdk.application.ports import Delivery, GroupSource

from tests.contract.worlds import ACK_WAIT_S, WAIT_S, Ports, World, request, until


@dataclass
class Reader:
    """What one process was given."""

    given: list[Delivery] = field(default_factory=list)
    source: GroupSource | None = None
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
        self.source.finished()

    def end_all(self) -> None:
        for delivery in list(self.given):
            self.end(delivery)


async def _group(world: World, ports: Ports, credit: int = 16) -> Reader:
    reader = Reader()
    reader.source = await ports.deliveries.open_group(
        world.service, credit=credit, on_delivery=reader.take
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
        await asyncio.gather(
            *(
                ports.requests.append(request(world.service, request_id, None), timeout_s=5.0)
                for request_id in sent
            )
        )
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
    assert (first.arrival.stream_seq, first.arrival.delivered) == (3, 1)
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
