"""What an Appender of events promises, in memory and on NATS: each once, and of those that go together all or none, in order."""

from __future__ import annotations

import pytest
from aegis_sdk.application.ports import StoreMissing
from aegis_sdk.application.turns.lanes import AT_ONCE_MAX, Item, Lanes
from aegis_sdk.contract.turns.events import Emitted

from tests.contract.worlds import PAYLOAD_BYTES_MAX, Ports, World

TIMEOUT_S = 5.0


def emitted(service: str, *numbers: int, payload: bytes = b"{}") -> list[Emitted]:
    return [Emitted(f"c.{n}.0", service, "filled", "ACC 1", payload) for n in numbers]


def ids(*numbers: int) -> list[str]:
    return [f"c.{n}.0" for n in numbers]


async def test_events_that_go_together_are_stored_in_their_order(
    world: World, ports: Ports
) -> None:
    numbers = range(1, AT_ONCE_MAX + 1)
    await ports.events.together(emitted(world.service, *numbers), timeout_s=TIMEOUT_S)
    assert await world.emitted() == ids(*numbers)


async def test_one_that_is_there_counts_as_stored_and_stays_alone(
    world: World, ports: Ports
) -> None:
    for _ in range(2):
        assert await ports.events.each(emitted(world.service, 1, 2), timeout_s=TIMEOUT_S) == [
            None,
            None,
        ]
    assert sorted(await world.emitted()) == ids(1, 2)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("again", [(1,), (1, 2, 3), (3,), (2, 3, 4), (1, 2, 3, 4, 5)])
async def test_a_lane_goes_on_where_somebody_else_was_before(
    world: World, ports: Ports, again: tuple[int, ...], together: bool
) -> None:
    """Also in the midst of what goes together."""
    await ports.events.together(emitted(world.service, 1, 2, 3), timeout_s=TIMEOUT_S)
    lanes: Lanes[Emitted] = Lanes((await world.connect()).events, together=together)
    for each in emitted(world.service, *again):
        lanes.add("ACC 1", Item(each))
    while len(lanes):
        assert (await lanes.step())[1] is None
    assert await world.emitted() == ids(*range(1, max(3, *again) + 1))


async def test_one_that_is_too_large_holds_up_no_other(world: World, ports: Ports) -> None:
    large = b'"' + b"x" * PAYLOAD_BYTES_MAX + b'"'
    lanes: Lanes[Emitted] = Lanes(ports.events, together=True)
    given = emitted(world.service, 1, 2) + emitted(world.service, 3, payload=large)
    for each in given + emitted(world.service, 4):
        lanes.add("ACC 1", Item(each))
    done, error = await lanes.step()
    assert error is None
    assert [item.message.id for item in done if item.too_large] == ids(3)
    assert await world.emitted() == ids(1, 2, 4)


async def test_a_service_without_a_stream_is_told_so(ports: Ports) -> None:
    (error,) = await ports.events.each(emitted("nobody", 1), timeout_s=TIMEOUT_S)
    assert isinstance(error, StoreMissing)
    with pytest.raises(StoreMissing):
        await ports.events.together(emitted("nobody", 1, 2), timeout_s=TIMEOUT_S)
