"""Runs one session: the processes up, the orders through, the strikes in between, the evidence read.

Everything happens through the same doors as for any user of AegisIPC. The session judges nothing;
it hands back what was seen.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeVar

from aegis_sdk.contract.subjects import Subjects
from nats.aio.client import Client

from aegis_demo import witness
from aegis_demo.disruption import Disruption, Planned, Strike, flowing_at, plan
from aegis_demo.events import Event, Finished, Limit, Stated, Traded
from aegis_demo.layouts import layout_of
from aegis_demo.market import Market
from aegis_demo.options import DemoOptions
from aegis_demo.orders import Order, accounts_of, write_orders
from aegis_demo.processes import Child, Crew
from aegis_demo.reconcile import Call, Evidence, Holding

T = TypeVar("T")
PRICING_INSTANCES: Final = 3
TAKEOVER_TIMEOUT_S: Final = 60.0
STANDBY_TIMEOUT_S: Final = 15.0
"""How long a woken zombie may take to come back as a standby before another one is started."""


class SessionFailed(Exception):
    """The session could not go on; the message says what was waited for."""


class Screen(Protocol):
    """Where a person sees what goes on."""

    def say(self, text: str) -> None:
        """Something happened."""

    def advance(self, done: int, failovers: int) -> None:
        """`done` orders have their answer."""


@dataclass(frozen=True, slots=True)
class Run:
    """What was seen of a session. `failovers` is what the leases' epochs say."""

    trades: list[Traded]
    evidence: Evidence
    finished: Finished
    disruptions: list[Disruption]
    failovers: int


@dataclass(slots=True)
class Tape:
    """Records what the gateway says."""

    advanced: Callable[[int], None]
    trades: list[Traded] = field(default_factory=list)
    statements: dict[str, Holding] = field(default_factory=dict)
    finished: Finished | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: list[tuple[int, asyncio.Event]] = field(default_factory=list)

    def record(self, event: Event) -> None:
        """Take an event of the gateway."""
        match event:
            case Traded():
                self.trades.append(event)
                self._tell()
            case Stated():
                self.statements[event.account] = Holding(event.cash, event.positions, event.version)
            case Finished():
                self.finished = event
                self.ended.set()

    async def until(self, done: int) -> None:
        """Return when `done` orders have their answer."""
        reached = asyncio.Event()
        self._waiting.append((done, reached))
        self._tell()
        await reached.wait()

    def _tell(self) -> None:
        self.advanced(len(self.trades))
        for done, reached in self._waiting:
            if len(self.trades) >= done:
                reached.set()


