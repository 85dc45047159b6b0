"""Control's answers as tables for people, or as JSON for programs.

A table at a terminal keeps to its width; in a pipe each row is one line, nothing is cut, and there
is no colour. Texts from outside (resource ids, reasons) are shown with control characters escaped.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from aegis_sdk.contract.control import (
    InstanceState,
    InstanceView,
    LeaseState,
    Moved,
    RouteView,
    ServiceView,
)
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH: Final = 10_000
"""Columns in a pipe: as wide as their content."""

_COLOURS: Final = {
    InstanceState.LIVE: "green",
    InstanceState.DRAINING: "cyan",
    InstanceState.STALLED: "yellow",
    InstanceState.LOST: "red",
    InstanceState.EVICTED: "magenta",
    LeaseState.HELD: "green",
    LeaseState.WAITING: "yellow",
    LeaseState.VACANT: "red",
}

Cell = str | Text


def show_json(value: BaseModel | Sequence[BaseModel] | dict[str, Any]) -> None:
    """One JSON document on stdout, every field of every model, in a stable order."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def show_services(services: Sequence[ServiceView]) -> None:
    rows = [row for service in services for row in _service_rows(service)]
    _table(("SERVICE", "INSTANCE", "STATE", "ROLES", "RUNNING", "LAG"), rows)
    states = Counter(i.state.value for service in services for i in service.instances)
    _line(f"services: {len(services)}, instances: {by_state(states)}")


def by_state(counts: Mapping[str, int]) -> str:
    """ "3 (2 live, 1 lost)"."""
    if not counts:
        return "0"
    parts = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    return f"{sum(counts.values())} ({parts})"


def show_instances(instances: Sequence[InstanceView]) -> None:
    columns = ("INSTANCE", "SERVICE", "STATE", "ROLES", "LAG", "HEARTBEAT", "HOST:PID")
    _table(columns, [_instance_row(instance) for instance in instances])


def show_service(service: ServiceView, routes: Sequence[RouteView]) -> None:
    """One service in full."""
    _pairs(
        ("service", service.service),
        ("version", service.version or "-"),
        ("methods", ", ".join(service.methods) or "-"),
        ("resources", str(service.resources)),
        ("instances", str(len(service.instances))),
    )
    for instance in service.instances:
        _line("")
        _pairs(*_instance_pairs(instance))
    if routes:
        _line("")
        columns = ("RESOURCE", "STATE", "ACTIVE", "EPOCH", "STANDBYS")
        _table(columns, [_route_row(route) for route in routes])


def show_routes(routes: Sequence[RouteView]) -> None:
    for number, route in enumerate(routes):
        if number:
            _line("")
        _pairs(
            ("resource", route.resource),
            ("service", route.service),
            ("state", _state(route.state)),
            ("active", route.active or "-"),
            ("epoch", str(route.epoch)),
            ("since", _time(route.since)),
            ("reason", route.reason or "-"),
            ("standbys", "-" if not route.standbys else str(len(route.standbys))),
        )
        if route.standbys:
            _table(
                ("STANDBY", "STATE", "LAG"),
                [(s.instance_id, _state(s.state), str(s.lag_entries)) for s in route.standbys],
            )


def show_moved(moved: Moved, *, done: str, planned: str) -> None:
    """What a change did or, dry, would do.

    Args:
        done: the sentence when it happened ("acc-1 is disconnected").
        planned: the same for a dry run ("acc-1 would be disconnected").
    """
    _line(f"dry run: {planned}" if moved.dry_run else done)
    rows = [(resource, new) for resource, new in moved.moved.items()]
    rows += [(resource, "nobody: no standby") for resource in moved.vacant]
    if rows:
        _table(("RESOURCE", "NEXT ACTIVE" if moved.dry_run else "NEW ACTIVE"), rows)


def show_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    _pairs(*pairs)


def _service_rows(service: ServiceView) -> list[tuple[Cell, ...]]:
    if not service.instances:
        return [(service.service, "-", Text("no instances", "red"), "-", "-", "-")]
    return [
        (
            "" if number else service.service,
            instance.instance_id,
            _state(instance.state),
            _roles(instance),
            str(instance.running),
            str(instance.lag_entries),
        )
        for number, instance in enumerate(service.instances)
    ]


def _instance_row(instance: InstanceView) -> tuple[Cell, ...]:
    return (
        instance.instance_id,
        instance.service,
        _state(instance.state),
        _roles(instance),
        str(instance.lag_entries),
        _age(instance.heartbeat_age_s),
        _where(instance),
    )


def _instance_pairs(instance: InstanceView) -> list[tuple[str, Cell]]:
    return [
        ("instance", instance.instance_id),
        ("state", _state(instance.state)),
        ("roles", _roles(instance)),
        ("running", str(instance.running)),
        ("lag", f"{instance.lag_entries} entries"),
        ("heartbeat", _age(instance.heartbeat_age_s)),
        ("loop lag", f"{instance.loop_lag_s * 1000:.0f} ms"),
        ("version", instance.version or "-"),
        ("host:pid", _where(instance)),
        ("since", _time(instance.since)),
        ("reason", instance.reason or "-"),
    ]


def _route_row(route: RouteView) -> tuple[Cell, ...]:
    standbys = ", ".join(f"{s.instance_id} (lag {s.lag_entries})" for s in route.standbys)
    return (
        route.resource,
        _state(route.state),
        route.active or "-",
        str(route.epoch),
        standbys or "-",
    )


def _roles(instance: InstanceView) -> str:
    parts = [("active", instance.active), ("standby", instance.standby)]
    return ", ".join(f"{n} {role}" for role, n in parts if n) or "group"


def _state(state: InstanceState | LeaseState) -> Text:
    return Text(state.value, _COLOURS[state])


def _age(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s ago"


def _where(instance: InstanceView) -> str:
    return f"{instance.host}:{instance.pid}" if instance.host else "-"


def _time(unix_s: float) -> str:
    if not unix_s:
        return "-"
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _console() -> Console:
    if sys.stdout.isatty():
        return Console(highlight=False, markup=False, emoji=False)
    return Console(
        highlight=False,
        markup=False,
        emoji=False,
        width=_PIPE_WIDTH,
        no_color=True,
        file=sys.stdout,
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(cell) for cell in row))
    _print(table)


def _pairs(*pairs: tuple[str, Cell]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, _cell(value))
    _print(table)


def _line(text: str) -> None:
    _print(_cell(text))


def _print(what: Table | Text) -> None:
    """Without the blanks that fill the last column: they get in the way of tools that read lines."""
    console = _console()
    with console.capture() as capture:
        console.print(what)
    for line in capture.get().splitlines():
        print(line.rstrip())


def _cell(value: Cell) -> Text:
    if isinstance(value, Text):
        return value
    return Text(
        "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    )
