"""`accept-loss`: an operator says that a service goes on without what its streams lost."""

from __future__ import annotations

from typing import Annotated

import typer
from aegis_sdk.contract.control import AcceptLoss, LossAccepted

from aegis_control.entrypoints.cli import render
from aegis_control.entrypoints.cli.change import carry_out
from aegis_control.entrypoints.cli.options import As, Cli, DryRun, Reason, Yes, command
from aegis_control.infrastructure.admin_client import AdminClient


def mount(app: typer.Typer) -> None:
    command(app, "accept-loss")(accept_loss)


async def accept_loss(
    cli: Cli,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="Its name.")],
    *,
    reason: Reason = "",
    as_: As = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> int:
    """Serve a service again without what its streams lost. First look at it with --dry-run.

    What was deleted, emptied or replaced by an older copy stays lost: its journal goes on as it is now, under a
    new identity, and each resource begins a new epoch.
    """
    order = AcceptLoss(service=service, reason=reason, dry_run=dry_run, by=cli.by(as_))
    return await carry_out(
        cli, order, AdminClient.accept_loss, _show, yes=yes, ask="Go on without it?"
    )


def _show(accepted: LossAccepted) -> None:
    would = "would go on" if accepted.dry_run else "goes on"
    render.show_line(
        f"{'dry run: ' if accepted.dry_run else ''}{accepted.service} {would} without what is lost;"
        f" {accepted.resources} resources begin a new epoch"
    )
    rows = [
        (
            loss.stream,
            loss.what,
            f"{loss.first_seq} to {loss.last_seq}",
            ", ".join(loss.resources) or "all",
        )
        for loss in accepted.losses
    ]
    render.show_table(("STREAM", "WHAT HAPPENED", "LOST SEQUENCES", "RESOURCES"), rows)
