"""An export in a SQLite file: rows and the place that they go up to, changed together.

Invariant: the file has each row up to its place once, and none behind it, whenever the process is killed. Each batch is one
transaction, which also moves the place, and begins with a look whether the place is still where this export put it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aegis_control.domain.operators.exports import START, Gap, Place, Row

_FORM: Final = 1
"""Of the tables; in `user_version`."""
_TABLES: Final = f"""
PRAGMA user_version = {_FORM};
CREATE TABLE export (service TEXT NOT NULL, log TEXT NOT NULL, position INTEGER NOT NULL, idx INTEGER NOT NULL);
CREATE TABLE outcomes (
    position INTEGER NOT NULL, idx INTEGER NOT NULL, time REAL NOT NULL, request_id TEXT NOT NULL, resource TEXT, method TEXT,
    outcome TEXT NOT NULL, number INTEGER NOT NULL, epoch INTEGER NOT NULL, instance_id TEXT NOT NULL, trace TEXT NOT NULL,
    payload TEXT, reply TEXT, error TEXT, change TEXT, unread TEXT, entry TEXT, PRIMARY KEY (position, idx)
) WITHOUT ROWID;
CREATE INDEX outcomes_by_resource ON outcomes (resource, number);
CREATE INDEX outcomes_by_request ON outcomes (request_id);
CREATE TABLE gaps (resource TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL);
"""
_INSERT: Final = f"INSERT INTO outcomes VALUES ({', '.join('?' * 17)})"


class NotOurs(Exception):
    """The file can't be gone on with; the message says why."""


class ExportFile:
    """Made where there is none. Raises: NotOurs, OSError-like sqlite3.Error."""

    def __init__(self, path: Path, service: str, log: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10.0)
        try:
            self._open(service, log)
        except BaseException:
            self._db.close()
            raise

    def _open(self, service: str, log: str) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:
            [form] = self._db.execute("PRAGMA user_version").fetchone()
            if form == 0 and not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _TABLES.split(";"):
                    self._db.execute(statement)
                place = (START.position, START.index)
                self._db.execute("INSERT INTO export VALUES (?, ?, ?, ?)", (service, log, *place))
            elif form != _FORM:
                raise NotOurs("it is no export of this version")
            known, known_log, position, index = self._db.execute("SELECT * FROM export").fetchone()
        if known != service:
            raise NotOurs(f"it is an export of {known!r}")
        if known_log != log:
            raise NotOurs(
                f"the log of {service} is another one since: it began again, or lost something, after"
                f" position {position}. What is in the file may not be in the log"
            )
        self.place = Place(position, index)

    @property
    def is_new(self) -> bool:
        return self.place == START

    def last_id(self) -> str:
        """The request of the last row; empty without one."""
        asked = "SELECT request_id FROM outcomes WHERE position = ? AND idx = ?"
        found = self._db.execute(asked, (self.place.position, self.place.index)).fetchone()
        return "" if found is None else str(found[0])

    def numbers(self) -> dict[str, int]:
        """The last of each resource."""
        asked = "SELECT resource, max(number) FROM outcomes WHERE resource IS NOT NULL GROUP BY resource"
        return dict(self._db.execute(asked).fetchall())

    def add(self, batch: Sequence[Row], gaps: Sequence[Gap]) -> None:
        """All or none of it. Raises: NotOurs, when another export wrote to the file meanwhile; sqlite3.Error."""
        place = batch[-1].place
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:
            moved = self._db.execute(
                "UPDATE export SET position = ?, idx = ? WHERE position = ? AND idx = ?",
                (place.position, place.index, self.place.position, self.place.index),
            )
            if moved.rowcount != 1:
                raise NotOurs("another export writes to it")
            self._db.executemany(_INSERT, map(_values, batch))
            rows = [(gap.resource, gap.first, gap.last) for gap in gaps]
            self._db.executemany("INSERT INTO gaps VALUES (?, ?, ?)", rows)
        self.place = place

    def close(self) -> None:
        self._db.close()


def _values(row: Row) -> tuple[object, ...]:
    return (
        *(row.place.position, row.place.index, row.time, row.request_id, row.resource, row.method),
        *(row.outcome, row.number, row.epoch, row.instance_id, row.trace),
        *(row.payload, row.reply, row.error, row.change, row.unread, row.entry),
    )
