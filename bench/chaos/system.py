"""The system under attack: NATS (one node or three), control replicas, instances, clients; all real
processes on this machine. Each instance reaches NATS through a proxy of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import nats
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_control.infrastructure.nats_cluster import NatsCluster
from aegis_sdk.contract.subjects import Subjects

from bench.chaos import accidents, bounds
from bench.chaos.breaks import BROKEN
from bench.chaos.children import Child
from bench.chaos.clocks import Clocks
from bench.chaos.collect import Names
from bench.chaos.history import PUT_BACK, Fault, Gate, Loss, Pause
from bench.chaos.nemesis import ACCIDENTS, TROUBLES, Kind
from bench.chaos.proxy import Proxy
from bench.chaos.troubles import Troubles
from bench.chaos.workloads import WORKLOADS

CONTROLS = 2
INSTANCES = 3
CLIENTS = 2
CLOCKS = [
    *(f"instance-{n}" for n in range(INSTANCES)),
    *(f"control-{n}" for n in range(CONTROLS)),
    *(f"client-{n}" for n in range(CLIENTS)),
]
"""The processes whose clocks can be set; NATS reads its own past libfaketime."""
DELAY_S = 0.05
READY_TIMEOUT_S = 60.0
END_TIMEOUT_S = 90.0
"""A client waits for its operations in hand; those without a deadline have up to a minute."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What runs. `each` is the number of clients a workload and client process."""

    workloads: Sequence[str]
    seed: int
    nodes: int = 1
    each: int = 3
    pause_s: float = 0.05
    clocks: bool = False
    """Whether clocks can be set; reading them costs each process some microseconds then."""
    broken: str = ""
    """The rule that is broken (breaks.py)."""


