"""No room: what can't be stored is refused, what was accepted is kept, and room alone heals it."""

from __future__ import annotations

import asyncio
import signal
import time

import aegis_sdk
import nats
import pytest
from aegis_sdk import Aegis, Method, Overloaded
from nats.js.errors import APIError

from tests.scenarios.ledger import Booking, Methods, Total
from tests.scenarios.system import Load, System, new_service, running_system

BOUND = 40
FILE_STORE_BYTES = 96 << 20
"""The events' stream reserves 64 MiB of it."""
FILLER_BYTES = 256 << 10
HELD_S = 4.0
"""A handler's time, in which the store is filled."""


async def test_a_full_request_stream_says_so_and_keeps_what_it_has() -> None:
    """G1, G4: `Overloaded` soon, nothing of it has an effect, and it heals when its requests are done."""
    async with running_system(controls=0) as system:
        await system.start_control("--requests-max-msgs", str(BOUND))
        service = new_service()
        methods = Methods(service)
        one = await system.start_ledger(service, {"A": "auto"}, instance_id="one")
        async with aegis_sdk.connect(system.url) as aegis:
            await aegis.request(methods.book, Booking(op="first"), resource="A")
            one.send(signal.SIGSTOP)
            tickets = [
                await aegis.submit(methods.book, Booking(op=f"op-{n}"), resource="A")
                for n in range(BOUND)
            ]
            begun_s = time.monotonic()
            with pytest.raises(Overloaded):
                await aegis.submit(methods.book, Booking(op="refused"), resource="A")
            with pytest.raises(Overloaded):
                await aegis.request(methods.book, Booking(op="refused too"), resource="A")
            assert time.monotonic() - begun_s < 2.0
            one.send(signal.SIGCONT)
            totals = [await aegis.attach(t.id, methods.book, timeout_s=20) for t in tickets]
            assert [total.count for total in totals] == list(range(2, BOUND + 2))
            last = await until_taken(aegis, methods.book, Booking(op="last"))
        assert last.ops == ["first", *(f"op-{n}" for n in range(BOUND)), "last"]


async def test_a_full_store_loses_nothing_and_needs_only_room() -> None:
    """G1, G3, G4: no stream takes anything, control's too; callers wait or are refused, and go on."""
    async with running_system(file_store=FILE_STORE_BYTES) as system:
        service = new_service()
        methods = Methods(service)
        await system.start_ledger(service, {"A": "auto", "B": "auto"}, instance_id="one")
        await system.start_ledger(service, {"A": "auto", "B": "auto"}, instance_id="two")
        async with aegis_sdk.connect(system.url) as aegis:
            load = Load(aegis, methods, timeout_s=60.0)
            load.start("B")
            await load.wait_done(20)
            ends_s = time.monotonic() + HELD_S
            begun = asyncio.create_task(
                aegis.request(
                    methods.book, Booking(op="begun", hold_s=HELD_S), resource="A", timeout_s=60
                )
            )
            await eventually_begun(system, "begun")
            await fill(system)
            with pytest.raises(Overloaded):
                await aegis.submit(methods.book, Booking(op="refused"), resource="A")
            assert time.monotonic() < ends_s
            # The handler ends, and its commit finds no room.
            await asyncio.sleep(ends_s + 1.5 - time.monotonic())
            assert not begun.done()
            await make_room(system)
            assert (await begun).ops == ["begun"]
            after = await until_taken(aegis, methods.book, Booking(op="after"))
            assert after.ops == ["begun", "after"]
            done = load.done
            if not load.errors:
                await load.wait_done(done + 20)
            await load.stop()
        # One request of the load may have met the full store: refused for certain, or in doubt.
        assert all("Overloaded" in error or "OutcomeUnknown" in error for error in load.errors)
        async with aegis_sdk.connect(system.url) as aegis:
            total = await aegis.request(methods.read, Booking(op="read"), resource="B")
        # In any case nothing was lost or doubled.
        assert total.ops[: load.done] == load.booked["B"]
        assert total.count <= load.done + 1


async def until_taken(aegis: Aegis, method: Method[Booking, Total], booking: Booking) -> Total:
    """Ask until there is room; each refusal is definite, so that another try doubles nothing."""
    async with asyncio.timeout(20.0):
        while True:
            try:
                return await aegis.request(method, booking, resource="A")
            except Overloaded:
                await asyncio.sleep(0.2)


async def eventually_begun(system: System, op: str) -> None:
    waits = [
        asyncio.create_task(process.wait_for("begun", op=op))
        for process in system.processes
        if not process.name.startswith("control")
    ]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def fill(system: System) -> None:
    """Another stream takes all that is left."""
    client = await nats.connect(system.url)
    try:
        stream = client.jetstream()
        await stream.add_stream(name="FILLER", subjects=["filler.>"])
        size = FILLER_BYTES
        while size > 16:
            try:
                await stream.publish("filler.x", b"x" * size)
            except APIError:
                size //= 2
    finally:
        await client.close()


async def make_room(system: System) -> None:
    client = await nats.connect(system.url)
    try:
        await client.jetstream().delete_stream("FILLER")
    finally:
        await client.close()
