"""Control: registering, being refused, leaving; here the fake's small control against the real one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from aegis_sdk.contract.control import Leave, MethodSpec, Registration, Role
from aegis_sdk.contract.turns.writers import run_of
from aegis_sdk.domain.turns.entries import Claim, Entry, Own
from aegis_sdk.errors import NoRoute, Unavailable

from tests.contract.worlds import Ports, World, until


def _registration(world: World, name: str, **resources: Role) -> Registration:
    return Registration(
        service=world.service,
        instance_id=name,
        incarnation=f"{name}-run",
        methods=[MethodSpec(name="book", targeted=True)],
        resources=resources,
    )


async def test_without_control_an_instance_cannot_register(world: World, ports: Ports) -> None:
    with pytest.raises(Unavailable):
        await ports.control.register(_registration(world, "i-1"), timeout_s=0.5)
    with pytest.raises(Unavailable):
        await ports.control.leave(
            Leave(service=world.service, instance_id="i-1", incarnation="x"), timeout_s=0.5
        )


async def test_who_registers_first_gets_the_resource_and_leaves_it_to_the_standby(
    world: World, ports: Ports
) -> None:
    """G5: each move is one ownership entry, for the run that registered."""
    await world.run_control()
    owners: list[tuple[int, str]] = []

    def read(entry: Entry | Claim) -> None:
        if isinstance(entry, Own):
            owners.extend((entry.number, writer) for writer in entry.moves.values())

    def on_unreadable(seq: int, why: str, words: Sequence[str]) -> None: ...

    first = await ports.control.register(_registration(world, "i-1", A=Role.ACTIVE), timeout_s=5.0)
    assert first.ok
    assert first.ack_wait_s > 0
    source = ports.readers.log(read, on_unreadable, is_main=False)
    await source.start()
    assert (
        await ports.control.register(_registration(world, "i-2", A=Role.STANDBY), timeout_s=5.0)
    ).ok
    await ports.directory.check(world.service, "book", "A")
    await until(lambda: owners)
    ack = await ports.control.leave(
        Leave(service=world.service, instance_id="i-1", incarnation="i-1-run"), timeout_s=5.0
    )
    assert ack.ok
    await until(lambda: len(owners) == 2)
    assert [(n, *run_of(writer)) for n, writer in owners] == [
        (1, "i-1", "i-1-run"),
        (2, "i-2", "i-2-run"),
    ]
    await source.stop()


async def test_a_second_active_is_refused_by_name(world: World, ports: Ports) -> None:
    """G5: who offers to be active where somebody is, is told who that is."""
    await world.run_control()
    await ports.control.register(_registration(world, "i-1", A=Role.AUTO), timeout_s=5.0)
    reply = await ports.control.register(_registration(world, "i-2", A=Role.ACTIVE), timeout_s=5.0)
    assert (reply.ok, reply.code) == (False, "second_active")
    assert "i-1" in reply.message


async def test_a_resource_that_everyone_left_has_no_route(world: World, ports: Ports) -> None:
    await world.run_control()
    await ports.control.register(_registration(world, "i-1", A=Role.AUTO), timeout_s=5.0)
    await ports.control.leave(
        Leave(service=world.service, instance_id="i-1", incarnation="i-1-run"), timeout_s=5.0
    )
    with pytest.raises(NoRoute):
        await ports.directory.check(world.service, "book", "A")
