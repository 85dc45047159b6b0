"""A system of real processes for one scenario: NATS, control, instances; each killed by its own pid."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aegis_sdk
import nats
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_control.infrastructure.nats_cluster import NatsCluster
from aegis_sdk import Aegis
from aegis_sdk.contract.envelope import Outcome, OutcomeKind
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.entries import TURN, decode_turn
from nats.aio.msg import Msg

from tests.scenarios.ledger import Booking, Methods

START_TIMEOUT_S: Final = 30.0
EVENT_TIMEOUT_S: Final = 15.0
SUBJECTS: Final = Subjects()
_PR_SET_PDEATHSIG: Final = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A child process that says JSON lines on its standard output; its log goes to a file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self.events: list[dict[str, Any]] = []
        self._process = process
        self._log = log
        self._heard = asyncio.Condition()
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def start(
        cls,
        name: str,
        *arguments: str,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        stderr: int | None = None,
    ) -> Process:
        """`stderr`: a file descriptor that takes the place of its log."""
        log = folder / f"{name}.log"
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdout=asyncio.subprocess.PIPE,
                stderr=file if stderr is None else stderr,
                env=os.environ | dict(environment or {}),
                preexec_fn=_die_with_parent,
            )
        return cls(name, process, log)

    async def wait_for(
        self, event: str, *, timeout_s: float = EVENT_TIMEOUT_S, after: int = 0, **fields: Any
    ) -> dict[str, Any]:
        """The first line with this event and fields at or after index `after`."""

        def found() -> dict[str, Any] | None:
            for line in self.events[after:]:
                if line.get("event") == event and fields.items() <= line.items():
                    return line
            return None

        try:
            async with asyncio.timeout(timeout_s), self._heard:
                while (line := found()) is None:
                    if self._process.returncode is not None and self._listener.done():
                        raise AssertionError(f"{self.name} ended: {self.log_text()[-2000:]}")
                    await self._heard.wait()
                return line
        except TimeoutError:
            raise AssertionError(
                f"{self.name} did not say {event} {fields} within {timeout_s} s;"
                f" it said {self.events[-5:]}; log: {self.log_text()[-2000:]}"
            ) from None

    def count(self, event: str, **fields: Any) -> int:
        return sum(
            line.get("event") == event and fields.items() <= line.items() for line in self.events
        )

    def log_text(self) -> str:
        return self._log.read_text(errors="replace")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log's JSON lines with this event."""
        lines = []
        for text in self.log_text().splitlines():
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, dict) and line.get("event") == event:
                    lines.append(line)
        return lines

    def log_lines(self) -> list[dict[str, Any]]:
        """The whole log. Raises: ValueError when a line of it is not JSON."""
        return [json.loads(text) for text in self.log_text().splitlines()]

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        await self._process.wait()

    async def end(self, *, timeout_s: float = 10.0) -> int:
        """SIGTERM, and SIGKILL when that takes too long; the exit code."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._process.wait()
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"{self.name} did not end on SIGTERM") from None

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            with contextlib.suppress(ValueError):
                line = json.loads(raw)
                async with self._heard:
                    self.events.append(line)
                    self._heard.notify_all()
        async with self._heard:
            self._heard.notify_all()


class System:
    """NATS (one node or three), control replicas and instances of ledgers."""

    def __init__(self, server: EmbeddedNats | NatsCluster, folder: Path) -> None:
        self.nats = server
        self.folder = folder
        self.processes: list[Process] = []

    @property
    def url(self) -> str:
        return self.nats.url

    async def crash_nats(self) -> None:
        """kill -9 of the only node, and its start on the same data folder."""
        assert isinstance(self.nats, EmbeddedNats)
        self.nats.kill()
        await asyncio.to_thread(self.nats.start)

    async def start_control(
        self, *options: str, system_account: bool = True, stderr: int | None = None
    ) -> Process:
        n = sum(process.name.startswith("control") for process in self.processes) + 1
        account = ["--system-url", self.nats.system_url] if system_account else []
        replicas = ["--replicas", "3"] if isinstance(self.nats, NatsCluster) else []
        process = await Process.start(
            f"control-{n}",
            "-m",
            "aegis_control.entrypoints.service",
            "serve",
            "--url",
            self.url,
            "--http-port",
            "0",
            "--no-spread",  # the first instance is the active of all its resources
            *account,
            *replicas,
            *options,
            folder=self.folder,
            stderr=stderr,
        )
        self.processes.append(process)
        await self.wait_for_control()
        return process

    async def wait_for_control(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Returns when a leader answers operators."""
        client = await nats.connect(
            self.url.split(","), allow_reconnect=True, max_reconnect_attempts=-1
        )
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        await client.request(SUBJECTS.admin("status"), b"{}", timeout=1.0)
                    except nats.errors.Error:
                        await asyncio.sleep(0.05)
                    else:
                        return
        finally:
            await client.close()

    async def start_ledger(
        self,
        service: str,
        resources: dict[str, str] | None = None,
        *,
        instance_id: str,
        environment: Mapping[str, str] | None = None,
        stderr: int | None = None,
    ) -> Process:
        """Returns when it is registered."""
        options = {
            "url": self.url,
            "service": service,
            "resources": resources or {},
            "id": instance_id,
        }
        process = await Process.start(
            instance_id,
            "-m",
            "tests.scenarios.ledger",
            json.dumps(options),
            folder=self.folder,
            environment=environment,
            stderr=stderr,
        )
        self.processes.append(process)
        await process.wait_for("ready", timeout_s=START_TIMEOUT_S)
        return process

    async def stop(self) -> None:
        for process in self.processes:
            if process.running:
                await process.kill()

    async def journal(self, service: str) -> dict[str, Outcome]:
        """Every stored outcome by request id, read from the journal itself."""
        messages = await self.outcome_messages(service)
        turns = [message for message in messages if TURN in (message.headers or {})]
        records = [record for message in turns for record in decode_turn(message.data)]
        assert len({record.request_id for record in records}) == len(records)
        ended = [m.subject.split(".")[5:] for m in messages if m.subject.split(".")[3] == "end"]
        given_up = Outcome.error(OutcomeKind.CANCELLED, "cancelled", "its caller gave up")
        found = {record.request_id: record.outcome for record in records}  # in the log's order
        return found | {id_: given_up for id_ in map(".".join, ended) if id_ not in found}

    async def outcome_messages(self, service: str) -> list[Msg]:
        """What the log holds, in its order; many outcomes may share a message.

        The stream's leader says up to where: a reader may be at a node that was down, and is behind.
        """
        client = await nats.connect(self.url.split(","))
        try:
            stream = client.jetstream(timeout=15)
            messages: list[Msg] = []
            name = SUBJECTS.journal_stream(service)
            last_seq = (await stream.stream_info(name)).state.last_seq
            subscription = await stream.subscribe(
                f"aegis.jrn.{service}.>", stream=name, ordered_consumer=True
            )
            while not messages or messages[-1].metadata.sequence.stream < last_seq:
                messages.append(await subscription.next_msg(timeout=15.0))
            return messages
        finally:
            await client.close()


