"""`pause` and `resume`: the kill switch."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Annotated, Final

import typer
from aegis_sdk.contract.control import PauseTraffic, TrafficPaused

from aegis_control.entrypoints.cli import render
from aegis_control.entrypoints.cli.change import carry_out
from aegis_control.entrypoints.cli.errors import Exit
from aegis_control.entrypoints.cli.options import (
    DEFAULT_TIMEOUT_S,
    As,
    Cli,
    DryRun,
    Reason,
    Yes,
    command,
    must_ask,
)
from aegis_control.infrastructure.admin_client import AdminClient, AdminError

ANSWER_S: Final = 8.0
"""Control waits for its instances before it answers; unless --timeout says something else."""
LOOK_S: Final = 0.2

Target = Annotated[
    str, typer.Argument(metavar="RESOURCE|SERVICE[/METHOD]", help="What to pause or resume.")
]
OfService = Annotated[
    str | None,
    typer.Option("--service", "-s", metavar="SERVICE", help="The target is a resource of it."),
]


def mount(app: typer.Typer) -> None:
    command(app, "pause")(pause)
    command(app, "resume")(resume)


async def pause(
    cli: Cli,
    target: Target,
    *,
    service: OfService = None,
    wait: Annotated[
        float,
        typer.Option(
            "--wait",
            metavar="SECONDS",
            min=0,
            max=3600,
            help="How long to wait for what has begun (default 10).",
        ),
    ] = 10.0,
    reason: Reason = "",
    as_: As = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> int:
    """Begin nothing new of a resource, a service or a method, until `resume`. Reads go on.

    With exit code 0 nothing of it begins any more, anywhere, and what has begun goes on. Callers get Paused, with the
    reason. What `submit` has handed in without expires_s waits. It survives restarts and failovers of everything.
    """
    order = _order(cli, target, service, reason, as_, dry_run=dry_run)
    async with _patient(cli).admin() as admin:
        if not dry_run and must_ask(cli, yes=yes):
            _show_paused(await admin.pause(order.model_copy(update={"dry_run": True})))
            if not typer.confirm("Pause it?"):
                print("nothing was changed")
                return Exit.FAILED
        done = await admin.pause(order)
        if not cli.as_json:
            _show_paused(done)
        if done.unconfirmed:
            raise _unconfirmed(done)
        if done.running:
            done = await _when_ended(admin, order, done, wait_s=wait)
            if not cli.as_json:
                _show_left(done, wait)
    if cli.as_json:
        render.show_json(done)
    return Exit.DONE


async def resume(
    cli: Cli,
    target: Target,
    *,
    service: OfService = None,
    reason: Reason = "",
    as_: As = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> int:
    """Serve again what was paused; what was kept meanwhile runs now, in its order."""
    order = _order(cli, target, service, reason, as_, dry_run=dry_run)
    return await carry_out(
        _patient(cli), order, AdminClient.resume, _show_resumed, yes=yes, ask="Resume it?"
    )


def _order(
    cli: Cli, target: str, service: str | None, reason: str, as_: str | None, *, dry_run: bool
) -> PauseTraffic:
    return PauseTraffic(
        target=target, service=service, reason=reason, dry_run=dry_run, by=cli.by(as_)
    )


def _patient(cli: Cli) -> Cli:
    return replace(cli, timeout_s=ANSWER_S) if cli.timeout_s == DEFAULT_TIMEOUT_S else cli


def _unconfirmed(done: TrafficPaused) -> AdminError:
    names = ", ".join(done.unconfirmed)
    return AdminError(
        "timed_out",
        f"{done.pause.what} is paused, but {names} did not say in time that it knows, and may begin something yet",
        "repeat this command; or take it out with `ipc-cli disconnect`",
    )


async def _when_ended(
    admin: AdminClient, order: PauseTraffic, done: TrafficPaused, *, wait_s: float
) -> TrafficPaused:
    """When nothing of it runs any more, or after `wait_s`. Raises: AdminError."""
    ends_s = time.monotonic() + wait_s
    while done.running and time.monotonic() < ends_s:
        await asyncio.sleep(LOOK_S)
        now = await admin.pause(order)
        done = done.model_copy(update={"running": now.running, "waiting": now.waiting})
    return done


def _show_left(done: TrafficPaused, wait_s: float) -> None:
    if done.running:
        render.show_line(f"still run after {wait_s:g} s: {done.running}")
    else:
        render.show_line("all that had begun has ended")


def _show_paused(done: TrafficPaused) -> None:
    if done.dry_run:
        render.show_line(f"dry run: would be paused: {render.pause(done.pause)}")
        return
    render.show_line(
        f"{'was paused already' if done.was_so else 'paused'}: {render.pause(done.pause)}"
    )
    if done.asleep:
        names = ", ".join(done.asleep)
        render.show_line(f"say nothing, and read it before they begin anything: {names}")
    if done.running:
        render.show_line(f"had begun, and go on: {done.running}")
    if done.waiting:
        render.show_line(f"wait until it is resumed: {done.waiting}")


def _show_resumed(done: TrafficPaused) -> None:
    if done.was_so:
        render.show_line(f"{done.pause.what} is not paused")
    else:
        would = "dry run: would be resumed" if done.dry_run else "resumed"
        render.show_line(f"{would}: {done.pause.what}, paused since {render.pause(done.pause)}")
