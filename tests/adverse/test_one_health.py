"""What is bad is bad wherever one looks: `status`, `doctor`, the console."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import aegis_sdk
import pytest
from aegis_control.application.operators.survey import Overview, ServiceSummary
from aegis_control.domain.operators.alarms import ServiceFacts, SystemFacts, alarms
from aegis_control.domain.operators.health import Facts, Level, examine, state
from aegis_control.entrypoints.cli.doctor import about
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Role
from aegis_sdk.contract.control import InstanceState, InstanceView, LeaseState

from tests.adverse.support_doors import totals
from tests.integration.cli.support import run_cli
from tests.integration.control.support import control

LIVE = InstanceView(service="desk", instance_id="a", state=InstanceState.LIVE)
WELL = ServiceSummary(service="desk", instances=[LIVE], leases={LeaseState.HELD: 3})
NATS = Facts(
    version="2.15.1",
    max_payload_bytes=1 << 20,
    clock_offset_s=0.0,
    clock_error_s=0.0,
    storage_bytes=0,
    storage_bytes_max=-1,
    streams=[],
    dead_letters=0,
)


def instance(**changes: Any) -> dict[str, Any]:
    return {"instances": [LIVE.model_copy(update=changes)]}


@pytest.mark.parametrize(
    ("changes", "is_bad"),
    [
        ({}, False),
        ({"leases": {LeaseState.VACANT: 8}}, True),
        ({"leases": {LeaseState.WAITING: 1}}, True),
        ({"unfollowed": 1}, True),
        ({"log_lost": "the journal is gone"}, True),
        ({"instances": [], "leases": {}}, True),
        ({"instances": [], "leases": {LeaseState.VACANT: 1}}, True),
        (instance(state=InstanceState.LOST), True),
        (instance(state=InstanceState.STALLED), True),
        (instance(state=InstanceState.DRAINING), False),
        (instance(state=InstanceState.EVICTED), False),
        (instance(lag_entries=1_000), False),
        (instance(lag_entries=1_001), True),
        (instance(loop_lag_s=0.6), False),
        (instance(unreadable=1), True),
        ({"dead_letters": 1}, True),
        ({"unreadable_values": 1}, True),
    ],
)
def test_status_doctor_and_the_console_agree(changes: dict[str, Any], is_bad: bool) -> None:
    changes = dict(changes)
    letters, values = changes.pop("dead_letters", 0), changes.pop("unreadable_values", 0)
    service = WELL.model_copy(update=changes)
    told = about(Overview(services=[service], unreadable_values=values))
    facts = replace(NATS, dead_letters=letters, **told)
    page = SystemFacts(
        now_s=0.0,
        services=[
            ServiceFacts(
                "desk",
                service.instances,
                waiting=service.leases.get(LeaseState.WAITING, 0),
                vacant=service.leases.get(LeaseState.VACANT, 0),
                unfollowed=service.unfollowed,
                log_lost=service.log_lost,
            )
        ],
        dead_letters=letters,
        unreadable_values=values,
    )
    said = {
        "status": bool(state(facts)),
        "doctor": any(finding.level is Level.BAD for finding in examine(facts)),
        "console": any(alarm.level is Level.BAD for alarm in alarms(page)),
    }
    assert said == dict.fromkeys(said, is_bad)


async def test_resources_that_nobody_serves_are_degraded_in_each(
    server: EmbeddedNats, prefix: str
) -> None:
    """Eight accounts whose only instance has left; a supervisor looks at the exit codes."""
    at = ("--url", server.url, "--prefix", prefix)
    async with (
        control(server.url, prefix, system_url=server.system_url),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        resources = {f"ACC-{n}": Role.AUTO for n in range(8)}
        await aegis.serve(totals(), resources=resources)
        await aegis.serve(totals(), resources=resources)
        assert (await run_cli("status", *at)).code == 0
        await aegis.serve(totals(), resources={"ACC-X": Role.ACTIVE})
        alone = await run_cli("status", *at)
        assert alone.code == 6
        assert "ACC-X" in (await run_cli("doctor", *at)).out
        for instance in aegis._instances:
            await instance.drain()
        status, doctor = await run_cli("status", *at), await run_cli("doctor", *at)
        assert status.code == doctor.code == 6
        assert "9 resources are vacant" in status.out
        assert "9 resources are vacant" in doctor.out
