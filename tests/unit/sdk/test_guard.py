"""The guard's process: it speaks for one that is busy, and for no other."""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from aegis_sdk.infrastructure import guard_process

INTERVAL_S = 0.05
BEAT = json.dumps({"n": 7, "loop_lag_s": 0.5}).encode()
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the guard is for Linux")


class Guarded:
    """A process that is guarded, and the far end of the connection that the guard speaks on."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["sleep", "60"])
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours, self.heard = socket.socketpair()
        memory = os.memfd_create("shared")
        os.ftruncate(memory, guard_process.SHARED_BYTES)
        self.shared = mmap.mmap(memory, guard_process.SHARED_BYTES)
        fds = [theirs.fileno(), memory]
        arguments = [*fds, self.process.pid]
        command = [sys.executable, "-ISE", guard_process.__file__, *map(str, arguments)]
        self.guard = subprocess.Popen(command, pass_fds=fds)
        theirs.close()
        os.close(memory)

    def connect(self, interval_s: float = INTERVAL_S) -> None:
        """Give it the connection to speak on, as is done once for each."""
        message = {"subject": "hb.a", "interval_s": interval_s}
        socket.send_fds(self.channel, [json.dumps(message).encode()], [self._ours.fileno()])

    def beat(self) -> None:
        guard_process.write(self.shared, BEAT, time.monotonic())

    def hear(self, timeout_s: float) -> dict[str, float] | None:
        """The next heartbeat that the guard sent, or None."""
        self.heard.settimeout(timeout_s)
        try:
            line, payload = self.heard.recv(4096).split(b"\r\n")[:2]
        except TimeoutError:
            return None
        assert line == b"PUB hb.a %d" % len(payload)
        beat: dict[str, float] = json.loads(payload)
        return beat

    def end(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait()
        assert self.guard.wait(timeout=5) == 0
        self.shared.close()
        for end in (self._ours, self.heard):
            end.close()


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    made = Guarded()
    yield made
    made.end()


def test_it_says_how_long_a_busy_process_has_been_silent(guarded: Guarded) -> None:
    guarded.beat()
    guarded.connect()
    first, second = guarded.hear(5), guarded.hear(5)
    assert first is not None
    assert second is not None
    assert 0.5 + INTERVAL_S < first["loop_lag_s"] < second["loop_lag_s"]
    assert first["n"] == 7


def test_it_is_silent_while_heartbeats_come(guarded: Guarded) -> None:
    """Though each wakes it as little as this: no message, a time in shared memory."""
    guarded.beat()
    guarded.connect(interval_s=0.5)
    for _ in range(24):
        guarded.beat()
        assert guarded.hear(INTERVAL_S) is None
    assert guarded.hear(5) is not None


def test_a_heartbeat_that_is_half_written_is_no_heartbeat() -> None:
    shared = mmap.mmap(-1, guard_process.SHARED_BYTES)
    guard_process.write(shared, BEAT, 3.5)
    assert guard_process.read(shared) == (3.5, BEAT)
    shared[20] ^= 1
    assert guard_process.read(shared) == (3.5, b"")


def test_it_is_silent_for_a_stopped_process(guarded: Guarded) -> None:
    os.kill(guarded.process.pid, signal.SIGSTOP)
    guarded.beat()
    guarded.connect()
    assert guarded.hear(10 * INTERVAL_S) is None
    os.kill(guarded.process.pid, signal.SIGCONT)
    assert guarded.hear(5) is not None


def test_it_ends_when_its_process_has_died(guarded: Guarded) -> None:
    """Though somebody else, a child say, still holds the channel open."""
    guarded.beat()
    guarded.connect()
    guarded.process.kill()
    guarded.process.wait()
    assert guarded.guard.wait(timeout=5) == 0


def test_it_ends_when_the_channel_closes(guarded: Guarded) -> None:
    guarded.channel.close()
    assert guarded.guard.wait(timeout=5) == 0