class Session:
    """One session over a running NATS; `crew` ends its processes, also when it fails half-way."""

    def __init__(
        self,
        options: DemoOptions,
        orders: list[Order],
        market: Market,
        *,
        client: Client,
        crew: Crew,
        work_dir: Path,
        url: str,
        system_url: str,
        http_port: int,
        screen: Screen,
    ) -> None:
        self._options = options
        self._orders = orders
        self._market = market
        self._client = client
        self._crew = crew
        self._work_dir = work_dir
        self._url = url
        self._system_url = system_url
        self._http_port = http_port
        self._screen = screen
        self._subjects = Subjects()
        self._directory = witness.Directory()
        self._accounts = accounts_of(orders)
        self._layout = layout_of(self._accounts, instances=options.instances, grow=options.grow)
        self._instances: dict[str, Child] = {}
        """The processes of `accounts`, by instance id."""
        self._numbers = itertools.count(1)
        self._disruptions: list[Disruption] = []
        self._tape = Tape(lambda done: screen.advance(done, self._failovers))

    async def run(self) -> Run:
        """Raises: ChildFailed, SessionFailed."""
        control = await self._start_control()
        services = await self._start_services()
        await self._until_control_answers(control)
        if self._options.console:
            self._screen.say(f"watch it in a browser: {console_url(self._http_port)}")
        async with self._directory.watching(self._client, self._subjects):
            gateway = await self._until_all_serve(*services)
            epochs = self._directory.epochs()
            await self._trade(gateway)
            failovers = self._layout.failovers(
                self._directory, since=epochs, provoked=self._failovers
            )
        return await self._collect(failovers)

    # --- start -----------------------------------------------------------------------------------
    async def _start_control(self) -> Child:
        self._screen.say("starting control")
        return await self._crew.start(
            "control",
            "aegis_control.entrypoints.service",
            ["serve"],
            environment=self._control_environment(),
        )

    async def _until_control_answers(self, control: Child) -> None:
        try:
            await self._crew.attended(witness.control_is_there(self._client, self._subjects))
        except TimeoutError as error:
            raise control.failure("does not answer") from error

    def _control_environment(self) -> dict[str, str]:
        environment = {"AEGIS_URL": self._url, "AEGIS_HTTP_PORT": str(self._http_port)}
        environment |= self._layout.control_settings
        if not self._options.heartbeats_only:
            environment["AEGIS_SYSTEM_URL"] = self._system_url
        return environment

    async def _start_services(self) -> tuple[Child, ...]:
        """Start all instances and, last, the gateway; they wait for control by themselves."""
        self._screen.say(
            f"starting {PRICING_INSTANCES} instances of pricing, {self._layout.words}, and the gateway:"
            " a process each"
        )
        self._files()
        booking = [await self._start_accounts(role) for role in self._layout.first_roles]
        pricing = [await self._start_pricing(n + 1) for n in range(PRICING_INSTANCES)]
        return *booking, *pricing, await self._start_gateway()

    async def _until_all_serve(self, *services: Child) -> Child:
        """Return the gateway, the last of them."""
        await self._crew.until_ready(*services)
        ready = self._directory.until(self._layout.is_ready)
        await self._await(ready, "one instance to be the active of all accounts")
        return services[-1]

    def _files(self) -> None:
        write_orders(self._work_dir / "orders.jsonl", self._orders)
        (self._work_dir / "accounts.json").write_text(json.dumps(self._accounts), "utf-8")
        self._market_file.write_text(self._market.model_dump_json(), "utf-8")

    @property
    def _market_file(self) -> Path:
        return self._work_dir / "market.json"

    async def _start_accounts(self, role: str) -> Child:
        name = f"accounts-{next(self._numbers)}"
        file = str(self._work_dir / "accounts.json")
        child = await self._crew.start(
            name,
            "aegis_demo.accounts",
            [self._url, name, str(role), file, str(self._market_file)],
            on_event=_unheard,
        )
        self._instances[name] = child
        return child

    async def _start_pricing(self, number: int) -> Child:
        name = f"pricing-{number}"
        return await self._crew.start(
            name,
            "aegis_demo.pricing",
            [self._url, name, str(self._market_file)],
            on_event=_unheard,
        )

    async def _start_gateway(self) -> Child:
        orders = str(self._work_dir / "orders.jsonl")
        options = [str(self._options.in_flight), str(self._options.speed)]
        return await self._crew.start(
            "gateway",
            "aegis_demo.gateway",
            [self._url, orders, *options],
            on_event=self._tape.record,
        )

    # --- the stream and the strikes --------------------------------------------------------------
    async def _trade(self, gateway: Child) -> None:
        self._screen.say(f"trading {len(self._orders)} orders on {len(self._accounts)} accounts")
        options = self._options
        planned = plan(
            len(self._orders), kills=options.kills, pauses=options.pauses, grow=options.grow
        )
        limits = [strike.limit for strike in planned] + [len(self._orders)]
        _let_through(gateway, limits[0])
        for strike, limit in zip(planned, limits[1:], strict=True):
            await self._strike(strike, gateway, limit)
        await self._crew.attended(self._tape.ended.wait())

    async def _strike(self, planned: Planned, gateway: Child, next_limit: int) -> None:
        await self._crew.attended(self._tape.until(planned.after))
        await self._standby_is_there()
        flowing = flowing_at(planned, next_limit=next_limit, done=len(self._tape.trades))
        _let_through(gateway, next_limit)
        await self._crew.attended(self._tape.until(flowing))
        disruption = await self._hit(planned.strike)
        self._disruptions.append(disruption)
        self._screen.say(_story(disruption))
        if planned.strike is Strike.KILL:
            await self._start_accounts(self._layout.later_role)

    async def _hit(self, strike: Strike) -> Disruption:
        if strike is Strike.GROW:
            return await self._grow()
        victim = self._active()
        done = len(self._tape.trades)
        struck_s = time.monotonic()
        if strike is Strike.KILL:
            victim.kill()
        else:
            victim.may_end = True
            victim.pause()
        taken_over = self._layout.successor(self._directory, victim.name)
        successor = await self._await(taken_over, "the standby to take over")
        taken_over_s = time.monotonic()
        if strike is Strike.PAUSE:
            victim.wake()
        return Disruption(strike, victim.name, victim.pid, done, struck_s, successor, taken_over_s)

    async def _grow(self) -> Disruption:
        """One more instance: until it is active for its share."""
        done, began_s = len(self._tape.trades), time.monotonic()
        child = await self._start_accounts(self._layout.later_role)
        await self._crew.until_ready(child)
        live = sum(self._directory.lives(name) for name in self._instances)
        share = len(self._directory.leases) // max(live, 1)
        await self._await(
            self._directory.until(lambda d: d.owners()[child.name] >= share),
            "the instance that joined to get its share",
        )
        ended_s = time.monotonic()
        got = f"{self._directory.owners()[child.name]} of {len(self._directory.leases)} accounts"
        return Disruption(Strike.GROW, child.name, child.pid, done, began_s, got, ended_s)

    def _active(self) -> Child:
        """Raises: SessionFailed when there is none, or it is no process of ours."""
        owner = self._layout.active(self._directory)
        if owner not in self._instances:
            raise SessionFailed(f"the accounts are not in one instance's hands (but {owner})")
        return self._instances[owner]

    async def _standby_is_there(self) -> None:
        try:
            async with asyncio.timeout(STANDBY_TIMEOUT_S):
                await self._crew.attended(self._directory.until(self._has_standby))
        except TimeoutError:  # a zombie may have ended instead of coming back
            standby = await self._start_accounts(self._layout.later_role)
            await self._crew.until_ready(standby)
            await self._await(self._directory.until(self._has_standby), "a standby")

    def _has_standby(self, directory: witness.Directory) -> bool:
        running = [n for n, child in self._instances.items() if child.running and not child.paused]
        return self._layout.has_standby(directory, running)

    async def _await(self, wait: Awaitable[T], what: str) -> T:
        try:
            async with asyncio.timeout(TAKEOVER_TIMEOUT_S):
                return await self._crew.attended(wait)
        except TimeoutError as error:
            raise SessionFailed(f"waited {TAKEOVER_TIMEOUT_S:.0f} s for {what}") from error

    @property
    def _failovers(self) -> int:
        """Those that were provoked."""
        return sum(each.strike is not Strike.GROW for each in self._disruptions)

    # --- the evidence ----------------------------------------------------------------------------
    async def _collect(self, failovers: int) -> Run:
        self._screen.say("reading the request stream and the journal")
        accepted = await witness.read_accepted(self._client, self._subjects)
        journal = await witness.read_journal(self._client, self._subjects)
        finished = self._tape.finished
        assert finished is not None  # _trade waited for it
        calls = [
            Call(trade.order_id, trade.request_id, trade.outcome, trade.code)
            for trade in self._tape.trades
        ]
        evidence = Evidence(accepted, journal, calls, self._tape.statements)
        return Run(self._tape.trades, evidence, finished, self._disruptions, failovers)


def console_url(http_port: int) -> str:
    return f"http://127.0.0.1:{http_port}/"


def _unheard(_: Event) -> None:
    """Services say `ready`, which the child itself notes."""


def _let_through(gateway: Child, orders: int) -> None:
    gateway.tell(Limit(orders=orders).model_dump_json())


def _story(disruption: Disruption) -> str:
    took_ms = (disruption.taken_over_s - disruption.struck_s) * 1e3
    if disruption.strike is Strike.GROW:
        return (
            f"{disruption.victim} joined after {disruption.orders_done} orders: it is active for "
            f"{disruption.successor} {took_ms / 1e3:.1f} s after its process began"
        )
    done = {
        Strike.KILL: "kill -9 of",
        Strike.PAUSE: "paused (SIGSTOP), later woken as a zombie:",
    }[disruption.strike]
    return (
        f"{done} the active {disruption.victim} (pid {disruption.pid}) after "
        f"{disruption.orders_done} orders: {disruption.successor} took over within {took_ms:.0f} ms"
    )
