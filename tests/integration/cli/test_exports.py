"""`ipc-cli export` with a real control, real instances and their log: each outcome once, wherever an export was cut off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
from aegis_control.infrastructure import nats_pasts
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.entries import TURN
from aegis_sdk.contract.turns.subjects import LogSubjects

from tests.integration.cli.support import start_cli
from tests.integration.cli.system import DOUBLE, System

MANY = 600


def log_of(system: System) -> LogSubjects:
    return LogSubjects(Subjects(system.prefix), "totals")


async def lines(system: System, *more: str, service: str = "totals", code: int = 0) -> list[Any]:
    result = await system.cli("export", service, "-o", "jsonl", *more)
    assert result.code == code, result.err
    return [json.loads(line) for line in result.out.splitlines()]


async def add_many(system: System, count: int) -> None:
    await asyncio.gather(*(system.add(1, f"T-{1 + n % 2}") for n in range(count)))


def kept(file: Path) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(file, timeout=10.0)) as db:
        asked = "SELECT position, idx, request_id, resource, outcome, reply FROM outcomes"
        return db.execute(f"{asked} ORDER BY position, idx").fetchall()


def as_kept(line: Any) -> tuple[Any, ...]:
    names = ("position", "index", "request_id", "resource", "outcome")
    return (*(line[name] for name in names), json.dumps(line["reply"], separators=(",", ":")))


async def test_each_outcome_is_a_line_in_the_logs_order_and_any_line_can_be_gone_on_from(
    system: System,
) -> None:
    """G2: also from within an entry of several outcomes, where an export was cut off."""
    await add_many(system, 40)
    await system.caller.request(DOUBLE, 4)
    found = await lines(system)
    assert len(found) == 40
    assert [line["number"] for line in found if line["resource"] == "T-1"] == list(range(1, 21))
    assert len({line["position"] for line in found}) < 40  # entries of several
    assert found[-1]["payload"] == 1
    assert found[-1]["change"]["set"] == {"total": 20}
    for n in (0, 1, 17, 39):
        assert await lines(system, "--after", found[n]["cursor"]) == found[n + 1 :]
    assert await lines(system, "--since", "1h") == found
    of_an_entry = found[-1]["cursor"].rpartition(".")[0]  # a position, as replies have it
    assert await lines(system, "--after", of_an_entry) == []
    now = await system.cli("state", "T-1", "--at", of_an_entry, "-o", "jsonl")
    assert now.json["state"] == {"total": 20}
    assert now.out.count("\n") == 1
    assert (await system.cli("state", "T-1", "--at", f"other{of_an_entry}")).code == 3
    assert await lines(system, "--since", "2100-01-01") == []
    [of_the_group] = await lines(system, service="doubles")
    assert (of_the_group["resource"], of_the_group["reply"]) == (None, 8)


async def test_a_log_is_read_page_by_page(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when an end of a page is the end of the log."""
    for _ in range(6):
        await system.add(1)
    whole = await lines(system)
    for page in (1, 3, 4, 6):
        monkeypatch.setattr(nats_pasts, "_PAGE", page)
        assert await lines(system) == whole
    assert len(whole) == 6


@contextlib.asynccontextmanager
async def between_batches(file: Path, beyond: int) -> AsyncIterator[None]:
    """The file is locked when it has more than so many outcomes: whoever exports waits for the next batch's turn."""
    with contextlib.closing(sqlite3.connect(file, timeout=0.0, isolation_level=None)) as db:
        while True:
            with contextlib.suppress(sqlite3.OperationalError):
                db.execute("BEGIN IMMEDIATE")
                if len(kept(file)) > beyond:
                    break
                db.execute("ROLLBACK")
            await asyncio.sleep(0)
        yield
        db.execute("ROLLBACK")


