"""G7: after a change of owner, stored requests take effect in the order in which they were stored."""

from __future__ import annotations

import asyncio

import pytest
from aegis_sdk import Method, ResourceContext, Role, Service
from aegis_sdk.contract.control import LeaseRecord
from aegis_sdk.contract.turns.entries import Moves
from aegis_sdk.testing import Fault, MemoryAegis, Op, harness

NOTE = Method("notes", "note", request=int, reply=list[int])


def notes(hangs: asyncio.Event | None = None) -> Service:
    service = Service("notes")

    @service.handles(NOTE)
    async def note(ctx: ResourceContext, n: int) -> list[int]:
        if hangs is not None:
            await hangs.wait()
        noted = [*(ctx.state.get("noted", list[int]) or []), n]
        ctx.state.set("noted", noted)
        return noted

    return service


def give_without_a_gate(aegis: MemoryAegis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control dies after the ownership entry: the new owner has to store the gate itself."""

    def own(service: str, resource: str, old: LeaseRecord | None, *, to: str) -> None:
        control = aegis.bus.control
        control._owns[service] = number = control._owns.get(service, 0) + 1
        aegis.bus.log(service).write(f"own.{number}", Moves({resource: to}).encode())

    monkeypatch.setattr(aegis.bus.control, "_own", own)


async def test_what_is_stored_while_the_owner_changes_comes_behind_what_was_stored_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with harness() as aegis:
        one = await aegis.serve(notes(asyncio.Event()), resources={"A": Role.ACTIVE})
        two = await aegis.serve(notes(), resources={"A": Role.STANDBY})
        tickets = [await aegis.submit(NOTE, n, resource="A") for n in (1, 2, 3)]
        await asyncio.sleep(0.05)
        give_without_a_gate(aegis, monkeypatch)
        aegis.bus.faults.once(Op.MARKER, Fault.LOST, times=3)
        aegis.bus.control.grant("notes", "A", two.id)
        await asyncio.sleep(0.01)  # it has read that it is to take over, and not its gate
        tickets += [await aegis.submit(NOTE, n, resource="A") for n in (4, 5)]
        assert one.active_resources == [] == two.active_resources
        async with asyncio.timeout(5.0):
            replies = [await aegis.attach(ticket.id, NOTE) for ticket in tickets]
    assert replies[-1] == [1, 2, 3, 4, 5]
