"""One system under test: its broker, control, instances and callers, each a process of its own."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Self

from aegis_control.infrastructure.embedded_nats import EmbeddedNats

from bench import systems
from bench.block import Block, Told
from bench.ledger import ORDERS, Ledger, Tally, Verdict, judge
from bench.machine import Noise, Reading, Reference
from bench.systems.api import CALL_TIMEOUT_S, CallerSetup, InstanceSetup
from bench.worker import LINE_BYTES_MAX

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 15.0
ANSWER_SLACK_S: Final = 30.0
_PR_SET_PDEATHSIG: Final = 1
ROOT: Final = Path(__file__).resolve().parent.parent


class BedError(Exception):
    """A process of the bed did not start, broke or did not answer; the message has its last words."""


@dataclass(frozen=True, slots=True)
class BedSettings:
    """How a bed is built. `sync_interval` is nats-server's; None is its default (2 minutes)."""

    system: str
    accounts: list[str]
    callers: int = 1
    instances: int = 1
    loop: str = "uvloop"
    sync_interval: str | None = None


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

    async def read(self, timeout_s: float) -> dict[str, Any]:
        """Its next line. Raises: BedError."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise BedError(
                f"{self.name}: no answer in {timeout_s:g} s{self.last_words()}"
            ) from None
        if not line:
            raise BedError(f"{self.name} ended{self.last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def ask(self, command: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """One command, one answer. Raises: BedError."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()
        return await self.read(timeout_s)

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
            self._process.kill()
            await self._process.wait()

    async def terminate(self) -> None:
        """SIGTERM, wait, SIGKILL; safe twice."""
        if self._process.returncode is None:
            self._process.terminate()
        await self.stop()

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
        env=os.environ | {"PYTHONPATH": str(ROOT)},
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
    """A running system. `ledger` has every call that any block of it made."""

    settings: BedSettings
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
            told = await self._load(block)
            after = Reading.take(watched)
        self.ledger.merge(told.ledger)
        cpu_s = {part: after.since(before, pids) for part, pids in self.pids.items()}
        noise = Noise(after.others_cpus(before), pings)
        return Measured(self.settings.system, block, told, cpu_s, noise)

    async def _load(self, block: Block) -> Told:
        timeout_s = block.duration_s + CALL_TIMEOUT_S + ANSWER_SLACK_S
        shares = [block.share(len(self.callers), n) for n in range(len(self.callers))]
        answers = await asyncio.gather(
            *(
                caller.ask({"block": share.as_dict()}, timeout_s)
                for caller, share in zip(self.callers, shares, strict=True)
            )
        )
        told = Told.from_dict(answers[0])
        for answer in answers[1:]:
            told.merge(Told.from_dict(answer))
        return told

    async def audit(self) -> Verdict:
        """Compare what callers were told with what the system holds. Raises: BedError."""
        answer = await self.callers[0].ask({"audit": True}, START_TIMEOUT_S)
        effects = {account: Tally(*values) for account, values in answer["positions"].items()}
        orders = effects.setdefault(ORDERS, Tally())
        for instance in self.instances:
            executed = await instance.ask({"orders": True}, ANSWER_SLACK_S)
            orders.merge(Tally(*executed["orders"]))
        return judge(self.ledger, effects)


def _owners(accounts: list[str], instances: int) -> dict[str, int]:
    return {account: n % instances for n, account in enumerate(accounts)}


@asynccontextmanager
async def bed(settings: BedSettings) -> AsyncIterator[Bed]:
    """A running system; every process of it is gone when the context ends. Raises: BedError."""
    made = Bed(settings)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aegis-bench-")))
        url = await _start_broker(made, stack, folder)
        owners = _owners(settings.accounts, settings.instances)
        addresses = await _start_instances(made, stack, folder, url, owners)
        setups = [CallerSetup(url, n, owners, addresses) for n in range(settings.callers)]
        made.callers, _ = await _start_workers(made, stack, folder, "caller", setups)
        yield made


async def _start_broker(made: Bed, stack: AsyncExitStack, folder: Path) -> str:
    system = systems.find(made.settings.system)
    if not system.uses_nats:
        return ""
    server = EmbeddedNats(folder / "nats", sync_interval=made.settings.sync_interval)
    stack.enter_context(server)
    assert server.pid is not None
    made.servers.append(server.pid)
    if system.uses_control:
        control = await Process.start("control", _control_arguments(server), folder, speaks=False)
        stack.push_async_callback(control.terminate)
        made.controls.append(control)
    if system.prepare is not None:
        await system.prepare(server.url)
    return server.url


def _control_arguments(server: EmbeddedNats) -> list[str]:
    """As an operator would start it: with the system account, on a free HTTP port."""
    arguments = ["-m", "aegis_control.entrypoints.service", "serve", "--url", server.url]
    return [*arguments, "--system-url", server.system_url, "--http-port", "0"]


async def _start_workers(
    made: Bed, stack: AsyncExitStack, folder: Path, kind: str, setups: list[Any]
) -> tuple[list[Process], list[dict[str, Any]]]:
    """All at once; returns them with what each said when it was ready."""
    workers = []
    for setup in setups:
        told = {
            "kind": kind,
            "system": made.settings.system,
            "loop": made.settings.loop,
            "setup": asdict(setup),
        }
        name = f"{made.settings.system}-{kind}-{setup.index}"
        worker = await Process.start(name, ["-m", "bench.worker", json.dumps(told)], folder)
        stack.push_async_callback(worker.stop)
        workers.append(worker)
    ready = await asyncio.gather(*(worker.read(START_TIMEOUT_S) for worker in workers))
    return workers, list(ready)


async def _start_instances(
    made: Bed, stack: AsyncExitStack, folder: Path, url: str, owners: dict[str, int]
) -> list[str]:
    setups = [
        InstanceSetup(url, n, [account for account, owner in owners.items() if owner == n])
        for n in range(made.settings.instances)
    ]
    made.instances, ready = await _start_workers(made, stack, folder, "instance", setups)
    return [str(said["address"]) for said in ready]
