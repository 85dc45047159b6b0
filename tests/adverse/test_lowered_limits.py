"""A poisoned request that no dead letter on the real server can hold ends all the same."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import HandlerFailed
from aegis_sdk.contract.dead_letter import PAYLOAD_LEFT_OUT

from tests.integration.cli.support import run_cli
from tests.scenarios.ledger import Booking, Methods
from tests.scenarios.system import Process, System, new_service

pytestmark = pytest.mark.scenario
HIGH, LOW = 64 << 10, 16 << 10


async def test_a_poisoned_request_over_a_lowered_max_payload_ends_and_its_resource_goes_on(
    tmp_path: Path,
) -> None:
    """G1: it was stored near the old bound; its dead letter is kept without the payload."""
    service = new_service()
    methods = Methods(service)
    with EmbeddedNats(tmp_path / "nats", max_payload=HIGH) as server:
        system = System(server, tmp_path)
        try:
            await system.start_control()
            first = await system.start_ledger(service, {"A": "auto"}, instance_id="i0")
            async with aegis_sdk.connect(server.url) as aegis:
                assert (await aegis.request(methods.read, Booking(op=""), resource="A")).count == 0
                first.send(signal.SIGSTOP)
                large = Booking(op="x" * (HIGH - 5000))
                ticket = await aegis.submit(methods.die, large, resource="A")
                server.kill()
                server._max_payload = LOW
                await asyncio.to_thread(server.start)
                first.send(signal.SIGCONT)
                for n in range(1, 4):  # each may die before it says that it is ready
                    system.processes.append(await start(system, service, f"i{n}"))
                with pytest.raises(HandlerFailed, match="died"):
                    await aegis.attach(ticket.id, methods.die, timeout_s=20.0)
                after = await aegis.request(methods.book, Booking(op="after"), resource="A")
                assert after.ops == ["after"]
            listed = await run_cli("dlq", "list", "--url", server.url, "-o", "json")
            [letter] = json.loads(listed.out)
            assert letter["error_code"] == PAYLOAD_LEFT_OUT
            assert "begun 3 times" in letter["error"]
            redriven = await run_cli("dlq", "redrive", ticket.id, "--yes", "--url", server.url)
            assert redriven.code != 0
            assert "has no payload" in redriven.err
        finally:
            await system.stop()
    assert any(process.logged("dead_letter_shortened") for process in system.processes)


async def start(system: System, service: str, instance_id: str) -> Process:
    options = {
        "url": system.url,
        "service": service,
        "resources": {"A": "auto"},
        "id": instance_id,
    }
    arguments = ("-m", "tests.scenarios.ledger", json.dumps(options))
    return await Process.start(instance_id, *arguments, folder=system.folder)
