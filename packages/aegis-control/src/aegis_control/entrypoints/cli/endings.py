"""`retire` and `forget`: an operator ends what is not needed any more."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from aegis_sdk.contract.control import ForgetService, Forgotten, Retired, RetireResource

from aegis_control.entrypoints.cli import render
from aegis_control.entrypoints.cli.change import carry_out
from aegis_control.entrypoints.cli.options import (
    As,
    Cli,
    DryRun,
    Reason,
    ServiceOption,
    Yes,
    command,
)
from aegis_control.infrastructure.admin_client import AdminClient


def mount(app: typer.Typer) -> None:
    command(app, "retire")(retire)
    command(app, "forget")(forget)


async def retire(
    cli: Cli,
    resource: Annotated[str, typer.Argument(metavar="RESOURCE", help="Its id.")],
    *,
    service: ServiceOption = None,
    reason: Reason = "",
    as_: As = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> int:
    """End a resource for good, and print its final state, which the log keeps.

    Refused while an instance offers it, or requests wait for it. Afterwards nobody is missing for it. An instance
    that offers it later brings it back with its state.
    """
    order = RetireResource(
        resource=resource, service=service, reason=reason, dry_run=dry_run, by=cli.by(as_)
    )
    return await carry_out(cli, order, AdminClient.retire, _show, yes=yes, ask="End it?")


async def forget(
    cli: Cli,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="Its name.")],
    *,
    reason: Reason = "",
    as_: As = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> int:
    """Remove a service from everywhere, with all that it holds. First look at it with --dry-run.

    Refused while an instance is registered, or stored requests have no outcome. What went does not come back; an
    instance that registers under this name later begins anew. When it is cut off in the middle, repeat it.
    """
    order = ForgetService(service=service, reason=reason, dry_run=dry_run, by=cli.by(as_))
    ask = "Remove all of it?"
    return await carry_out(cli, order, AdminClient.forget, _show_forgotten, yes=yes, ask=ask)


def _show_forgotten(forgotten: Forgotten) -> None:
    would = "would be forgotten" if forgotten.dry_run else "is forgotten"
    dry = "dry run: " if forgotten.dry_run else ""
    render.show_line(f"{dry}{forgotten.service} {would}")
    rows = [(f"stream {name}", f"{count} messages") for name, count in forgotten.streams.items()]
    rows += [
        ("leases", str(forgotten.leases)),
        ("records of the registry", str(forgotten.records)),
        ("dead letters", str(forgotten.dead_letters)),
    ]
    render.show_table(("WHAT", "HOW MUCH"), rows)


def _show(retired: Retired) -> None:
    would = "would end" if retired.dry_run else "has ended"
    dry = "dry run: " if retired.dry_run else ""
    render.show_line(f"{dry}{retired.resource} of {retired.service} {would}")
    render.show_line(f"after {retired.outcomes} outcomes, in epoch {retired.epoch}; its state:")
    for line in json.dumps(retired.state, indent=2, ensure_ascii=False).splitlines():
        render.show_line(line)
    if retired.timers:
        render.show_line(
            f"{retired.timers} timers stay with it, and fire if it is ever offered again"
        )
