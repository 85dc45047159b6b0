"""Control's answers as tables for people, or as JSON for programs.

A table at a terminal keeps to its width; in a pipe each row is one line, nothing is cut, and there
is no colour. Texts from outside (resource ids, reasons) are shown with control characters escaped.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Any, Final

from aegis_sdk.contract.control import (
    InstanceState,
    InstanceView,
    LeaseState,
    MethodSpec,
    Moved,
    PauseView,
    RouteView,
    ServiceRecord,
    ServiceView,
)
from pydantic import BaseModel
from rich.console import Console, RenderableType
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
    LeaseState.RETIRED: "dim",
    LeaseState.IDLE: "dim",
}

Cell = str | Text
in_lines: ContextVar[bool] = ContextVar("in_lines", default=False)
"""Whether each JSON document is one line, as `-o jsonl` asks for."""


def show_json(value: Any, *, in_one_line: bool = False) -> None:
    """One JSON document on stdout, every field of every model, in a stable order."""
    indent = None if in_one_line or in_lines.get() else 2
    print(json.dumps(_plain(value), indent=indent, ensure_ascii=False), flush=in_one_line)


def show_services(services: Sequence[ServiceView]) -> None:
    rows = [row for service in services for row in _service_rows(service)]
    _table(("SERVICE", "INSTANCE", "STATE", "ROLES", "RUNNING", "LAG"), rows)
    for service in services:
        show_pauses(service.paused)
    states = Counter(i.state.value for service in services for i in service.instances)
    _line(f"services: {len(services)}, instances: {by_state(states)}")


def by_state(counts: Mapping[str, int]) -> str:
    """ "3 (2 live, 1 lost)"."""
    if not counts:
        return "0"
    parts = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    return f"{sum(counts.values())} ({parts})"


def show_pauses(pauses: Sequence[PauseView]) -> None:
    """A line each; nothing when nothing is paused."""
    for each in pauses:
        _line(f"paused: {pause(each)}")


def pause(view: PauseView) -> str:
    """What is paused, since when, by whom, and why."""
    of = f" of {view.service}" if view.resource is not None else ""
    by = f" by {view.by}" if view.by else ""
    why = f": {view.reason}" if view.reason else ""
    return f"{view.what}{of} since {moment(view.since)}{by}{why}"


def show_instances(instances: Sequence[InstanceView]) -> None:
    columns = (
        "INSTANCE",
        "SERVICE",
        "STATE",
        "ROLES",
        "LAG",
        "HEARTBEAT",
        "VERSION",
        "SDK",
        "HOST:PID",
    )
    _table(columns, [_instance_row(instance) for instance in instances])


def show_service(service: ServiceView, record: ServiceRecord, routes: Sequence[RouteView]) -> None:
    """One service in full; its contracts as JSON schemas."""
    takes = sorted(method.takes for method in record.methods if method.takes)
    _pairs(
        ("service", service.service),
        ("version", service.version or "-"),
        ("methods", ", ".join(service.methods) or "-"),
        ("events", ", ".join(event.name for event in record.events) or "-"),
        ("subscribes to", ", ".join(takes) or "-"),
        ("resources", str(service.resources)),
        ("instances", str(len(service.instances))),
        ("paused", "; ".join(map(pause, service.paused)) or "nothing"),
    )
    for instance in service.instances:
        _line("")
        _pairs(*_instance_pairs(instance))
    for method in record.methods:
        _line("")
        _pairs(*_method_pairs(method))
    for event in record.events:
        _line("")
        _pairs(("event", event.name), ("payload", json.dumps(event.payload_schema)))
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
            ("state", state(route.state)),
            ("active", route.active or "-"),
            ("epoch", str(route.epoch)),
            ("since", moment(route.since)),
            ("reason", route.reason or "-"),
            ("paused", pause(route.paused) if route.paused else "no"),
            ("standbys", "-" if not route.standbys else str(len(route.standbys))),
        )
        if route.standbys:
            _table(
                ("STANDBY", "STATE", "LAG"),
                [(s.instance_id, state(s.state), str(s.lag_entries)) for s in route.standbys],
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


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    _table(columns, rows)


def show_line(text: str = "") -> None:
    _line(text)


def cell(text: str, colour: str = "") -> Text:
    """A text in a colour, control characters escaped."""
    return Text(_escaped(text), colour)


def show_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    _pairs(*pairs)


def _service_rows(service: ServiceView) -> list[tuple[Cell, ...]]:
    if not service.instances:
        return [(service.service, "-", Text("no instances", "red"), "-", "-", "-")]
    return [
        (
            "" if number else service.service,
            instance.instance_id,
            state(instance.state),
            roles(instance),
            str(instance.running),
            str(instance.lag_entries),
        )
        for number, instance in enumerate(service.instances)
    ]


def _instance_row(instance: InstanceView) -> tuple[Cell, ...]:
    return (
        instance.instance_id,
        instance.service,
        state(instance.state),
        roles(instance),
        str(instance.lag_entries),
        age(instance.heartbeat_age_s),
        instance.version or "-",
        _sdk(instance),
        _where(instance),
    )


def _instance_pairs(instance: InstanceView) -> list[tuple[str, Cell]]:
    return [
        ("instance", instance.instance_id),
        ("state", state(instance.state)),
        ("roles", roles(instance)),
        ("running", str(instance.running)),
        ("lag", f"{instance.lag_entries} entries"),
        ("heartbeat", age(instance.heartbeat_age_s)),
        ("loop lag", f"{instance.loop_lag_s * 1000:.0f} ms"),
        ("version", instance.version or "-"),
        ("sdk", _sdk(instance)),
        ("host:pid", _where(instance)),
        ("since", moment(instance.since)),
        ("reason", instance.reason or "-"),
    ]


def _sdk(instance: InstanceView) -> str:
    """Its SDK's version, and the protocol's."""
    return f"{instance.sdk_version or '?'}/{instance.protocol}"


def _method_pairs(method: MethodSpec) -> list[tuple[str, Cell]]:
    return [
        ("method", method.name),
        ("route", _route_of(method)),
        ("request", json.dumps(method.request_schema, ensure_ascii=False)),
        ("reply", json.dumps(method.reply_schema, ensure_ascii=False)),
    ]


def _route_of(method: MethodSpec) -> str:
    if method.reads:
        return "a resource, read"
    if method.urgent:
        return "a resource, urgent"
    return "a resource" if method.targeted else "the group, or a resource"


def _route_row(route: RouteView) -> tuple[Cell, ...]:
    standbys = ", ".join(f"{s.instance_id} (lag {s.lag_entries})" for s in route.standbys)
    return (
        route.resource,
        _route_state(route),
        route.active or "-",
        str(route.epoch),
        standbys or "-",
    )


def _route_state(route: RouteView) -> Text:
    return Text("paused", "yellow") if route.paused else state(route.state)


def roles(instance: InstanceView) -> str:
    parts = [("active", instance.active), ("standby", instance.standby)]
    return ", ".join(f"{n} {role}" for role, n in parts if n) or "group"


def state(state: InstanceState | LeaseState) -> Text:
    return Text(state.value, _COLOURS[state])


def age(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s ago"


def _where(instance: InstanceView) -> str:
    return f"{instance.host}:{instance.pid}" if instance.host else "-"


def moment(unix_s: float) -> str:
    return _time(unix_s, "seconds") if unix_s else "-"


def clock(unix_s: float) -> str:
    """To the millisecond, for timelines."""
    return _time(unix_s, "milliseconds")


def _time(unix_s: float, precision: str) -> str:
    """What is stored may be any number."""
    try:
        text = datetime.fromtimestamp(unix_s, UTC).isoformat(" ", precision)
    except (OverflowError, ValueError, OSError):
        return "-"
    return text.replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def console() -> Console:
    """As wide as the terminal, or as what is written to a pipe."""
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


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Table:
    """Not shown yet: for what is drawn together, or again and again."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(one) for one in row))
    return drawn


def _table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    show(table(columns, rows))


def _pairs(*pairs: tuple[str, Cell]) -> None:
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in pairs:
        drawn.add_row(name, _cell(value))
    show(drawn)


def _line(text: str) -> None:
    show(_cell(text))


def show(what: RenderableType) -> None:
    """Without the blanks that fill the last column: they get in the way of tools that read lines."""
    to = console()
    with to.capture() as capture:
        to.print(what)
    for line in capture.get().splitlines():
        print(line.rstrip(), flush=True)


def show_hanging(time: str, event: Text, words: str) -> None:
    """A line of a log; what does not fit a terminal goes on under its third word."""
    line = Table.grid()
    line.add_column(no_wrap=True)
    line.add_column(overflow="fold")
    said = Text.assemble(event, "  ", _escaped(words)) if words else event
    line.add_row(time, said)
    show(line)


def _cell(value: Cell) -> Text:
    if isinstance(value, Text):
        return value
    return Text(_escaped(value))


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
