"""Which timers resources have, folded from checkpoints and from the outcomes behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aegis_sdk.contract.envelope import Change
from aegis_sdk.contract.ids import parent_of
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import Record
from aegis_sdk.contract.turns.timers import Timer
from aegis_sdk.domain.turns.timers import Timers

from aegis_control.domain.operators.past import LogEntry, Unread


@dataclass(frozen=True, slots=True)
class TimerLine:
    """One timer. `due` is Unix time; `set_by`, the request whose handler set it, or that was submitted for later."""

    resource: str
    name: str
    method: str
    due: float
    set_by: str


class Schedule:
    """Of some resources. `add` takes the entries behind `begins_after`, in their order."""

    def __init__(self, saved: Mapping[str, Checkpoint]) -> None:
        """Raises: ValueError, for timers that can't be read."""
        self.begins_after = min((each.read for each in saved.values()), default=0)
        self.unread: list[Unread] = []
        self._numbers = {resource: each.number for resource, each in saved.items()}
        self._timers = {
            resource: Timers(map(Timer.read, each.timers)) for resource, each in saved.items()
        }

    def add(self, entry: LogEntry) -> None:
        if entry.unread:
            ids = tuple(entry.request_ids)
            self.unread.append(Unread(entry.seq, entry.at_s, ids, entry.unread))
        for record in entry.records:
            if record.resource is not None:
                try:
                    self._add(record.resource, record)
                except ValueError as error:
                    why = f"its change: {error}"
                    ids = (record.request_id,)
                    self.unread.append(Unread(entry.seq, entry.at_s, ids, why))

    def _add(self, resource: str, record: Record) -> None:
        timers = self._timers.setdefault(resource, Timers())
        timers.ended(record.request_id)
        number = record.outcome.number
        if number > self._numbers.get(resource, 0):  # else its effect is in the checkpoint
            self._numbers[resource] = number
            timers.apply(Change.decode(record.outcome.change))

    def lines(self, resource: str | None = None) -> Sequence[TimerLine]:
        """By when they are due; of all resources, or of one."""
        chosen: Iterable[str] = self._timers if resource is None else (resource,)
        lines = [
            _line(name, timer)
            for name in chosen
            if name in self._timers
            for timer in self._timers[name].by_name.values()
        ]
        return sorted(lines, key=lambda line: (line.due, line.resource, line.name))


def _line(resource: str, timer: Timer) -> TimerLine:
    method = str(timer.content["request"].get("to", "")).partition(".")[2]
    return TimerLine(resource, timer.name, method, timer.due_s, parent_of(timer.id) or timer.id)
