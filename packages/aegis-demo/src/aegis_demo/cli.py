"""The command line of `aegis-control demo`, which hands its arguments to `main`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final

import typer
from typer.core import TyperCommand

from aegis_demo.amounts import positive
from aegis_demo.options import DemoOptions

ORDERS_MAX: Final = 1_000_000
STRIKES_MAX: Final = 50
INSTANCES_MAX: Final = 16
_COUNTED: Final = ("--kill", "--pause")
USAGE: Final = 2


class DemoCommand(TyperCommand):
    """Lets `--kill` and `--pause` stand without a number: then it is 1."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        return super().parse_args(ctx, with_counts(args))


def with_counts(args: list[str]) -> list[str]:
    """`--kill --json` as `--kill 1 --json`."""
    counted: list[str] = []
    for word, following in itertools.zip_longest(args, args[1:], fillvalue=""):
        counted.append(word)
        if word in _COUNTED and not following.lstrip("+-").isdigit():
            counted.append("1")
    return counted


def _amount(text: str) -> Decimal:
    try:
        return positive(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} {error}") from error


def demo(
    *,
    orders: Annotated[
        int, typer.Option(min=1, max=ORDERS_MAX, help="How many orders to generate and trade.")
    ] = 1_000,
    seed: Annotated[
        int, typer.Option(help="The same seed makes the same day, on any machine.")
    ] = 1,
    input: Annotated[  # noqa: A002 - the option's name
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Trade this CSV instead: time,account,side,quantity,price,symbol; an empty price "
            "asks the pricing service. Rows that make no sense are refused by line number, and the "
            "exit code is 5.",
        ),
    ] = None,
    kill: Annotated[
        list[int] | None,
        typer.Option(
            metavar="[N]",
            min=0,
            max=STRIKES_MAX,
            help="kill -9 the active accounts instance in mid-stream, N times (1).",
        ),
    ] = None,
    pause: Annotated[
        list[int] | None,
        typer.Option(
            metavar="[N]",
            min=0,
            max=STRIKES_MAX,
            help="SIGSTOP the active, N times (1), and wake it as a zombie when another took over.",
        ),
    ] = None,
    heartbeats_only: Annotated[
        bool,
        typer.Option(
            "--heartbeats-only",
            help="Detect failures by heartbeats alone, without the NATS system account.",
        ),
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; progress goes to stderr.")
    ] = False,
    log_dir: Annotated[
        Path | None,
        typer.Option(
            "--log-dir",
            "--keep",
            metavar="DIR",
            file_okay=False,
            help="Keep each process's log here.",
        ),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Play the orders' own times, this many times faster; 0: as fast as answers come.",
        ),
    ] = 0.0,
    in_flight: Annotated[
        int, typer.Option(min=1, max=4_096, help="How many orders are under way at once.")
    ] = 64,
    cash: Annotated[
        Decimal | None,
        typer.Option(
            parser=_amount,
            metavar="AMOUNT",
            help="What each account opens with (150,000; with --input: enough for all it buys).",
        ),
    ] = None,
    position_limit: Annotated[
        Decimal | None,
        typer.Option(
            parser=_amount,
            metavar="QUANTITY",
            help="The most an account may hold of a symbol, long or short (1,500; with --input: "
            "enough for all it trades).",
        ),
    ] = None,
    console: Annotated[
        bool,
        typer.Option(
            "--console",
            help="Serve the console, a page in the browser, and leave the system up until Ctrl-C.",
        ),
    ] = False,
    instances: Annotated[
        int,
        typer.Option(
            min=2,
            max=INSTANCES_MAX,
            help="How many instances serve accounts. Two: an active and a standby; more share the "
            "accounts, and stand by for each other.",
        ),
    ] = 2,
    grow: Annotated[
        bool,
        typer.Option(
            "--grow",
            help="In mid-stream one more instance joins and gets its share, and an account trades "
            "for the first time.",
        ),
    ] = False,
) -> None:
    """Trade a day of orders over real processes, break some, and prove that
    nothing is lost or doubled.

    Starts an embedded NATS, control, a gateway, three pricing instances and an
    active and a standby of accounts, each a process of its own; sends the
    orders through the gateway; then compares every account with a ledger kept
    from the orders alone, and every request id with the journal.

    Exit code 0 only when nothing was lost, nothing was doubled and every
    account agrees; 5 when rows were refused beside that; 1 otherwise. Ctrl-C
    ends all processes and leaves nothing behind.
    """
    from aegis_demo.command import run_demo  # it imports the SDK, for which --help need not wait

    options = DemoOptions(
        orders=orders,
        seed=seed,
        input=input,
        kills=sum(kill or ()),
        pauses=sum(pause or ()),
        heartbeats_only=heartbeats_only,
        json_output=json_output,
        log_dir=log_dir,
        speed=speed,
        in_flight=in_flight,
        cash=cash,
        position_limit=position_limit,
        console=console,
        instances=instances,
        grow=grow,
    )
    raise typer.Exit(run_demo(options))


def main(arguments: Sequence[str]) -> int:
    """Run `aegis-control demo` with `arguments` and return its exit code: command.py has them all."""
    app = typer.Typer(add_completion=False)
    # With a second one, typer keeps the command's own name in the usage line.
    app.callback()(lambda: None)
    app.command("demo", cls=DemoCommand)(demo)
    try:
        return int(
            app(args=["demo", *arguments], prog_name="aegis-control", standalone_mode=False) or 0
        )
    except typer.TyperException as error:
        hint = "see `aegis-control demo --help`"
        print(f"aegis-control demo: {error.format_message()}; {hint}", file=sys.stderr)
        return USAGE
