"""`dlq`: requests that failed for good. Looking reads NATS itself; changes are control's."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from aegis_sdk.contract.control import DeadLetterFate, DeadLetterMoved, DeadLetterOrder
from aegis_sdk.contract.ids import check_request_id, redriven_id
from aegis_sdk.contract.trace import trace_id

from aegis_control.entrypoints.cli import render
from aegis_control.entrypoints.cli.errors import Exit, exit_code, report
from aegis_control.entrypoints.cli.options import (
    As,
    Cli,
    DryRun,
    Reason,
    ServiceOption,
    Yes,
    command,
    must_ask,
)
from aegis_control.infrastructure.admin_client import AdminClient, AdminError
from aegis_control.infrastructure.nats_archive import KeptLetter

_SAMPLE: Final = 20
"""So many are shown to a person who is asked about more."""
_WORDS: Final = {
    DeadLetterFate.REDRIVEN: ("sent again as", "would be sent again as"),
    DeadLetterFate.ALREADY_REDRIVEN: ("was redriven before as", "was redriven before as"),
    DeadLetterFate.DROPPED: ("dropped", "would be dropped"),
}

RequestId = Annotated[str, typer.Argument(metavar="REQUEST_ID", help="As `dlq list` shows it.")]
RequestIds = Annotated[
    list[str] | None, typer.Argument(metavar="[REQUEST_ID]...", help="As `dlq list` shows them.")
]
All = Annotated[bool, typer.Option("--all", help="Every dead letter (of --service, if given).")]

Send = Callable[[AdminClient, DeadLetterOrder], Awaitable[DeadLetterMoved]]


def mount(app: typer.Typer) -> None:
    dlq = typer.Typer(help="Requests that failed for good.", no_args_is_help=True)
    command(dlq, "list")(list_letters)
    command(dlq, "show")(show)
    command(dlq, "redrive")(redrive)
    command(dlq, "drop")(drop)
    app.add_typer(dlq, name="dlq")


async def list_letters(cli: Cli, service: ServiceOption = None) -> None:
    """All dead letters, the oldest first, with why they are here."""
    async with cli.admin() as admin:
        letters = _of(await admin.archive.dead_letters(), service)
    if cli.as_json:
        render.show_json([_plain(kept) for kept in letters])
        return
    rows = [_row(kept) for kept in letters]
    if rows:
        render.show_table(("REQUEST", "METHOD", "RESOURCE", "SINCE", "WHY"), rows)
    render.show_line(f"dead letters: {len(rows)}")


async def show(cli: Cli, request_id: RequestId) -> None:
    """One dead letter in full, with its payload."""
    check_request_id(request_id)
    async with cli.admin() as admin:
        kept = await admin.archive.dead_letter(request_id)
    if kept is None:
        raise AdminError(
            "not_found", f"no dead letter of request {request_id}", "see `ipc-cli dlq list`"
        )
    if cli.as_json:
        render.show_json(_plain(kept))
    else:
        _show_letter(kept)


async def redrive(
    cli: Cli,
    request_ids: RequestIds = None,
    *,
    every: All = False,
    service: ServiceOption = None,
    reason: Reason = "",
    as_: As = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> int:
    """Send the request again, as a new one with an id derived from its own: twice is once."""
    terms = Terms(reason, cli.by(as_), dry_run, yes)
    async with cli.admin() as admin:
        wanted = await _wanted(admin, request_ids or [], service, every=every)
        return await _carry_out(cli, admin, AdminClient.redrive, wanted, terms)


async def drop(
    cli: Cli,
    request_ids: RequestIds = None,
    *,
    every: All = False,
    service: ServiceOption = None,
    reason: Reason = "",
    as_: As = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> int:
    """Forget dead letters; their requests keep the outcome that they have."""
    terms = Terms(reason, cli.by(as_), dry_run, yes)
    async with cli.admin() as admin:
        wanted = await _wanted(admin, request_ids or [], service, every=every)
        return await _carry_out(cli, admin, AdminClient.drop, wanted, terms)


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for every letter of one command."""

    reason: str
    by: str
    dry_run: bool
    yes: bool

    def order(self, request_id: str, *, dry_run: bool) -> DeadLetterOrder:
        return DeadLetterOrder(
            request_id=request_id, reason=self.reason, by=self.by, dry_run=dry_run
        )


