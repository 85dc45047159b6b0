"""Group routing: dealt evenly, dead and hung members leave, one effect whoever ran it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter

import aegis_sdk
import pytest
from aegis_sdk import HandlerFailed

from tests.scenarios.ledger import Booking, Echo, Methods
from tests.scenarios.system import System, new_service


async def test_three_idle_instances_are_dealt_evenly_and_the_dead_get_nothing(
    system: System,
) -> None:
    """Within 10 % over 300 calls; a second after a kill -9 the others have all."""
    service = new_service()
    methods = Methods(service)
    members = [await system.start_ledger(service, instance_id=f"m{n}") for n in range(3)]
    async with aegis_sdk.connect(system.url) as aegis:

        async def deal(n: int) -> Counter[str]:
            replies = [await aegis.request(methods.echo, Echo(text=str(i))) for i in range(n)]
            return Counter(reply.instance_id for reply in replies)

        dealt = await deal(300)
        assert set(dealt) == {"m0", "m1", "m2"}
        assert all(90 <= share <= 110 for share in dealt.values()), dealt
        await members[0].kill()
        await asyncio.sleep(1.0)  # the promise: nothing after one second
        dealt = await deal(100)
        assert set(dealt) == {"m1", "m2"}


async def test_a_paused_member_delays_at_most_its_own_credit(system: System) -> None:
    service = new_service()
    methods = Methods(service)
    members = [await system.start_ledger(service, instance_id=f"m{n}") for n in range(3)]
    async with aegis_sdk.connect(system.url) as aegis:
        for n in range(30):
            await aegis.request(methods.echo, Echo(text=str(n)))
        members[0].send(signal.SIGSTOP)
        waits_s = []

        async def call(n: int) -> None:
            begun_s = time.monotonic()
            await aegis.request(methods.echo, Echo(text=str(n)), timeout_s=10)
            waits_s.append(time.monotonic() - begun_s)

        await asyncio.gather(*(call(n) for n in range(200)))
        late = [wait_s for wait_s in waits_s if wait_s > 0.9]
        assert len(late) <= 16, sorted(late)
        assert max(waits_s) < 2.5
        waits_s.clear()
        await asyncio.gather(*(call(n) for n in range(100)))
        assert max(waits_s) < 0.9, "its credit is used up: nothing more goes there"
        members[0].send(signal.SIGCONT)


async def test_a_request_in_the_hands_of_a_killed_member_is_answered_by_another(
    system: System,
) -> None:
    """G2, G3: within two seconds, with one effect although two members ran it."""
    service = new_service()
    methods = Methods(service)
    await system.start_ledger(service, {"A": "auto"}, instance_id="owner")
    members = {name: await system.start_ledger(service, instance_id=name) for name in ("m1", "m2")}
    async with aegis_sdk.connect(system.url) as aegis:
        for n in range(12):  # until it is in the hands of one that is not the resource's owner
            call = asyncio.create_task(
                aegis.request(
                    methods.echo, Echo(text=f"op-{n}", hold_s=1.0, book="A"), timeout_s=10
                )
            )
            begun = {
                asyncio.create_task(member.wait_for("begun", op=f"op-{n}")): name
                for name, member in members.items()
            }
            done, rest = await asyncio.wait(
                [*begun, call], return_when=asyncio.FIRST_COMPLETED, timeout=10
            )
            for task in rest - {call}:
                task.cancel()
            held = [name for task, name in begun.items() if task in done]
            if not held:
                await call
                continue
            killed_s = time.monotonic()
            await members[held[0]].kill()
            reply = await call
            assert reply.instance_id != held[0]
            # An ack_wait of one second, and the handler's own second.
            assert time.monotonic() - killed_s < 3.0
            break
        total = await aegis.request(methods.read, Booking(op="read"), resource="A")
        assert Counter(total.ops)[f"op-{n}"] == 1


async def test_a_group_request_that_kills_its_process_is_given_up(system: System) -> None:
    service = new_service()
    methods = Methods(service)
    for n in range(4):
        await system.start_ledger(service, instance_id=f"m{n}")
    async with aegis_sdk.connect(system.url) as aegis:
        with pytest.raises(HandlerFailed, match="died"):
            await aegis.request(methods.die_any, Echo(text="poison"), timeout_s=20)
        reply = await aegis.request(methods.echo, Echo(text="after"))
        assert reply.text == "after"
    assert sum(process.count("dying") for process in system.processes) == 3


async def test_a_long_handler_is_not_given_to_another_member(system: System) -> None:
    """It runs three times the acknowledgement wait, and once."""
    service = new_service()
    methods = Methods(service)
    members = [await system.start_ledger(service, instance_id=f"m{n}") for n in range(2)]
    async with aegis_sdk.connect(system.url) as aegis:
        reply = await aegis.request(methods.echo, Echo(text="long", hold_s=3.2), timeout_s=10)
        assert reply.attempt == 1
    assert sum(member.count("begun", op="long") for member in members) == 1
