"""What an operator does by `ipc-cli`, seen from the instances and their callers."""

from __future__ import annotations

import asyncio
import json
import sys

import aegis_sdk

from tests.scenarios.ledger import Methods
from tests.scenarios.system import Load, System, new_service

PAIR = {"A": "auto", "B": "auto"}


async def ipc_cli(system: System, *arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from aegis_control.entrypoints.cli import main; main()",
        "--url",
        system.url,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_disconnected_instance_is_told_why_and_its_leases_move_at_once(
    system: System,
) -> None:
    """G8: callers see time alone; the instance ends and does not come back by itself."""
    service = new_service()
    methods = Methods(service)
    one = await system.start_ledger(service, PAIR, instance_id="one")
    two = await system.start_ledger(service, PAIR, instance_id="two")
    async with aegis_sdk.connect(system.url) as aegis:
        load = Load(aegis, methods)
        load.start(*PAIR)
        await load.wait_done(50)
        code, out, err = await ipc_cli(
            system, "disconnect", "one", "--reason", "bad fills", "--yes", "-o", "json"
        )
        assert (code, err) == (0, "")
        assert json.loads(out)["moved"] == {"A": "two", "B": "two"}
        evicted = await one.wait_for("evicted")
        assert "bad fills" in evicted["reason"]
        await one.wait_for("ended")
        await load.wait_done(load.done + 50)
        await load.stop()
        assert load.errors == []
    assert two.count("promoted") == 2
    code, out, _ = await ipc_cli(system, "show-route", "A", "-o", "json")
    assert code == 0
    assert json.loads(out)[0]["active"] == "two"


async def test_a_resource_moves_on_purpose_and_back_without_an_error(system: System) -> None:
    """G5, G6, G8: the active finishes what it has begun, then the standby goes on."""
    service = new_service()
    methods = Methods(service)
    await system.start_ledger(service, PAIR, instance_id="one")
    await system.start_ledger(service, PAIR, instance_id="two")
    async with aegis_sdk.connect(system.url) as aegis:
        load = Load(aegis, methods)
        load.start(*PAIR)
        for to in ("two", "one", "two"):
            await load.wait_done(load.done + 50)
            code, _, err = await ipc_cli(system, "failover", "A", "--to", to, "--yes")
            assert (code, err) == (0, "")
        await load.wait_done(load.done + 50)
        await load.stop()
        assert load.errors == []
    assert len(await system.journal(service)) == load.done