async def test_an_export_to_sqlite_has_each_outcome_once_however_often_it_is_killed(
    system: System, tmp_path: Path
) -> None:
    """Its batches are transactions that move its place with them: kill -9 in the middle, again and again."""
    file = tmp_path / "totals.db"
    await system.add(1)
    assert (await system.cli("export", "totals", "--sqlite", str(file))).code == 0
    await add_many(system, MANY - 1)
    arguments = ("export", "totals", "--sqlite", str(file), "--batch", "2")
    where = ("--url", system.url, "--prefix", system.prefix)
    had = 1
    for _ in range(3):
        process = await start_cli(*arguments, *where)
        async with between_batches(file, had + 20):
            process.kill()
            assert await process.wait() != 0
        had = len(kept(file))
        assert had < MANY, "it was never killed in the middle"
    assert had > 0
    last = await system.cli("export", "totals", "--sqlite", str(file))
    assert (last.code, last.err) == (0, f"{MANY - had} outcomes\n")
    assert kept(file) == [as_kept(line) for line in await lines(system)]
    await system.add(1)
    again = await system.cli("export", "totals", "--sqlite", str(file))
    assert (again.code, again.err) == (0, "1 outcomes\n")
    assert len(kept(file)) == MANY + 1


async def test_outcomes_that_were_removed_before_they_were_exported_are_told(
    system: System, tmp_path: Path
) -> None:
    """Exit code 6, and the file says which."""
    file, log = tmp_path / "totals.db", log_of(system)
    await system.add(1)
    assert (await system.cli("export", "totals", "--sqlite", str(file))).code == 0
    for _ in range(3):
        await system.add(1)
    found = await lines(system)
    operator = await nats.connect(system.url)
    for subject in log.outcomes:
        stream = operator.jetstream()
        await stream.purge_stream(log.stream, seq=found[3]["position"], subject=subject)
    late = await system.cli("export", "totals", "--sqlite", str(file))
    assert late.code == 6
    assert "T-1 2 to 3" in late.err
    with contextlib.closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT * FROM gaps").fetchall() == [("T-1", 2, 3)]
    assert (
        len(await lines(system)) == 1
    )  # the first export of what is left is told so, and is whole
    await operator.close()


async def test_what_can_not_be_read_is_exported_as_it_is(system: System) -> None:
    operator, log = await nats.connect(system.url), log_of(system)
    await system.stop_control()
    data = b"2 writer=x\nwhatever\n"
    await operator.jetstream().publish(log.turn("x", 7), data, headers={TURN: "K.8,K.9"})
    found = await lines(system)
    assert [(line["request_id"], line["outcome"]) for line in found] == [
        ("K.8", "unreadable"),
        ("K.9", "unreadable"),
    ]
    assert "version" in found[0]["unread"]
    await operator.close()


async def test_what_was_exported_of_another_log_is_not_gone_on_with(
    system: System, tmp_path: Path
) -> None:
    """What is in the file may not be in the log any more: that is told, and nothing is mixed."""
    file, log = tmp_path / "totals.db", log_of(system)
    await system.add(1)
    await system.cli("export", "totals", "--sqlite", str(file))
    [line] = await lines(system)
    await system.stop_control()
    operator = await nats.connect(system.url)
    info = await operator.jetstream().stream_info(log.stream)
    config = info.config
    config.metadata = {"aegis.log": "2-other"}
    await operator.jetstream().update_stream(config)
    for arguments in (["--sqlite", str(file)], ["--after", line["cursor"]]):
        refused = await system.cli("export", "totals", *arguments)
        assert (refused.code, refused.out) == (5, "")
        assert "another" in refused.err
    await operator.close()


async def test_a_file_that_is_something_else_is_left_alone(system: System, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE mine (a)")
    text = tmp_path / "notes.txt"
    text.write_text("no database" * 100)
    for file, code in ((other, 5), (text, 1), (tmp_path / "no" / "folder.db", 1)):
        result = await system.cli("export", "totals", "--sqlite", str(file))
        assert (result.code, result.out) == (code, ""), result.err
    await system.cli("export", "doubles", "--sqlite", str(tmp_path / "doubles.db"))
    mixed = await system.cli("export", "totals", "--sqlite", str(tmp_path / "doubles.db"))
    assert mixed.code == 5
    assert "export of 'doubles'" in mixed.err
