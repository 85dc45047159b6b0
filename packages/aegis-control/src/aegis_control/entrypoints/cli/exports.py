"""`export`: a service's outcomes for other programs, in order, read from NATS itself."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Final

import typer
from aegis_sdk.contract.names import check_service

from aegis_control.domain.operators.exports import START, Cursor, Gap, Numbers, Place, Row, rows
from aegis_control.entrypoints.cli.errors import Exit
from aegis_control.entrypoints.cli.options import Cli, command, moment
from aegis_control.infrastructure.admin_client import AdminError
from aegis_control.infrastructure.export_file import ExportFile, NotOurs
from aegis_control.infrastructure.nats_pasts import NatsPasts

BATCH: Final = 1_000
_SHOWN: Final = 5

Write = Callable[[Sequence[Row], Sequence[Gap]], None]


def mount(app: typer.Typer) -> None:
    command(app, "export")(export)


async def export(
    cli: Cli,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="Its name.")],
    *,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="WHEN", help="10m, 2h, 1d, or a time as 2026-01-31T09:00Z."
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            "--after", metavar="CURSOR", help="Go on behind it: `cursor` of the last line."
        ),
    ] = None,
    sqlite: Annotated[
        Path | None,
        typer.Option("--sqlite", metavar="FILE", help="Into it; it goes on where it stopped."),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", min=1, help="Outcomes in one transaction.")
    ] = BATCH,
) -> int:
    """Every outcome that the log has, in its order, up to its end: a line of JSON each, or a row in a SQLite file.

    Exit code 6 if outcomes were removed from the log before they were exported; they are named.
    """
    check_service(service)
    if sum(given is not None for given in (since, after, sqlite)) > 1:
        raise AdminError("usage", "--since, --after and --sqlite each say where to begin: give one")
    cursor = None if after is None else _cursor(after)
    since_s = None if since is None else moment("--since", since)
    async with cli.admin() as admin:
        logs = NatsPasts(admin)
        log = await logs.identity(service)
        if not log:
            raise AdminError("not_found", f"there is no log of a service {service!r}")
        if sqlite is not None:
            return await _to_file(logs, service, log, sqlite, batch)
        place, numbers = START, Numbers({}, is_first=since is None and after is None)
        if cursor is not None:
            place = _place(cursor, service, log)
        if since_s is not None:
            place = Place(await logs.last_before(service, since_s))
        run = _Export(logs, service, batch, numbers)
        return await run.to(lambda found, _: _print(found, log), after=place)


def _cursor(text: str) -> Cursor:
    try:
        return Cursor.parse(text)
    except ValueError as error:
        raise AdminError(
            "usage", f"--after: {error}", "take `cursor` of an exported line"
        ) from error


def _place(cursor: Cursor, service: str, log: str) -> Place:
    """Raises: AdminError, when it is of another log."""
    if cursor.log not in ("", log):
        raise AdminError(
            "refused",
            f"--after {cursor} is of another log of {service}, which began again or lost something since",
            "export all of it anew; what was exported before may not be in it",
        )
    return cursor.place


def _print(found: Sequence[Row], log: str) -> None:
    for row in found:
        sys.stdout.write(f"{row.line(log)}\n")
    sys.stdout.flush()


async def _to_file(logs: NatsPasts, service: str, log: str, path: Path, batch: int) -> int:
    try:
        file = ExportFile(path, service, log)
        try:
            await _check_place(logs, service, file)
            numbers = Numbers(file.numbers(), is_first=True)
            return await _Export(logs, service, batch, numbers).to(file.add, after=file.place)
        finally:
            file.close()
    except NotOurs as error:
        raise AdminError("refused", f"{path}: {error}", "export to another file") from error
    except sqlite3.Error as error:
        raise AdminError("failed", f"{path}: {error}") from error


async def _check_place(logs: NatsPasts, service: str, file: ExportFile) -> None:
    """Raises: NotOurs, when the log is an older copy of what was exported: its positions mean something else from there on."""
    extent = await logs.extent(service)
    position, index = file.place.position, file.place.index
    if position > extent.last:
        raise NotOurs(
            f"it goes to {position}, and the log of {service} to {extent.last}: an older copy"
        )
    async with aclosing(logs.outcomes(service, after=max(0, position - 1))) as entries:
        async for entry in entries:
            found = [row.request_id for row in rows(entry)]
            if entry.seq == position and found[index : index + 1] != [file.last_id()]:
                raise NotOurs(
                    f"the log of {service} has another entry at {position}: an older copy went on"
                )
            return


class _Export:
    """One run."""

    def __init__(self, logs: NatsPasts, service: str, batch: int, numbers: Numbers) -> None:
        self._logs = logs
        self._service = service
        self._batch = batch
        self._numbers = numbers
        self._written = 0
        self._gaps: list[Gap] = []

    async def to(self, write: Write, *, after: Place) -> int:
        is_new = after == START
        found: list[Row] = []
        async with aclosing(self._rows(after)) as reading:
            async for row in reading:
                found.append(row)
                if len(found) >= self._batch:
                    self._take(found, write)
                    found = []
        if found:
            self._take(found, write)
        return self._say(is_new)

    async def _rows(self, after: Place) -> AsyncGenerator[Row, None]:
        """An entry that was cut off is read again."""
        position = max(0, after.position - 1)
        async with aclosing(self._logs.outcomes(self._service, after=position)) as entries:
            async for entry in entries:
                for row in rows(entry, after=after):
                    yield row

    def _take(self, found: list[Row], write: Write) -> None:
        gaps = [gap for row in found if (gap := self._numbers.gap(row)) is not None]
        write(found, gaps)
        self._written += len(found)
        self._gaps += gaps

    def _say(self, is_new: bool) -> int:
        print(f"{self._written} outcomes", file=sys.stderr)
        if not self._gaps:
            return Exit.DONE
        named = ", ".join(
            f"{gap.resource} {gap.first} to {gap.last}" for gap in self._gaps[:_SHOWN]
        )
        more = f" and of {len(self._gaps) - _SHOWN} more" if len(self._gaps) > _SHOWN else ""
        count = sum(gap.last - gap.first + 1 for gap in self._gaps)
        print(
            f"{count} outcomes are not in the log any more, or can't be read: {named}{more}",
            file=sys.stderr,
        )
        return Exit.DONE if is_new and all(gap.first == 1 for gap in self._gaps) else Exit.DEGRADED
