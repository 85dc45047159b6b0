"""One identity in two processes: a cloned machine, a restored container, a snapshot that is resumed twice.

Both copies hold the same instance id, incarnation and memory. No two ever share a connection to NATS: who connects
claims its writer anew, and of those that claim, the last one goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Aegis, Method, ResourceContext, Role, Service, testing
from aegis_sdk.testing.bus import MemoryBus
from aegis_sdk.testing.faults import Flow

from tests.integration.control.support import control

ADD = Method("counters", "add", request=int, reply=int)
RESOURCES = ("A", "B", "C")


def counters() -> Service:
    service = Service("counters")

    @service.handles(ADD)
    async def add(ctx: ResourceContext, delta: int) -> int:
        total = (ctx.state.get("total", int) or 0) + delta
        ctx.state.set("total", total)
        await asyncio.sleep(0)
        return total

    return service


@contextlib.asynccontextmanager
async def environment() -> AsyncIterator[str]:
    """A NATS server and a control in this process; its url."""
    with EmbeddedNats() as server:
        async with control(server.url, "aegis"):
            yield server.url


async def test_of_two_copies_under_load_one_stops_and_no_acknowledged_effect_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """G3, G5, G6: what callers were told adds up to the state, and the copy that stopped says why."""
    monkeypatch.setattr("aegis_sdk.instance.new_token", lambda bytes_=6: "c0ffee" * 2)
    acknowledged: Counter[str] = Counter()
    async with environment() as url, aegis_sdk.connect(url) as aegis:
        roles = dict.fromkeys(RESOURCES, Role.AUTO)
        first = await aegis.serve(counters(), resources=roles, instance_id="copy", wait_s=10.0)
        monkeypatch.undo()  # callers are no copies
        callers = [
            asyncio.create_task(_add_up(url, resource, acknowledged)) for resource in RESOURCES * 3
        ]
        await _until(lambda: acknowledged.total() > 300)
        monkeypatch.setattr("aegis_sdk.instance.new_token", lambda bytes_=6: "c0ffee" * 2)
        second = await aegis.serve(counters(), resources=roles, instance_id="copy")
        monkeypatch.undo()
        ends = [asyncio.create_task(each.serve_forever(signals=False)) for each in (first, second)]
        async with asyncio.timeout(15.0):
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            at_the_end = acknowledged.total()
            await _until(lambda: acknowledged.total() > at_the_end + 1_000)
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
        ended = [end for end in ends if end.done()]
        assert len(ended) == 1
        assert isinstance(ended[0].exception(), aegis_sdk.Copied)
        assert "another process runs as copy" in str(ended[0].exception())
        for resource in RESOURCES:
            total = await aegis.request(ADD, 0, resource=resource)
            # A caller that was cancelled may have had one more stored than it was told.
            assert 0 <= total - acknowledged[resource] <= 3
        for end in ends:
            end.cancel()


@pytest.mark.plain
async def test_a_copy_that_wakes_up_with_old_memory_reads_what_the_other_stored() -> None:
    """G3, G6: it takes over from what is stored, not from what it remembers; the other one stops."""
    bus = MemoryBus()
    async with testing.harness(bus=bus) as aegis:
        original = await aegis.serve(counters(), resources={"A"}, instance_id="i-1")
        assert await aegis.request(ADD, 1, resource="A") == 1
        clone = await _clone_of(aegis, original)
        for expected in range(2, 12):
            assert await aegis.request(ADD, 1, resource="A") == expected
        assert values_of(clone) == {"total": 1}
        stopped: list[str] = []
        original._serving.on_copied = stopped.append
        _release(clone)
        clone.link.cut()
        clone.link.restore()  # the network of the resumed machine is back: a new connection
        await _until(lambda: bool(stopped))
        await original.stop()
        assert await aegis.request(ADD, 1, resource="A") == 12
        assert values_of(clone) == {"total": 12}


@pytest.mark.plain
@pytest.mark.parametrize("turn", range(5))
async def test_copies_that_reconnect_at_the_same_moment_leave_exactly_one(turn: int) -> None:
    """G5: NATS restarted, and both claim the same writer: the last one goes on."""
    bus = MemoryBus()
    async with testing.harness(bus=bus) as aegis:
        original = await aegis.serve(counters(), resources={"A"}, instance_id="i-1")
        assert await aegis.request(ADD, 1, resource="A") == 1
        clone = await _clone_of(aegis, original)
        stopped: list[testing.MemoryInstance] = []
        copies = [original, clone] if turn % 2 else [clone, original]
        for each in copies:
            _release(each)
            each._serving.on_copied = _note(stopped, each)
            each.link.cut()
        for each in copies:
            each.link.restore()
        await _until(lambda: bool(stopped))
        await stopped[0].stop()
        assert await aegis.request(ADD, 1, resource="A") == 2
        assert len(stopped) == 1


async def test_one_that_reconnects_alone_goes_on_in_its_epoch() -> None:
    """G8: a connection that comes back costs a claim, not a handover, and tells no callback."""
    bus, service, told = MemoryBus(), counters(), []
    service.on_promoted(lambda resource: told.append(f"promoted {resource}"))
    service.on_demoted(lambda resource: told.append(f"demoted {resource}"))
    async with testing.harness(bus=bus) as aegis:
        instance = await aegis.serve(service, resources={"A"})
        for expected in range(1, 8):
            assert await aegis.request(ADD, 1, resource="A") == expected
            instance.link.cut()
            instance.link.restore()
        assert instance._serving.host.writer.ownership.epoch("A") == 1
        assert told == ["promoted A"]


async def _clone_of(
    aegis: testing.MemoryAegis, original: testing.MemoryInstance
) -> testing.MemoryInstance:
    """A second process with the original's identity, connection included, as a snapshot has it; asleep."""
    host = original._serving.host
    clone = testing.MemoryInstance(
        aegis.bus,
        counters(),
        resources={"A": Role.AUTO},
        instance_id=original.id,
        incarnation=original._registration.incarnation,
    )
    clone.link.connected.session = original.link.connected.session
    clone.link.name = "clone"
    aegis.instances.append(clone)
    copied = clone._serving.host
    claim, copied._claim = copied._claim, lambda: None  # type: ignore[method-assign]
    await clone._serving.begin()
    copied._claim = claim  # type: ignore[method-assign]
    await _until(lambda: clone.active_resources == ["A"])
    copied._claims, copied.writer.is_claimed = copy.deepcopy(host._claims), True
    for flow in Flow:
        clone.link.hold(flow)
    return clone


