"""One system under test: its broker, control, instances and callers, each a process of its own."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Self

from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_control.infrastructure.nats_cluster import NatsCluster

from bench import systems
from bench.block import Block, Told
from bench.ledger import ORDERS, Ledger, Tally, Verdict, judge
from bench.machine import Noise, Reading, Reference, memory_mib
from bench.paths import ROOT, python_path
from bench.systems.api import CALL_TIMEOUT_S, CallerSetup, InstanceSetup
from bench.worker import LINE_BYTES_MAX

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 15.0
ANSWER_SLACK_S: Final = 30.0
WORKERS_STARTING_MAX: Final = 6
"""More Python processes that start at once only make each of them slow."""
_PR_SET_PDEATHSIG: Final = 1


class BedError(Exception):
    """A process of the bed did not start, broke or did not answer; the message has its last words."""


@dataclass(frozen=True, slots=True)
class BedSettings:
    """How a bed is built.

    `sync_interval` is nats-server's; None is its default (2 minutes). With `nodes` > 1 every stream has
    as many copies. `system_account` False: control learns of a crash from missed heartbeats alone.
    """

    system: str
    accounts: list[str]
    callers: int = 1
    instances: int = 1
    loop: str = "uvloop"
    sync_interval: str | None = None
    nodes: int = 1
    system_account: bool = True


class Process:
    """A child that speaks JSON lines; what it says on stderr is kept for the error."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, errors: Path) -> None:
        self._process = process
        self._errors = errors
        self.name = name
        self.pid = process.pid

    @classmethod
    async def start(
        cls, name: str, arguments: list[str], folder: Path, *, speaks: bool = True
    ) -> Self:
        """A Python process. One that does not speak our lines has its output beside its errors."""
        errors = folder / f"{name}.err"
        with errors.open("wb") as stderr:
            process = await _spawn(arguments, stderr, speaks)
        return cls(process, name, errors)

    async def read(self, timeout_s: float | None) -> dict[str, Any]:
        """Its next line; None waits for ever. Raises: BedError."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise BedError(f"{self.name}: no answer in {timeout_s} s{self.last_words()}") from None
        if not line:
            raise BedError(f"{self.name} ended{self.last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def ask(self, command: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """One command, one answer. Raises: BedError."""
        await self.tell(command)
        return await self.read(timeout_s)

    async def tell(self, command: dict[str, Any]) -> None:
        """A line to it. Raises: BedError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            await self._process.stdin.drain()
        except ConnectionError:
            raise BedError(f"{self.name} ended{self.last_words()}") from None

    async def stop(self) -> None:
        """Close its input, wait, and kill it if it does not end; safe twice."""
        if self._process.returncode is not None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def terminate(self) -> None:
        """SIGTERM, wait, SIGKILL; safe twice."""
        self.send(signal.SIGTERM)
        await self.stop()

    def send(self, number: signal.Signals) -> None:
        """A signal; nothing when it has ended. `send_signal` takes the exit status from asyncio's watcher."""
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone. Safe twice."""
        self.send(signal.SIGKILL)
        await self._process.wait()

    async def ended(self, timeout_s: float) -> None:
        """Wait until it ended by itself. Raises: BedError."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._process.wait()
        except TimeoutError:
            raise BedError(f"{self.name} did not end{self.last_words()}") from None

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def last_words(self) -> str:
        text = self._errors.read_text(errors="replace").strip()
        return f": {text[-2000:]}" if text else ""


async def _spawn(
    arguments: list[str], stderr: IO[bytes], speaks: bool
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE if speaks else stderr,
        stderr=stderr,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": python_path()},
        limit=LINE_BYTES_MAX,
        preexec_fn=_die_with_parent,
    )


