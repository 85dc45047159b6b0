"""`retire`: an operator ends what is not needed any more."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from aegis_sdk.contract.control import Retired, RetireResource

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


def _show(retired: Retired) -> None:
    would = "would end" if retired.dry_run else "has ended"
    dry = "dry run: " if retired.dry_run else ""
    render.show_line(f"{dry}{retired.resource} of {retired.service} {would}")
    render.show_line(f"after {retired.outcomes} outcomes, in epoch {retired.epoch}; its state:")
    for line in json.dumps(retired.state, indent=2, ensure_ascii=False).splitlines():
        render.show_line(line)