def values_of(instance: testing.MemoryInstance) -> dict[str, Any]:
    return instance._serving.host.writer.held["A"].values


def _release(instance: testing.MemoryInstance) -> None:
    for flow in Flow:
        instance.link.release(flow)


def _note(
    stopped: list[testing.MemoryInstance], one: testing.MemoryInstance
) -> Callable[[str], None]:
    return lambda _: stopped.append(one)


async def _add_up(url: str, resource: str, acknowledged: Counter[str]) -> None:
    async with aegis_sdk.connect(url) as aegis:
        while True:
            try:
                await aegis.request(ADD, 1, resource=resource, timeout_s=10.0)
            except aegis_sdk.NotExecuted:
                continue
            acknowledged[resource] += 1


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15.0):
        while not condition():  # noqa: ASYNC110 - what instances do in the background has no event
            await asyncio.sleep(0.005)


async def test_a_caller_that_reconnects_numbers_its_requests_under_another_name() -> None:
    """G2: what a copy of it sends from then on is not taken for the original's request of that number."""
    async with environment() as url, aegis_sdk.connect(url) as aegis:
        await aegis.serve(counters(), resources={"A": Role.AUTO}, wait_s=10.0)
        before = await aegis.submit(ADD, 1, resource="A")
        await blink(aegis)
        after = await aegis.submit(ADD, 1, resource="A")
        assert before.id.partition(".")[0] != after.id.partition(".")[0]
        assert await aegis.attach(before.id, ADD) == 1
        assert await aegis.attach(after.id, ADD) == 2
        assert await aegis.request(ADD, 1, resource="A") == 3


async def blink(aegis: Aegis) -> None:
    """The caller's connection breaks; returns when it is back."""
    link, restored = aegis._link, asyncio.Event()

    async def on_restored() -> None:
        restored.set()

    link.on_restored(on_restored)
    transport: Any = link.client._transport
    transport.close()
    async with asyncio.timeout(10.0):
        await restored.wait()