def new_service() -> str:
    """A service name that no other test uses."""
    return f"ledger-{uuid.uuid4().hex[:8]}"


@asynccontextmanager
async def running_system(
    *,
    nodes: int = 1,
    system_account: bool = True,
    controls: int = 1,
    sync: str | None = None,
    file_store: int | None = None,
) -> AsyncIterator[System]:
    """A whole system that is gone afterwards, whatever happened."""
    with tempfile.TemporaryDirectory(prefix="aegis-test-") as name:
        folder = Path(name)
        server: EmbeddedNats | NatsCluster
        server = (
            EmbeddedNats(folder / "nats", sync_interval=sync, max_file_store=file_store)
            if nodes == 1
            else NatsCluster(folder / "nats")
        )
        with server:
            system = System(server, folder)
            try:
                for _ in range(controls):
                    await system.start_control(system_account=system_account)
                yield system
            finally:
                await system.stop()


class Load:
    """Callers that book one after the other, each on its own resource, and remember what they were told."""

    def __init__(self, aegis: Aegis, methods: Methods, *, timeout_s: float = 20.0) -> None:
        self._aegis = aegis
        self._methods = methods
        self._timeout_s = timeout_s
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.booked: dict[str, list[str]] = {}
        self.waits_s: list[float] = []
        self.errors: list[str] = []
        self.done = 0
        self._progress = asyncio.Condition()

    def start(self, *resources: str, pause_s: float = 0.002) -> None:
        for resource in resources:
            self.booked[resource] = []
            self._tasks.append(asyncio.create_task(self._book(resource, pause_s)))

    async def wait_done(self, n: int, *, timeout_s: float = 30.0) -> None:
        """Until `n` bookings in all were answered."""
        async with asyncio.timeout(timeout_s), self._progress:
            await self._progress.wait_for(lambda: self.done >= n)

    async def stop(self) -> None:
        """Returns when every caller has its last answer."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    def forget_waits(self) -> None:
        self.waits_s.clear()

    async def _book(self, resource: str, pause_s: float) -> None:
        booked = self.booked[resource]
        while not self._stopping.is_set():
            op = f"{resource}-{len(booked)}"
            begun_s = time.monotonic()
            try:
                total = await self._aegis.request(
                    self._methods.book,
                    Booking(op=op),
                    resource=resource,
                    timeout_s=self._timeout_s,
                )
            except aegis_sdk.AegisError as error:
                self.errors.append(f"{op}: {error!r}")
                return
            self.waits_s.append(time.monotonic() - begun_s)
            booked.append(op)
            # Each reply is checked against everything this caller was ever told (G3, G6, G7).
            if total.count != len(booked) or total.ops != booked[-500:]:
                self.errors.append(f"{op}: told {total.count} bookings, made {len(booked)}")
                return
            async with self._progress:
                self.done += 1
                self._progress.notify_all()
            await asyncio.sleep(pause_s)


async def eventually(
    check: Callable[[], Any], *, timeout_s: float = 10.0, every_s: float = 0.05
) -> Any:
    """The first true value of `check()`, polled; for facts that nothing announces."""
    async with asyncio.timeout(timeout_s):
        while not (value := check()):  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(every_s)
        return value
