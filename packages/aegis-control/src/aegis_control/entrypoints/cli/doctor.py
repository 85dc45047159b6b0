"""`doctor`: everything that is worth knowing before it hurts, each finding with what to do."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import typer
from aegis_sdk.contract.control import CheckupView, LeaseState, LonelyView, LossView

from aegis_control.application.operators.survey import Overview
from aegis_control.domain.operators.health import (
    Facts,
    Finding,
    Level,
    StreamFact,
    examine,
    is_degraded,
    state,
)
from aegis_control.entrypoints.cli import render
from aegis_control.entrypoints.cli.errors import Exit
from aegis_control.entrypoints.cli.options import Cli, command
from aegis_control.infrastructure.admin_client import AdminClient, AdminError
from aegis_control.infrastructure.nats_archive import server_time
from aegis_control.infrastructure.nats_subscriptions import subscriptions

_COLOURS: Final = {
    Level.OK: "green",
    Level.NOTE: "cyan",
    Level.UNKNOWN: "yellow",
    Level.BAD: "red",
}


def mount(app: typer.Typer) -> None:
    command(app, "doctor")(doctor)


@dataclass(frozen=True, slots=True)
class Report:
    degraded: bool
    findings: list[Finding]


async def doctor(cli: Cli) -> int:
    """Is it safe and well? Server, disks, clocks, settings, standbys, dead letters. Exit code 6 if not.

    Without a control that answers it says so, and what NATS tells by itself.
    """
    async with cli.admin() as admin:
        nats, control = await asyncio.gather(_ask_nats(admin), _ask_control(admin))
    findings = examine(replace(nats, **control))
    report = Report(is_degraded(findings), findings)
    if cli.as_json:
        render.show_json(report)
    else:
        _show(report)
    return Exit.DEGRADED if report.degraded else Exit.DONE


async def unwell(admin: AdminClient) -> list[Finding]:
    """What is bad of the running system, as `status` says it. Raises: AdminError, Unavailable."""
    overview = await admin.overview()
    kept = await admin.archive.stream_state(admin.subjects.dlq_stream)
    return state(
        replace(_NOTHING_KNOWN, dead_letters=int(kept.get("messages", 0)), **about(overview))
    )


_NOTHING_KNOWN: Final = Facts(
    version="",
    max_payload_bytes=0,
    clock_offset_s=None,
    clock_error_s=0.0,
    storage_bytes=0,
    storage_bytes_max=-1,
    streams=[],
    dead_letters=0,
)


async def _ask_nats(admin: AdminClient) -> Facts:
    """Raises: Unavailable."""
    archive, names = admin.archive, admin.subjects
    asked_s = time.time()
    dlq = await archive.stream_info(names.dlq_stream)
    answered_s = time.time()
    account = await archive.account()
    services = await archive.services()
    streams = [names.dlq_stream, names.events_stream]
    streams += [f"KV_{names.registry_bucket}", f"KV_{names.leases_bucket}"]
    for service in services:
        streams += [names.request_stream(service), names.journal_stream(service)]
        streams.append(names.emitted_stream(service))
    infos = [await archive.stream_info(stream) for stream in streams]
    offset_s = None if dlq is None else server_time(dlq) - (asked_s + answered_s) / 2
    return Facts(
        version=admin.server_version,
        max_payload_bytes=int(admin.server.get("max_payload", 0)),
        clock_offset_s=offset_s,
        clock_error_s=(answered_s - asked_s) / 2,
        storage_bytes=int(account.get("storage", 0)),
        storage_bytes_max=int(account.get("limits", {}).get("max_storage", -1)),
        streams=[_stream(info) for info in infos if info is not None],
        dead_letters=len(await archive.dead_letters()),
        subscriptions=await subscriptions(admin.link, names),
    )


async def _ask_control(admin: AdminClient) -> dict[str, Any]:
    """The facts that are control's to say, or why there are none."""
    try:
        return about(await admin.overview()) | {"checkup": await admin.checkup()}
    except AdminError as error:
        return {"control_missing": error.message}


def about(overview: Overview) -> dict[str, Any]:
    """The facts that are control's to say, of services, instances and resources."""
    services = overview.services
    checkup = CheckupView(
        leader="",
        replicas=0,
        lonely=[
            LonelyView(service=s.service, resources=s.unfollowed) for s in services if s.unfollowed
        ],
        unreadable_values=overview.unreadable_values,
        paused=[pause for s in services for pause in s.paused],
        losses=[LossView(service=s.service, what=s.log_lost) for s in services if s.log_lost],
    )
    return {
        "checkup": checkup,
        "instances": [instance for service in services for instance in service.instances],
        "resources": sum((Counter(service.leases) for service in services), Counter()),
        "idle": [
            s.service for s in services if not s.instances and not s.leases.get(LeaseState.VACANT)
        ],
    }


def _stream(info: dict[str, Any]) -> StreamFact:
    config, state = info["config"], info["state"]
    peers = info.get("cluster", {}).get("replicas") or []
    behind = [peer["name"] for peer in peers if peer.get("offline") or not peer.get("current")]
    return StreamFact(
        name=config["name"],
        replicas=int(config["num_replicas"]),
        messages=int(state["messages"]),
        messages_max=int(config["max_msgs"]),
        bytes=int(state["bytes"]),
        bytes_max=int(config["max_bytes"]),
        behind=tuple(behind),
    )


def _show(report: Report) -> None:
    rows = [row for finding in report.findings for row in _rows(finding)]
    render.show_table(("", "CHECK", "FOUND, AND WHAT TO DO"), rows)
    bad = sum(finding.level is Level.BAD for finding in report.findings)
    render.show_line(f"degraded: {bad} bad" if report.degraded else "well")


def _rows(finding: Finding) -> Iterator[tuple[render.Cell, ...]]:
    level = render.cell(finding.level.value, _COLOURS[finding.level])
    yield level, finding.check, finding.found
    if finding.do:
        yield "", "", f"→ {finding.do}"
