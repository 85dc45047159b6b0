"""`rebalance`: have control spread a service's resources evenly, now."""

from __future__ import annotations

from typing import Annotated

import typer
from aegis_sdk.contract.control import Rebalance, Rebalanced

from aegis_control.entrypoints.cli import render
from aegis_control.entrypoints.cli.change import carry_out
from aegis_control.entrypoints.cli.options import As, Cli, DryRun, Reason, Yes, command
from aegis_control.infrastructure.admin_client import AdminClient


def mount(app: typer.Typer) -> None:
    command(app, "rebalance")(rebalance)


async def rebalance(
    cli: Cli,
    service: Annotated[
        str | None, typer.Argument(metavar="[SERVICE]", help="Its name. Default: all services.")
    ] = None,
    *,
    reason: Reason = "",
    as_: As = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> int:
    """Spread AUTO resources evenly over the live instances, by their capacities; also what `failover` moved.

    It says what moves, and control then moves few at a time: `events --follow` shows it. A claimed Role.ACTIVE stays.
    Refused while an instance drains or is late.
    """
    order = Rebalance(service=service, reason=reason, dry_run=dry_run, by=cli.by(as_))
    return await carry_out(cli, order, AdminClient.rebalance, _show, yes=yes)


def _show(result: Rebalanced) -> None:
    rows = [
        (each.service, resource, to)
        for each in result.services
        for resource, to in each.moves.items()
    ]
    would = "would move" if result.dry_run else "move from now on"
    what = f"resources: {len(rows)} {would}" if rows else "nothing to move: it is even"
    render.show_line(f"{'dry run: ' if result.dry_run else ''}{what}")
    if rows:
        render.show_table(("SERVICE", "RESOURCE", "NEXT ACTIVE"), rows)