def _die_with_parent() -> None:
    """Runs in the child: the kernel ends it when the benchmark is killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(slots=True)
class Measured:
    """One block on one system. `cpu_s` by part: caller, instance, server, control."""

    system: str
    block: Block
    told: Told
    cpu_s: dict[str, float]
    noise: Noise


@dataclass(slots=True)
class Bed:
    """A running system. `ledger` has every call that any block of it made; `stack` ends its processes."""

    settings: BedSettings
    folder: Path
    stack: AsyncExitStack
    url: str = ""
    system_url: str = ""
    instances: list[Process] = field(default_factory=list)
    callers: list[Process] = field(default_factory=list)
    servers: list[int] = field(default_factory=list)
    controls: list[Process] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def pids(self) -> dict[str, list[int]]:
        """Process ids by part."""
        return {
            "caller": [process.pid for process in self.callers],
            "instance": [process.pid for process in self.instances],
            "server": self.servers,
            "control": [process.pid for process in self.controls],
        }

    async def run(self, block: Block, reference: Reference, others: Iterable[int] = ()) -> Measured:
        """Run a block; `others` are our own processes that are no part of this bed. Raises: BedError."""
        mine = [pid for pids in self.pids.values() for pid in pids]
        watched = {*mine, *others, os.getpid(), reference.pid}
        async with reference.beside() as pings:
            before = Reading.take(watched)
            told = await self.load(block)
            after = Reading.take(watched)
        cpu_s = {part: after.since(before, pids) for part, pids in self.pids.items()}
        noise = Noise(after.others_cpus(before), pings)
        return Measured(self.settings.system, block, told, cpu_s, noise)

    async def load(self, block: Block, callers: Sequence[Process] | None = None) -> Told:
        """Run a block (by some of the callers) without looking at the machine. Raises: BedError."""
        callers = callers or self.callers
        timeout_s = block.duration_s + CALL_TIMEOUT_S + ANSWER_SLACK_S
        shares = [block.share(len(callers), n) for n in range(len(callers))]
        answers = await asyncio.gather(
            *(
                caller.ask({"block": share.as_dict()}, timeout_s)
                for caller, share in zip(callers, shares, strict=True)
            )
        )
        told = Told.from_dict(answers[0])
        for answer in answers[1:]:
            told.merge(Told.from_dict(answer))
        self.ledger.merge(told.ledger)
        return told

    def memory_mib(self) -> dict[str, float]:
        """Resident memory of each part, all its processes together."""
        return {part: sum(map(memory_mib, pids)) for part, pids in self.pids.items()}

    async def audit(self) -> Verdict:
        """Compare what callers were told with what the system holds. Raises: BedError."""
        return judge(self.ledger, await self.effects())

    async def effects(self) -> dict[str, Tally]:
        """What the system holds, by account; of group orders those that `instances` ran. Raises: BedError."""
        answer = await self.callers[0].ask({"audit": True}, START_TIMEOUT_S)
        effects = {account: Tally(*values) for account, values in answer["positions"].items()}
        orders = effects.setdefault(ORDERS, Tally())
        for instance in self.instances:
            executed = await instance.ask({"orders": True}, ANSWER_SLACK_S)
            orders.merge(Tally(*executed["orders"]))
        return effects


def _owners(accounts: list[str], instances: int) -> dict[str, int]:
    return {account: n % instances for n, account in enumerate(accounts)}


@asynccontextmanager
async def bed(settings: BedSettings) -> AsyncIterator[Bed]:
    """A running system; every process of it is gone when the context ends. Raises: BedError."""
    async with broker(settings) as made:
        owners = _owners(settings.accounts, settings.instances)
        addresses = await _start_instances(made, owners)
        setups = [CallerSetup(made.url, n, owners, addresses) for n in range(settings.callers)]
        made.callers, _ = await start_workers(made, "caller", setups)
        yield made


@asynccontextmanager
async def broker(settings: BedSettings) -> AsyncIterator[Bed]:
    """NATS and control alone, where the system has them; who calls adds instances and callers."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="aegis-bench-"))
        made = Bed(settings, Path(folder), stack)
        await _start_broker(made)
        yield made


async def _start_broker(made: Bed) -> None:
    system = systems.find(made.settings.system)
    if not system.uses_nats:
        return
    nodes = _start_nodes(made)
    made.url = ",".join(node.url for node in nodes)
    made.system_url = ",".join(node.system_url for node in nodes)
    made.servers += [node.pid for node in nodes if node.pid is not None]
    if system.uses_control:
        control = await Process.start(
            "control", _control_arguments(made), made.folder, speaks=False
        )
        made.stack.push_async_callback(control.terminate)
        made.controls.append(control)
    if system.prepare is not None:
        await system.prepare(made.url, len(nodes))


def _start_nodes(made: Bed) -> list[EmbeddedNats]:
    settings, folder = made.settings, made.folder / "nats"
    if settings.nodes == 1:
        return [
            made.stack.enter_context(EmbeddedNats(folder, sync_interval=settings.sync_interval))
        ]
    cluster = NatsCluster(folder, size=settings.nodes, sync_interval=settings.sync_interval)
    return made.stack.enter_context(cluster).nodes


def _control_arguments(made: Bed) -> list[str]:
    """As an operator would start it, on a free HTTP port."""
    arguments = ["-m", "aegis_control.entrypoints.service", "serve", "--url", made.url]
    arguments += ["--http-port", "0", "--replicas", str(made.settings.nodes)]
    arguments += ["--no-spread"]  # what is measured has one active for all resources
    return arguments + ["--system-url", made.system_url] * made.settings.system_account


async def start_workers(
    made: Bed, kind: str, setups: Sequence[Any]
) -> tuple[list[Process], list[dict[str, Any]]]:
    """A few at a time; returns them with what each said when it was ready. Raises: BedError."""
    starting = asyncio.Semaphore(WORKERS_STARTING_MAX)

    async def start(setup: Any) -> tuple[Process, dict[str, Any]]:
        async with starting:
            return await _start_worker(made, kind, setup)

    started = await asyncio.gather(*map(start, setups))
    return [worker for worker, _ in started], [ready for _, ready in started]


async def _start_worker(made: Bed, kind: str, setup: Any) -> tuple[Process, dict[str, Any]]:
    told = {
        "kind": kind,
        "system": made.settings.system,
        "loop": made.settings.loop,
        "setup": asdict(setup),
    }
    name = f"{made.settings.system}-{kind}-{setup.index}"
    worker = await Process.start(name, ["-m", "bench.worker"], made.folder)
    made.stack.push_async_callback(worker.stop)
    return worker, await worker.ask(told, START_TIMEOUT_S)


async def _start_instances(made: Bed, owners: dict[str, int]) -> list[str]:
    setups = [
        InstanceSetup(made.url, n, [account for account, owner in owners.items() if owner == n])
        for n in range(made.settings.instances)
    ]
    made.instances, ready = await start_workers(made, "instance", setups)
    return [str(said["address"]) for said in ready]
