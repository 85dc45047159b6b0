"""A second voice for heartbeats, from outside this interpreter (guard_process.py says why)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from aegis_sdk.contract.control import Heartbeat
from aegis_sdk.errors import Unavailable
from aegis_sdk.infrastructure.link import Link, Server
from aegis_sdk.telemetry import log

_SCRIPT = Path(__file__).with_name("guard_process.py")


class Guard:
    """Told each heartbeat; sends it on while this process can't, over a connection made here.

    Linux and plain TCP alone: elsewhere, and when it can't be started, heartbeats come from the
    thread only, and an interpreter that is held for longer than the heartbeat timeout fails over.
    """

    def __init__(
        self, link: Link, process: subprocess.Popen[bytes], channel: socket.socket
    ) -> None:
        self._link = link
        self._process = process
        self._channel = channel
        self._shared_fd = -1

    @classmethod
    async def start(cls, server: Server, *, name: str) -> Guard | None:
        """None where there can be none."""
        if sys.platform != "linux":
            return None
        try:
            link = await Link.open(server, name=name)
        except Unavailable as error:
            log.debug("guard_not_started", error=str(error))
            return None
        if link.plain_socket_fd is None:
            await link.close()
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            process = _spawn(theirs)
        except OSError as error:
            log.debug("guard_not_started", error=str(error))
            await link.close()
            ours.close()
            return None
        finally:
            theirs.close()
        return cls(link, process, ours)

    def told(self, subject: str, beat: Heartbeat, interval_s: float) -> None:
        """Hand over the newest heartbeat. Never waits."""
        fd = self._link.plain_socket_fd
        if fd is None:
            return  # not connected now
        fds = [fd] if fd != self._shared_fd else []
        message = {"subject": subject, "beat": beat.model_dump_json(), "interval_s": interval_s}
        try:
            socket.send_fds(self._channel, [json.dumps(message).encode()], fds)
        except OSError as error:
            log.debug("guard_not_told", error=str(error))
        else:
            self._shared_fd = fd

    async def close(self) -> None:
        """Its process ends when it sees the channel close."""
        self._channel.close()
        await self._link.close()
        try:
            self._process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _spawn(channel: socket.socket) -> subprocess.Popen[bytes]:
    """Raises: OSError."""
    return subprocess.Popen(
        [sys.executable, "-ISE", str(_SCRIPT), str(channel.fileno()), str(os.getpid())],
        pass_fds=[channel.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a terminal's Ctrl-C is for the process that it guards
    )