async def _wanted(
    admin: AdminClient, request_ids: Sequence[str], service: str | None, *, every: bool
) -> list[str]:
    """Raises: AdminError when it isn't said which."""
    if every == bool(request_ids):
        raise AdminError("usage", "say which requests, or --all", "see `ipc-cli dlq list`")
    if not every:
        return [check_request_id(request_id) for request_id in dict.fromkeys(request_ids)]
    letters = _of(await admin.archive.dead_letters(), service)
    return [kept.letter.request.request_id for kept in letters]


async def _carry_out(
    cli: Cli, admin: AdminClient, send: Send, request_ids: Sequence[str], terms: Terms
) -> int:
    """One after the other; one that is refused doesn't keep the others from their fate."""
    if request_ids and not terms.dry_run and must_ask(cli, yes=terms.yes):
        await _each(cli, admin, send, [terms.order(i, dry_run=True) for i in request_ids[:_SAMPLE]])
        if len(request_ids) > _SAMPLE:
            render.show_line(f"… and {len(request_ids) - _SAMPLE} more")
        if not typer.confirm("Do it?"):
            print("nothing was changed")
            return Exit.FAILED
    orders = [terms.order(request_id, dry_run=terms.dry_run) for request_id in request_ids]
    done, code = await _each(cli, admin, send, orders)
    if cli.as_json:
        render.show_json(done)
    elif not request_ids:
        render.show_line("there are no dead letters")
    return code


async def _each(
    cli: Cli, admin: AdminClient, send: Send, orders: Sequence[DeadLetterOrder]
) -> tuple[list[DeadLetterMoved], int]:
    """What was done, and the exit code: of the first that did not work, if any."""
    done: list[DeadLetterMoved] = []
    code: int = Exit.DONE
    for order in orders:
        try:
            moved = await send(admin, order)
        except AdminError as error:
            if error.code not in ("not_found", "refused"):
                raise
            report(error, as_json=cli.as_json)
            code = code or exit_code(error.code)
            continue
        done.append(moved)
        if not cli.as_json:
            render.show_line(_sentence(moved))
    return done, code


def _sentence(moved: DeadLetterMoved) -> str:
    did, would = _WORDS[moved.fate]
    words = f"{moved.request_id} {would if moved.dry_run else did} {moved.new_request_id}".rstrip()
    return f"dry run: {words}" if moved.dry_run else words


def _of(letters: Sequence[KeptLetter], service: str | None) -> list[KeptLetter]:
    return [kept for kept in letters if service in (None, kept.letter.request.service)]


def _row(kept: KeptLetter) -> tuple[str, ...]:
    letter, request = kept.letter, kept.letter.request
    return (
        request.request_id,
        f"{request.service}.{request.method}",
        request.resource or "-",
        render.moment(kept.at_s),
        f"{letter.error_code}: {letter.error}",
    )


def _show_letter(kept: KeptLetter) -> None:
    letter, request = kept.letter, kept.letter.request
    render.show_pairs(
        [
            ("request", request.request_id),
            ("method", f"{request.service}.{request.method}"),
            ("route", "group" if request.resource is None else f"resource {request.resource}"),
            ("since", render.clock(kept.at_s)),
            ("why", f"{letter.error_code}: {letter.error}"),
            ("attempt", str(request.attempt)),
            ("deadline", render.clock(request.deadline_s) if request.deadline_s else "-"),
            ("chain", " > ".join(request.chain) or "-"),
            ("trace", trace_id(request.traceparent) or "-"),
            ("redriven as", f"would be {redriven_id(request.request_id)}"),
            ("payload", _text(request.payload)),
        ]
    )


def _plain(kept: KeptLetter) -> dict[str, Any]:
    letter, request = kept.letter, kept.letter.request
    return {
        "request_id": request.request_id,
        "service": request.service,
        "method": request.method,
        "resource": request.resource,
        "since": kept.at_s,
        "error_code": letter.error_code,
        "error": letter.error,
        "attempt": request.attempt,
        "deadline": request.deadline_s,
        "chain": list(request.chain),
        "trace_id": trace_id(request.traceparent),
        "payload": _json(request.payload),
    }


def _json(payload: bytes) -> Any:
    """As it was sent; what is no JSON (a newer client's, say) as text."""
    try:
        return json.loads(payload)
    except ValueError:
        return _text(payload)


def _text(payload: bytes) -> str:
    return payload.decode("utf-8", "backslashreplace")
