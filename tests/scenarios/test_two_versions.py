"""Two versions of a service share its state: a rolling upgrade, a failover back to the old one, and forward again."""

from __future__ import annotations

from typing import Any

import aegis_sdk
from aegis_sdk import Aegis

from tests.scenarios.system import Process, System
from tests.scenarios.trader import ACCOUNT, PLACE, Ask


async def trader(system: System, name: str, version: int) -> Process:
    process = await Process.start(
        name, "-m", "tests.scenarios.trader", system.url, name, str(version), folder=system.folder
    )
    system.processes.append(process)
    await process.wait_for("ready", timeout_s=30.0)
    return process


async def placed(aegis: Aegis, id_: str, *, by: int) -> dict[str, Any]:
    reply = await aegis.request(PLACE, Ask(id=id_, quantity=5), resource=ACCOUNT, timeout_s=20.0)
    assert reply["version"] == by
    return reply


async def test_what_the_new_version_stored_survives_the_old_one(system: System) -> None:
    """G6, across versions: killed in turn, each goes on with the state, and keeps what it doesn't know of it."""
    old = await trader(system, "old", 1)
    async with aegis_sdk.connect(system.url) as aegis:
        await placed(aegis, "o1", by=1)
        new = await trader(system, "new", 2)
        await old.kill()
        first = await placed(aegis, "o2", by=2)
        assert (first["limit"], first["book"]["venues"]) == (300, {"XETR": 1})
        again = await trader(system, "old-again", 1)
        await new.kill()
        second = await placed(aegis, "o3", by=1)
        await placed(aegis, "o2", by=1)  # its quantity changes, and its venue stays
        await trader(system, "new-again", 2)
        await again.kill()
        last = await placed(aegis, "o4", by=2)
    assert second["book"]["venues"] == {"XETR": 1}
    venues = {name: order.get("venue") for name, order in last["book"]["orders"].items()}
    assert venues == {"o1": "", "o2": "XETR", "o3": "", "o4": "XETR"}
    assert [fill["venue"] for fill in last["book"]["fills"]] == ["", "XETR", "", "", "XETR"]
    assert (last["book"]["quantity"], last["book"]["venues"], last["limit"]) == (
        25,
        {"XETR": 2},
        300,
    )
