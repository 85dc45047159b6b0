"""`state`, `state diff` and `history`: what the log has of a resource, read from NATS itself."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final, TypeVar

import typer
from aegis_sdk.contract.names import encode_token

from aegis_control.application.operators.pasts import (
    DiffView,
    HistoryView,
    KeyChange,
    NotThere,
    Pasts,
    StateView,
)
from aegis_control.domain.operators.exports import Cursor
from aegis_control.domain.operators.past import Range, Step, TrimmedAway, Unread
from aegis_control.entrypoints.cli import render
from aegis_control.entrypoints.cli.errors import Exit
from aegis_control.entrypoints.cli.options import Cli, ServiceOption, command, moment
from aegis_control.infrastructure.admin_client import AdminError
from aegis_control.infrastructure.nats_pasts import NatsPasts

View = TypeVar("View")

SHOWN: Final = 100


def mount(app: typer.Typer) -> None:
    command(app, "state")(state)
    command(app, "history")(history)


# --- state -------------------------------------------------------------------------------------------
async def state(
    cli: Cli,
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="RESOURCE | diff REQUEST_ID", help="Whose state, or what changed it."
        ),
    ],
    *,
    service: ServiceOption = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="POSITION|WHEN", help="812, LOG@812; or 10m, 2h, 2026-01-31T09:00Z."
        ),
    ] = None,
) -> int:
    """A resource's state as the log has it, now or earlier; `state diff REQUEST_ID`: what one request changed.

    It needs neither control nor the instances. Exit code 6 if the log has entries of it that this version can't read.
    """
    if len(what) == 1:
        return await _state(cli, what[0], service, at)
    if len(what) == 2 and what[0] == "diff":
        return await _diff(cli, what[1], service)
    raise AdminError("usage", "give one RESOURCE, or `diff` and a REQUEST_ID")


async def _state(cli: Cli, resource: str, service: str | None, at: str | None) -> int:
    cursor, at_s = None, None
    if at is not None:
        try:
            cursor = Cursor.parse(at)
        except ValueError:
            at_s = moment("--at", at)

    async def ask(pasts: Pasts, name: str) -> StateView:
        if cursor is None:
            return await pasts.state(name, resource, at_s=at_s)
        position = cursor.place.position
        return await pasts.state(name, resource, position=position, log=cursor.log)

    view = await _of_resource(cli, resource, service, ask)
    if cli.as_json:
        render.show_json(view)
    else:
        _show_state(view)
    return Exit.DEGRADED if view.missing else Exit.DONE


def _show_state(view: StateView) -> None:
    when = "" if view.time is None else f" ({render.clock(view.time)})"
    render.show_pairs(
        [
            ("resource", view.resource),
            ("service", view.service),
            ("position", f"{view.position}{when}"),
            ("outcomes", str(view.outcomes)),
            *([("not known", ", ".join(view.unknown))] if view.unknown else []),
            *_missing(view.missing),
        ]
    )
    for each in view.unread:
        render.show_line(f"entry {each.position} can't be read: {each.why}")
    for line in json.dumps(view.state, indent=2, ensure_ascii=False).splitlines():
        render.show_line(line)


def _missing(missing: Sequence[Range]) -> list[tuple[str, str]]:
    if not missing:
        return []
    numbers = ", ".join(f"{each.first} to {each.last}" for each in missing)
    return [("uncertain", f"outcomes {numbers} could not be read, and are not in this")]


async def _diff(cli: Cli, request_id: str, service: str | None) -> int:
    async with cli.admin() as admin:
        view = await _told(Pasts(NatsPasts(admin)).diff(request_id, service=service))
    if cli.as_json:
        render.show_json(view)
    else:
        _show_diff(view)
    return Exit.DEGRADED if view.missing else Exit.DONE


def _show_diff(view: DiffView) -> None:
    render.show_pairs(
        [
            ("request", view.request_id),
            ("method", f"{view.service}.{view.method}"),
            ("resource", view.resource or "-"),
            ("outcome", f"{view.outcome}, entry {view.position} ({render.clock(view.time)})"),
            *_missing(view.missing),
        ]
    )
    if view.changes:
        render.show_table(("KEY", "BEFORE", "AFTER"), list(map(_change_row, view.changes)))
    else:
        render.show_line("it changed nothing")


def _change_row(change: KeyChange) -> tuple[str, str, str]:
    before = "(not known: removed from the log)" if change.had is None else "-"
    return (
        change.key,
        _json(change.before) if change.had else before,
        _json(change.after) if change.has else "-",
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- history -----------------------------------------------------------------------------------------
async def history(
    cli: Cli,
    resource: Annotated[str, typer.Argument(metavar="RESOURCE", help="The resource's id.")],
    *,
    service: ServiceOption = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="WHEN", help="10m, 2h, 1d, or a time as 2026-01-31T09:00Z."
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest N.")] = SHOWN,
) -> None:
    """What happened to a resource, the oldest first: each outcome, and the keys that it changed."""
    since_s = 0.0 if since is None else moment("--since", since)

    async def ask(pasts: Pasts, name: str) -> HistoryView:
        return await pasts.history(name, resource, since_s=since_s)

    view = await _of_resource(cli, resource, service, ask)
    newest = HistoryView(
        view.service, view.resource, view.removed, view.outcomes[-limit:], view.unread[-limit:]
    )
    if cli.as_json:
        render.show_json(newest)
    else:
        _show_history(newest, left_out=len(view.outcomes) - len(newest.outcomes))


def _show_history(view: HistoryView, *, left_out: int) -> None:
    if view.removed:
        render.show_line(
            f"outcomes 1 to {view.removed} are not in the log any more; its checkpoint has their effect"
        )
    if left_out:
        render.show_line(f"{left_out} earlier ones are left out: see --limit")
    found: list[Step | Unread] = [*view.outcomes, *view.unread]
    found.sort(key=lambda each: each.position)
    columns = ("TIME", "POSITION", "REQUEST", "METHOD", "OUTCOME", "KEYS")
    render.show_table(columns, list(map(_row, found)))


def _row(each: Step | Unread) -> tuple[str, ...]:
    when, position = render.clock(each.time), str(each.position)
    if isinstance(each, Unread):
        return (when, position, ", ".join(each.request_ids), "?", "unreadable", each.why)
    keys = [*each.set, *(f"{key} (deleted)" for key in each.deleted)]
    keys += [f"timer {name}" for name in each.timers_set]
    keys += [f"timer {name} (dropped)" for name in each.timers_dropped]
    changed = ", ".join(keys) or "-"
    return (when, position, each.request_id, each.method, each.outcome.value, changed)


# --- both --------------------------------------------------------------------------------------------
async def _of_resource(
    cli: Cli,
    resource: str,
    service: str | None,
    ask: Callable[[Pasts, str], Awaitable[View]],
) -> View:
    """Of the one service that has the resource. Raises: AdminError."""
    encode_token(resource)
    async with cli.admin() as admin:
        logs = NatsPasts(admin)
        services = await logs.services_of(resource)
        if service is not None:
            services = [name for name in services if name == service]
        if not services:
            of = f" of {service}" if service else ""
            raise AdminError("not_found", f"no log has a resource {resource!r}{of}")
        if len(services) > 1:
            names = ", ".join(services)
            raise AdminError("usage", f"{resource!r} is of {names}", "say which with --service")
        return await _told(ask(Pasts(logs), services[0]))


async def _told(asking: Awaitable[View]) -> View:
    """Raises: AdminError, for what the log does not have or this version can't read."""
    try:
        return await asking
    except NotThere as error:
        raise AdminError("not_found", str(error)) from error
    except TrimmedAway as error:
        raise AdminError(
            "not_found",
            "what was there is removed from the log, after its retention",
            f"the log goes back to position {error.first}",
        ) from error
    except ValueError as error:
        raise AdminError(
            "unreadable",
            f"its checkpoint can't be read by this version, and not all outcomes are in the log: {error}",
        ) from error