class System:
    """Started by `running`; the nemesis' victims."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._source = Random(f"{settings.seed}/heal")
        self._clocks = Clocks(folder / "clocks", settings.seed) if settings.clocks else None
        self._cluster = NatsCluster(folder / "nats") if settings.nodes > 1 else None
        self._nodes = self._cluster.nodes if self._cluster else [EmbeddedNats(folder / "nats")]
        self._proxies: list[list[Proxy]] = []
        self._controls: list[Child] = []
        self._instances: list[Child] = []
        self._guests: list[Child] = []
        self._clients: list[Child] = []
        self._started = 0
        self.losses: list[Loss] = []
        """What control announced as lost, and we accepted."""
        self.put_back: list[Fault] = []
        """How long what was lost by each older copy had been stored."""
        self._operator: asyncio.Task[None] | None = None
        self._copied_s = 0.0
        """When NATS ended for the copy: what is asked from there on is stored behind it."""
        self._troubles = Troubles(lambda: self.urls, settings.workloads, settings.seed)
        self._of_nats = asyncio.Lock()
        """Held by whoever starts or ends nodes."""
        self.names: Names = {}
        """Of the requests that may be lost."""

    @property
    def gates(self) -> list[Gate]:
        """Those that the suite stored."""
        return self._troubles.gates

    @property
    def pauses(self) -> list[Pause]:
        """What was paused, and nothing of it may have run."""
        return self._troubles.pauses

    @property
    def sizes(self) -> dict[Kind, int]:
        """How many targets there are of each kind of fault."""
        of_controls = dict.fromkeys((Kind.KILL_CONTROL, Kind.PAUSE_CONTROL), CONTROLS)
        others = {
            Kind.KILL_NATS: len(self._nodes),
            Kind.KILL_CLIENT: CLIENTS,
            Kind.JUMP_CLOCK: len(CLOCKS),
            Kind.JOIN: 1,
            Kind.BUMP_GATES: 1,
            Kind.MOVE_OWNERSHIP: 1,
            Kind.SEIZE: 1,
            Kind.GIVE_UP: 1,
            Kind.PAUSE_TRAFFIC: 1,
            Kind.FULL_STREAMS: 1,
            Kind.DELETE_BUCKET: 3,
            Kind.DELETE_CONSUMERS: 2 * len(self._services),
            Kind.LOSE_REQUESTS: len(self._services),
            Kind.LOSE_JOURNAL: 2 * len(self._services),
            Kind.RESTORE_COPY: 1,
        }
        return {**dict.fromkeys(Kind, INSTANCES), **of_controls, **others}

    @property
    def urls(self) -> list[str]:
        """NATS without any proxy."""
        return [node.url for node in self._nodes]

    @property
    def url(self) -> str:
        """The same in one text, as the SDK takes it."""
        return ",".join(self.urls)

    @property
    def client_files(self) -> list[Path]:
        """What the clients wrote down, those of killed ones too."""
        return sorted(self._folder.glob("client-*.jsonl"))

    @property
    def _services(self) -> list[str]:
        return [WORKLOADS[name].service_name for name in self._settings.workloads]

    def _service(self, target: int) -> str:
        return self._services[target % len(self._services)]

    # --- life -------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Returns when everything but the clients is ready."""
        self._cluster.start() if self._cluster else self._nodes[0].start()
        self._controls = [await self._start_control(n) for n in range(CONTROLS)]
        await self._control_answers()
        for _ in range(INSTANCES):
            self._proxies.append([await Proxy(node.port).start() for node in self._nodes])
        self._instances = [await self._start_instance(n) for n in range(INSTANCES)]
        await asyncio.gather(*(instance.ready() for instance in self._instances))

    async def start_clients(self) -> None:
        """Returns when all ask, and the resources are opened."""
        for n in range(CLIENTS):
            client = await self._start_client(n, opens=n == 0)
            await client.ready()
            self._clients.append(client)

    async def stop_clients(self) -> None:
        """Returns when each has the end of its last operation. Raises: ChildError."""
        await asyncio.gather(*(client.end(timeout_s=END_TIMEOUT_S) for client in self._clients))

    async def stop(self) -> None:
        """Everything ends at once. Safe twice."""
        if self._operator is not None:
            self._operator.cancel()
        await self._troubles.end_all()
        for child in (*self._clients, *self._instances, *self._guests, *self._controls):
            await child.kill()
        for proxy in (proxy for proxies in self._proxies for proxy in proxies):
            await proxy.stop()
        if self._cluster:
            self._cluster.stop()
        else:
            self._nodes[0].kill()

    async def _start_control(self, n: int) -> Child:
        return await self._start_child(
            f"control-{n}",
            "-m",
            *(["bench.chaos.breaks"] if self._settings.broken else []),
            "aegis_control.entrypoints.service",
            "serve",
            "--url",
            self.url,
            "--system-url",
            ",".join(node.system_url for node in self._nodes),
            "--http-port",
            "0",
            "--replicas",
            str(len(self._nodes)),
        )

    async def _control_answers(self) -> None:
        client = await nats.connect(self.urls, max_reconnect_attempts=-1)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while True:
                    with contextlib.suppress(nats.errors.Error):
                        await client.request(Subjects().admin("status"), b"{}", timeout=1.0)
                        return
                    await asyncio.sleep(0.1)
        finally:
            await client.close()

    async def _start_instance(self, n: int) -> Child:
        urls = (proxy.url for proxy in self._proxies[n])
        return await self._start_serving(f"instance-{n}", f"i{n}", ",".join(urls))

    async def _start_serving(self, name: str, identity: str, url: str) -> Child:
        self._started += 1
        options = {
            "url": url,
            "id": f"{identity}-{self._started}",
            "version": 1 + (self._started > INSTANCES),  # whoever comes later
            "workloads": list(self._settings.workloads),
        }
        return await self._start_child(name, "-m", "bench.chaos.instance", json.dumps(options))

    async def _start_client(self, n: int, *, opens: bool) -> Child:
        self._started += 1
        name = f"c{self._started}"
        options = {
            "url": self.url,
            "name": name,
            "seed": self._settings.seed,
            "workloads": list(self._settings.workloads),
            "each": self._settings.each,
            "pause_s": self._settings.pause_s,
            "file": str(self._folder / f"client-{name}.jsonl"),
            "opens": opens,
        }
        return await self._start_child(
            f"client-{n}", "-m", "bench.chaos.client", json.dumps(options)
        )

    async def _start_child(self, name: str, *arguments: str) -> Child:
        environment = self._clocks.environment(name) if self._clocks else {}
        return await Child.start(
            name,
            *arguments,
            folder=self._folder,
            environment=environment | {BROKEN: self._settings.broken},
        )

    # --- faults -----------------------------------------------------------------------------------
    async def strike(self, kind: Kind, target: int) -> str | None:
        """Begin a fault; returns the target's name."""
        match kind:
            case Kind.KILL_NATS:
                async with self._of_nats:
                    self._nodes[target].kill()
                return f"nats-{target}"
            case Kind.CUT | Kind.CUT_TO_NATS | Kind.CUT_FROM_NATS | Kind.DELAY:
                self._disturb(kind, target)
                return self._instances[target].name
            case Kind.JUMP_CLOCK:
                return f"{CLOCKS[target]} by {self._of_clocks.jump(CLOCKS[target]):+g} s"
            case Kind.FULL_STREAMS:
                return "requests" if await bounds.fill(self.urls, self._services) else None
            case kind if kind in (*ACCIDENTS, *TROUBLES, Kind.JOIN):
                return await self._from_outside(kind, target)
        return await self._strike_child(kind, self._child(kind, target))

    async def _strike_child(self, kind: Kind, child: Child) -> str:
        if kind is Kind.HESITATE:
            child.hesitate()
        elif kind is Kind.CHANGE_OFFER:
            child.change_offer()
        elif kind in (Kind.PAUSE_INSTANCE, Kind.PAUSE_CONTROL):
            child.pause()
        else:
            await child.kill()
        return child.name

    async def _from_outside(self, kind: Kind, target: int) -> str | None:
        """What somebody else does."""
        if kind in TROUBLES:
            return self._troubles.begin(kind)
        service, second = self._service(target), target >= len(self._services)
        match kind:
            case Kind.JOIN:
                self._guests.append(await self._start_serving("guest", "guest", self.url))
            case Kind.DELETE_BUCKET:
                return await accidents.delete_bucket(self.urls, target)
            case Kind.DELETE_CONSUMERS:
                return await accidents.delete_consumers(self.urls, service, group=second)
            case Kind.LOSE_REQUESTS:
                return await accidents.lose_requests(self.urls, service, self.names)
            case Kind.RESTORE_COPY:
                self._copied_s = time.monotonic()
                await self._while_down(self._take_copy)
            case _:
                return await accidents.lose_journal(self.urls, service, purge=second)
        return "guest" if kind is Kind.JOIN else "nats"

    async def heal(self, kind: Kind, target: int) -> None:
        """End a fault; returns when what was down is up again, ready or not."""
        await self._troubles.end(kind)
        match kind:
            case Kind.KILL_NATS:
                node = self._nodes[target]
                async with self._of_nats:
                    node.start(wait=False)
                    await asyncio.to_thread(node.wait_ready)
            case Kind.CUT | Kind.CUT_TO_NATS | Kind.CUT_FROM_NATS | Kind.DELAY:
                reset = self._source.random() < 0.5
                for proxy in self._proxies[target]:
                    proxy.heal(reset=reset)
            case Kind.FULL_STREAMS:
                await bounds.lift(self.urls, self._services)
            case Kind.DELETE_BUCKET | Kind.DELETE_CONSUMERS:
                return  # it is control that makes them again
            case Kind.LOSE_REQUESTS | Kind.LOSE_JOURNAL:
                self.losses += await accidents.accept_losses(self.urls, [self._service(target)])
            case Kind.RESTORE_COPY:
                await self._while_down(self._put_copy_back)
                self.put_back.append(
                    Fault(
                        kind=PUT_BACK,
                        target="nats",
                        began_s=self._copied_s,
                        healed_s=time.monotonic(),
                    )
                )
                await bounds.lift(self.urls, self._services)  # the copy may be of full streams
                self.losses += await accidents.accept_all(self.urls, self._services)
                self._operator = self._operator or asyncio.create_task(self._accept_late())
            case Kind.JUMP_CLOCK:
                self._of_clocks.set(CLOCKS[target], 0.0)
            case Kind.PAUSE_INSTANCE | Kind.PAUSE_CONTROL | Kind.HESITATE:
                self._child(kind, target).wake()
            case Kind.JOIN:
                await self._guests.pop().end(timeout_s=END_TIMEOUT_S)
            case Kind.KILL_INSTANCE | Kind.KILL_CONTROL | Kind.KILL_CLIENT:
                await self._start_again(kind, target)

    async def _start_again(self, kind: Kind, target: int) -> None:
        if kind is Kind.KILL_INSTANCE:
            self._instances[target] = await self._start_instance(target)
        elif kind is Kind.KILL_CONTROL:
            self._controls[target] = await self._start_control(target)
        else:
            self._clients[target] = await self._start_client(target, opens=False)

    async def _accept_late(self) -> None:
        """A control that was not the leader meanwhile may be the only one to know how far a stream went."""
        while True:
            await asyncio.sleep(accidents.NOTICED_S)
            with contextlib.suppress(TimeoutError):
                self.losses += await accidents.accept_losses(self.urls, self._services)

    async def _while_down(self, do: Callable[[], None]) -> None:
        """As an operator who copies files: NATS is stopped, and started again."""
        async with self._of_nats:
            up = [node for node in self._nodes if node.running]
            await asyncio.gather(*(asyncio.to_thread(node.stop) for node in up))
            await asyncio.to_thread(do)
            for node in up:
                node.start(wait=False)
            await asyncio.gather(*(asyncio.to_thread(node.wait_ready) for node in up))

    def _take_copy(self) -> None:
        shutil.rmtree(self._folder / "copy", ignore_errors=True)
        shutil.copytree(self._folder / "nats", self._folder / "copy")

    def _put_copy_back(self) -> None:
        shutil.rmtree(self._folder / "nats")
        shutil.copytree(self._folder / "copy", self._folder / "nats")

    @property
    def _of_clocks(self) -> Clocks:
        assert self._clocks is not None  # the plan has jumps only with clocks
        return self._clocks

    def _disturb(self, kind: Kind, target: int) -> None:
        for proxy in self._proxies[target]:
            if kind is Kind.DELAY:
                proxy.delay(DELAY_S)
            else:
                proxy.cut(
                    to_nats=kind is not Kind.CUT_FROM_NATS, from_nats=kind is not Kind.CUT_TO_NATS
                )

    def _child(self, kind: Kind, target: int) -> Child:
        match kind:
            case Kind.KILL_CONTROL | Kind.PAUSE_CONTROL:
                return self._controls[target]
            case Kind.KILL_CLIENT:
                return self._clients[target]
        return self._instances[target]


@contextlib.asynccontextmanager
async def running(settings: Settings, folder: Path) -> AsyncIterator[System]:
    """A system without clients yet; every process of it is gone when the context ends."""
    system = System(settings, folder)
    try:
        await system.start()
        yield system
    finally:
        await system.stop()
