"""`top`: the whole system at a glance, again and again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Annotated, Final

import typer
from aegis_sdk.contract.control import InstanceView, ServiceView, SubscriptionView
from aegis_sdk.errors import Unavailable
from rich.console import Group, RenderableType
from rich.live import Live

from aegis_control.entrypoints.cli import render
from aegis_control.entrypoints.cli.options import Cli, command
from aegis_control.infrastructure.admin_client import AdminClient, AdminError, ControlStatus
from aegis_control.infrastructure.nats_streams import NatsStreams, StreamSettings

_SERVICES: Final = (
    "SERVICE",
    "INST",
    "ACTIVE",
    "STANDBY",
    "REQ/S",
    "OPEN",
    "STORED",
    "RUN",
    "LAG",
)
_SUBSCRIPTIONS: Final = ("SUBSCRIBER", "EVENT", "LAG", "OLDEST")
_INSTANCES: Final = ("INSTANCE", "SERVICE", "STATE", "ROLES", "RUN", "LAG", "BEAT", "LOOP LAG")


def mount(app: typer.Typer) -> None:
    command(app, "top")(top)


@dataclass(frozen=True, slots=True)
class Row:
    """A service with what it does now."""

    view: ServiceView
    stored: dict[str, int]
    """route (`any`, `at`): requests in the stream that have no outcome yet."""


@dataclass(frozen=True, slots=True)
class Screen:
    at_s: float
    control: ControlStatus
    dead_letters: int
    services: list[Row]
    subscriptions: list[SubscriptionView]


async def top(
    cli: Cli,
    *,
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    interval: Annotated[
        float,
        typer.Option("--interval", metavar="SECONDS", min=0.2, max=3600, help="Between looks."),
    ] = 2.0,
) -> None:
    """Services and instances with their calls, queues and lag, until Ctrl-C. With -o json, a line a look."""
    async with cli.admin() as admin:
        screens = Screens(admin)
        first = await screens.next()
        if once or cli.as_json:
            await _print_all(cli, screens, first, None if once else interval)
        else:
            await _live(screens, first, interval)


class Screens:
    """Looks at the system."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin
        self._streams = NatsStreams(admin.link, admin.subjects, StreamSettings())

    @property
    def connected(self) -> bool:
        """False once NATS is gone: `ipc-cli` doesn't come back by itself."""
        return self._admin.link.connected

    async def next(self) -> Screen:
        """Raises: AdminError, Unavailable."""
        views = await self._admin.list_services()
        return Screen(
            at_s=time.time(),
            control=await self._admin.status(),
            dead_letters=await self._streams.dead_letters(),
            services=[Row(view, await self._streams.depths(view.service)) for view in views],
            subscriptions=await self._streams.subscriptions(),
        )


async def _print_all(cli: Cli, screens: Screens, screen: Screen, interval: float | None) -> None:
    while True:
        if cli.as_json:
            render.show_json(screen, in_one_line=interval is not None)
        else:
            render.show(_drawn(screen, ""))
        if interval is None:
            return
        await asyncio.sleep(interval)
        screen = await screens.next()


async def _live(screens: Screens, screen: Screen, interval: float) -> None:
    """A look that fails is said on the screen, and the next one is tried: this is for bad times too.

    Raises: AdminError, Unavailable when NATS itself is gone.
    """
    with Live(
        _drawn(screen, ""), console=render.console(), screen=True, auto_refresh=False
    ) as live:
        while True:
            trouble = ""
            live.refresh()
            await asyncio.sleep(interval)
            try:
                screen = await screens.next()
            except (AdminError, Unavailable) as error:
                if not screens.connected:
                    raise
                trouble = f"{error}; shown is what was last seen"
            live.update(_drawn(screen, trouble))


def _drawn(screen: Screen, trouble: str) -> RenderableType:
    control = screen.control
    head = (
        f"{render.clock(screen.at_s)}  control {control.leader}"
        f"  instances {render.by_state(control.instances)}"
        f"  resources {render.by_state(control.resources)}  dead letters {screen.dead_letters}"
    )
    instances = [instance for row in screen.services for instance in row.view.instances]
    subscribed = [_subscription_row(view) for view in screen.subscriptions]
    events: list[RenderableType] = []
    if subscribed:
        events = ["", render.table(_SUBSCRIPTIONS, subscribed)]
    return Group(
        render.cell(trouble, "red") if trouble else render.cell(head, "bold"),
        *(render.cell(f"paused: {render.pause(each)}", "yellow") for each in control.paused),
        "",
        render.table(_SERVICES, [_service_row(row) for row in screen.services]),
        *events,
        "",
        render.table(_INSTANCES, [_instance_row(instance) for instance in instances]),
    )


def _service_row(row: Row) -> tuple[render.Cell, ...]:
    instances = row.view.instances
    is_open, stored = sum(i.open for i in instances), sum(row.stored.values())
    return (
        row.view.service,
        str(len(instances)),
        str(sum(i.active for i in instances)),
        str(sum(i.standby for i in instances)),
        _rate(row.view.calls_per_s),
        str(is_open),
        render.cell(str(stored), "yellow" if stored else ""),
        str(sum(i.running for i in instances)),
        str(max((i.lag_entries for i in instances), default=0)),
    )


def _subscription_row(view: SubscriptionView) -> tuple[render.Cell, ...]:
    behind = view.lag_entries > 0
    return (
        view.service,
        view.takes,
        render.cell(str(view.lag_entries), "yellow" if behind else ""),
        render.age(view.lag_s) if behind else "-",
    )


def _instance_row(instance: InstanceView) -> tuple[render.Cell, ...]:
    return (
        instance.instance_id,
        instance.service,
        render.state(instance.state),
        render.roles(instance),
        str(instance.running),
        str(instance.lag_entries),
        render.age(instance.heartbeat_age_s),
        f"{instance.loop_lag_s * 1000:.0f} ms",
    )


def _rate(per_s: float | None) -> str:
    return "-" if per_s is None else f"{per_s:.1f}"
