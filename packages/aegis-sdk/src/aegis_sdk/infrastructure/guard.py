"""A second voice for heartbeats, from outside this interpreter (guard_process.py says why).

Theory of operation. A connection to NATS is opened here, with the login that this process has, and its socket is handed to
the guard's process. This process writes nothing there but the login and the library's pings; the guard writes only when
this one is held, and each heartbeat by one system call. So two writers don't get between each other's bytes, and the guard
needs no credentials, no TLS and no library.

A heartbeat costs one write into shared memory. The channel is used when the socket is a new one, after a reconnect. Its
closing tells the guard that this process is gone, by whatever death.

What each failure leaves: without a guard, heartbeats come from the pulse's thread alone. If the guard dies, nobody notices,
and it is the same. If this process dies, the guard sees the channel close, and ends without a word. A process that was
stopped (SIGSTOP) is not spoken for, since its resources shall move.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from aegis_sdk import process as process_wide
from aegis_sdk.errors import Unavailable
from aegis_sdk.infrastructure import guard_process
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server
from aegis_sdk.telemetry import log

_SCRIPT = Path(__file__).with_name("guard_process.py")


class Guard:
    """Told each heartbeat; sends it on while this process can't, over a connection made here.

    Heartbeats are laid into memory that both share, which wakes nobody; the channel is for the socket.
    Linux and plain TCP alone: elsewhere, and when it can't be started, heartbeats come from the
    thread only, and an interpreter that is held for longer than the heartbeat timeout fails over.

    The pulse owns it, on the pulse's thread and loop. In a forked child its end of the channel is cut off: else the guard would
    take the child for the parent.
    """

    def __init__(
        self,
        link: Link,
        process: subprocess.Popen[bytes],
        channel: socket.socket,
        shared: mmap.mmap,
    ) -> None:
        self._link = link
        self._process = process
        self._channel = channel
        self._shared = shared
        self._given_fd = -1
        process_wide.when_forked(self, lambda: process_wide.cut_off(channel.fileno()))

    @classmethod
    async def start(cls, server: Server, *, name: str) -> Guard | None:
        """None where there can be none; a line of the log says why."""
        if (why := _why_none()) is not None:
            log.info("guard_not_started", reason=why)
            return None
        try:
            link = await Link.open(server, name=name)
        except Unavailable as error:
            log.info("guard_not_started", reason=str(error))
            return None
        if link.plain_socket_fd is None:
            await link.close()
            return None
        try:
            return cls(link, *_started())
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            log.info("guard_not_started", reason=str(error))
            await link.close()
            return None

    def told(self, subject: str, beat: bytes, interval_s: float) -> None:
        """Leave the newest heartbeat to it, after it was sent. Never waits. `beat` is its JSON, shorter than the shared memory.

        A socket that can't be given now is given with a later heartbeat: `_given_fd` tells which one the guard has.
        """
        guard_process.write(self._shared, beat, time.monotonic())
        fd = self._link.plain_socket_fd
        if fd is not None and fd != self._given_fd:
            self._give(fd, subject, interval_s)

    def _give(self, fd: int, subject: str, interval_s: float) -> None:
        message = json.dumps({"subject": subject, "interval_s": interval_s}).encode()
        try:
            socket.send_fds(self._channel, [message], [fd])
        except OSError as error:
            log.debug("guard_not_told", error=str(error))
        else:
            self._given_fd = fd

    async def close(self) -> None:
        """Its process ends when it sees the channel close."""
        process_wide.forget_fork(self)
        self._channel.close()
        await self._link.close()
        try:
            self._process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._shared.close()


def _why_none() -> str | None:
    """What is missing here, in words."""
    name = Path(sys.executable or "").name.lower()
    if sys.platform != "linux" or not hasattr(os, "memfd_create"):
        return "it needs Linux and memfd_create"
    if getattr(sys, "frozen", False) or not name.startswith(("python", "pypy")):
        # It would not run our script, but the whole program once more, and that one the next.
        return f"{sys.executable!r} is not a Python interpreter"
    return None if _SCRIPT.is_file() else f"{_SCRIPT} is not a file"


def _started() -> tuple[subprocess.Popen[bytes], socket.socket, mmap.mmap]:
    """The process, its channel and what is shared with it. Raises: OSError, ValueError, SubprocessError."""
    with ExitStack() as ours_if_it_fails, ExitStack() as theirs:
        ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.callback(other.close)
        ours_if_it_fails.callback(ours.close)
        ours.setblocking(False)
        memory = os.memfd_create("aegis-guard")
        theirs.callback(os.close, memory)
        os.ftruncate(memory, guard_process.SHARED_BYTES)
        shared = mmap.mmap(memory, guard_process.SHARED_BYTES)
        process = _spawn(other, memory)
        ours_if_it_fails.pop_all()
        return process, ours, shared


def _spawn(channel: socket.socket, memory: int) -> subprocess.Popen[bytes]:
    """Raises: OSError."""
    fds = [channel.fileno(), memory]
    return subprocess.Popen(
        [sys.executable, "-ISE", str(_SCRIPT), *map(str, fds), str(os.getpid())],
        pass_fds=fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a terminal's Ctrl-C is for the process that it guards
    )
