"""Control ends in the middle of what it asked an instance to do: no resource stays down for it."""

from __future__ import annotations

import asyncio
import signal
import time

import aegis_sdk
import nats
import pytest
from aegis_sdk.contract.control import Command, CommandKind, FailoverResources
from nats.aio.msg import Msg

from tests.scenarios.ledger import Booking, Methods
from tests.scenarios.system import SUBJECTS, new_service, running_system

pytestmark = pytest.mark.scenario

ENDS = {
    # How control's leader ends, how many controls there are, and how soon the resource is served again.
    "terminated": (signal.SIGTERM, 1, 3.0),
    "killed": (signal.SIGKILL, 1, 8.0),
    "stopped, with a successor": (signal.SIGSTOP, 2, 5.0),
}


@pytest.mark.parametrize(("number", "controls", "within_s"), ENDS.values(), ids=ENDS)
async def test_a_handover_that_control_does_not_finish_leaves_no_resource_paused(
    number: signal.Signals, controls: int, within_s: float
) -> None:
    """G8: the pause has a lease, which the instance itself counts."""
    service = new_service()
    methods = Methods(service)
    async with (
        running_system(system_account=False, controls=controls) as system,
        aegis_sdk.connect(system.url) as aegis,
    ):
        active = await system.start_ledger(service, {"A": "active"}, instance_id="one")
        await system.start_ledger(service, {"A": "standby"}, instance_id="two")
        client = await nats.connect(system.url)
        paused = asyncio.Event()

        async def on_command(message: Msg) -> None:
            if Command.model_validate_json(message.data).kind is CommandKind.PAUSE:
                paused.set()

        await client.subscribe(SUBJECTS.command("one"), cb=on_command)
        held = asyncio.create_task(
            aegis.request(methods.book, Booking(op="1", hold_s=1.0), resource="A", timeout_s=15.0)
        )
        await active.wait_for("begun")
        order = FailoverResources(resources=["A"], service=service).model_dump_json().encode()
        await client.publish(SUBJECTS.admin("failover"), order, "nobody.waits")
        async with asyncio.timeout(5.0):
            await paused.wait()
        leader = next(p for p in system.processes if p.logged("leader_elected"))
        leader.send(number)
        ended_s = time.monotonic()
        await held
        await aegis.request(methods.book, Booking(op="2"), resource="A", timeout_s=15.0)
        took_s = time.monotonic() - ended_s
        total = await aegis.request(methods.read, Booking(op=""), resource="A")
        await client.close()
    assert total.ops == ["1", "2"]
    assert took_s < within_s


async def test_a_drain_that_control_noted_and_did_not_ask_for_is_asked_for_again() -> None:
    """The operator's word is on record: the next leader tells the instance, which leaves."""
    service = new_service()
    async with running_system(system_account=False) as system:
        one = await system.start_ledger(service, {"A": "active"}, instance_id="one")
        client = await nats.connect(system.url)
        bucket, key = SUBJECTS.registry_bucket, SUBJECTS.instance_key(service, "one")
        await system.processes[0].kill()
        # What a control leaves that dies behind its first step.
        stored = await client.jetstream().get_last_msg(f"KV_{bucket}", f"$KV.{bucket}.{key}")
        assert stored.data is not None
        noted = stored.data.replace(b'"state":"live"', b'"state":"draining"')
        assert noted != stored.data
        await client.jetstream().publish(f"$KV.{bucket}.{key}", noted)
        await client.close()
        await system.start_control(system_account=False)
        await one.wait_for("ended", timeout_s=10.0)
