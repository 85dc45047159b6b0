"""Callers that die, or miss their replies: what was accepted is answered all the same."""

from __future__ import annotations

import asyncio
import json
import time

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import NeverAccepted

from bench.chaos.proxy import Proxy
from tests.scenarios.ledger import Booking, Methods
from tests.scenarios.system import Process, System, new_service


async def test_what_a_killed_caller_handed_in_is_answered_to_another_process(
    system: System,
) -> None:
    """G1, G4: kill -9 in the middle of submitting; what it was told is accepted has its outcome."""
    service = new_service()
    methods = Methods(service)
    await system.start_ledger(service, {"A": "auto"}, instance_id="one")
    options = {"url": system.url, "service": service, "resource": "A", "hold_s": 0.02}
    caller = await Process.start(
        "caller", "-m", "tests.scenarios.submitter", json.dumps(options), folder=system.folder
    )
    system.processes.append(caller)
    await caller.wait_for("accepted", op="op-40")
    await caller.kill()
    accepted = [line for line in caller.events if line["event"] == "accepted"]
    async with aegis_sdk.connect(system.url) as aegis:
        totals = [await aegis.attach(line["id"], methods.book, timeout_s=20) for line in accepted]
        # One more may have been stored without a word to the caller; it comes last.
        last = await aegis.request(methods.read, Booking(op="read"), resource="A", timeout_s=20)
    assert [total.ops[-1] for total in totals] == [line["op"] for line in accepted]
    assert len(accepted) <= last.count <= len(accepted) + 1
    assert last.ops == [f"op-{n}" for n in range(last.count)]


async def test_a_reply_that_is_lost_with_its_connection_is_fetched(system: System) -> None:
    """G3, G4, G8: executed while the caller hears nothing, and the connection dies with the reply."""
    service = new_service()
    methods = Methods(service)
    one = await system.start_ledger(service, {"A": "auto"}, instance_id="one")
    assert isinstance(system.nats, EmbeddedNats)
    proxy = await Proxy(system.nats.port).start()
    try:
        async with aegis_sdk.connect(proxy.url) as aegis:
            await aegis.request(methods.book, Booking(op="first"), resource="A")
            call = asyncio.create_task(
                aegis.request(
                    methods.book, Booking(op="second", hold_s=0.2), resource="A", timeout_s=15
                )
            )
            await one.wait_for("begun", op="second")
            proxy.cut(to_nats=False)
            while len(await system.journal(service)) < 2:  # then its reply lies in the cut
                continue
            assert not call.done()
            proxy.heal(reset=True)
            total = await call
    finally:
        await proxy.stop()
    assert total.ops == ["first", "second"]
    assert one.count("begun", op="second") == 1


async def test_attach_says_soon_that_an_id_is_nowhere(system: System) -> None:
    """G4: instead of being asked for ever."""
    service = new_service()
    methods = Methods(service)
    await system.start_ledger(service, {"A": "auto"}, instance_id="one")
    async with aegis_sdk.connect(system.url) as aegis:
        for n in range(50):
            await aegis.request(methods.book, Booking(op=f"op-{n}"), resource="A")
        begun_s = time.monotonic()
        with pytest.raises(NeverAccepted):
            await aegis.attach("0123456789ab.7", methods.book, timeout_s=0.2)
        assert time.monotonic() - begun_s < 2.0
