"""`timers`: what resources will do later, read from NATS itself."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Final

import typer
from aegis_sdk.contract.names import check_service, encode_token

from aegis_control.application.operators.schedules import Schedules, TimersView
from aegis_control.domain.operators.schedule import TimerLine
from aegis_control.entrypoints.cli import render
from aegis_control.entrypoints.cli.errors import Exit
from aegis_control.entrypoints.cli.options import Cli, command
from aegis_control.infrastructure.admin_client import AdminError
from aegis_control.infrastructure.nats_pasts import NatsPasts

SHOWN: Final = 100


def mount(app: typer.Typer) -> None:
    command(app, "timers")(timers)


async def timers(
    cli: Cli,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="Its name.")],
    resource: Annotated[
        str | None, typer.Argument(metavar="[RESOURCE]", help="Only this resource's.")
    ] = None,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The next N.")] = SHOWN,
) -> int:
    """Timers that have not fired, the next one first: whose, its method, when it is due, which request set it.

    It needs neither control nor the instances. Exit code 6 if the log has entries that this version can't read.
    """
    check_service(service)
    if resource is not None:
        encode_token(resource)
    async with cli.admin() as admin:
        logs = NatsPasts(admin)
        if not (await logs.extent(service)).last:
            raise AdminError("not_found", f"there is no log of a service {service!r}")
        if resource is not None and service not in await logs.services_of(resource):
            raise AdminError("not_found", f"no log has a resource {resource!r} of {service}")
        try:
            view = await Schedules(logs).of(service, resource)
        except ValueError as error:
            raise AdminError(
                "unreadable", f"this version can't read a checkpoint: {error}"
            ) from error
    shown = replace(view, timers=view.timers[:limit])
    if cli.as_json:
        render.show_json(shown)
    else:
        _show(shown, left_out=len(view.timers) - len(shown.timers))
    return Exit.DEGRADED if view.unread else Exit.DONE


def _show(view: TimersView, *, left_out: int) -> None:
    for each in view.unread:
        render.show_line(f"entry {each.position} can't be read: {each.why}")
    now_s = time.time()
    columns = ("RESOURCE", "NAME", "METHOD", "DUE", "IN", "SET BY")
    render.show_table(columns, [_row(line, now_s) for line in view.timers])
    if left_out:
        render.show_line(f"{left_out} later ones are left out: see --limit")


def _row(line: TimerLine, now_s: float) -> tuple[str, ...]:
    wait_s = round(line.due - now_s)
    span = str(timedelta(seconds=abs(wait_s)))
    wait = span if wait_s >= 0 else f"overdue {span}"
    return (line.resource, line.name, line.method, render.clock(line.due), wait, line.set_by)
