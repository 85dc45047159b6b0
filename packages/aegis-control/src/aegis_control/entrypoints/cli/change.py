"""A change that control makes: what it would do is shown, the person at the terminal is asked, and it is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import typer

from aegis_control.entrypoints.cli import render
from aegis_control.entrypoints.cli.errors import Exit
from aegis_control.entrypoints.cli.options import Cli, must_ask
from aegis_control.infrastructure.admin_client import AdminClient

Order = TypeVar("Order", bound=Any)
Result = TypeVar("Result", bound=Any)


async def carry_out(
    cli: Cli,
    order: Order,
    send: Callable[[AdminClient, Order], Awaitable[Result]],
    show: Callable[[Result], None],
    *,
    yes: bool,
    ask: str = "Do it?",
) -> Exit:
    """`order` and its result are models that say whether they are a `dry_run`."""
    dry = {"dry_run": True}
    async with cli.admin() as admin:
        if not order.dry_run and must_ask(cli, yes=yes):
            plan = await send(admin, order.model_copy(update=dry))
            show(plan.model_copy(update=dry))
            if not typer.confirm(ask):
                print("nothing was changed")
                return Exit.FAILED
        result = await send(admin, order)
    if cli.as_json:
        render.show_json(result)
    else:
        show(result)
    return Exit.DONE
