"""The guard's process: it speaks for one that is busy, and for no other."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aegis_sdk.infrastructure import guard

INTERVAL_S = 0.05
BEAT = json.dumps({"n": 7, "loop_lag_s": 0.5})
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the guard is for Linux")


class Guarded:
    """A process that is guarded, and the far end of the connection that the guard speaks on."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["sleep", "60"])
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours, self.heard = socket.socketpair()
        script = str(Path(guard.__file__).with_name("guard_process.py"))
        command = [sys.executable, "-ISE", script, str(theirs.fileno()), str(self.process.pid)]
        self.guard = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()

    def beat(self) -> None:
        message = {"subject": "hb.a", "beat": BEAT, "interval_s": INTERVAL_S}
        socket.send_fds(self.channel, [json.dumps(message).encode()], [self._ours.fileno()])

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
        for end in (self._ours, self.heard):
            end.close()


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    made = Guarded()
    yield made
    made.end()


def test_it_says_how_long_a_busy_process_has_been_silent(guarded: Guarded) -> None:
    guarded.beat()
    first, second = guarded.hear(5), guarded.hear(5)
    assert first is not None
    assert second is not None
    assert 0.5 + INTERVAL_S < first["loop_lag_s"] < second["loop_lag_s"]
    assert first["n"] == 7


def test_it_is_silent_for_a_stopped_process(guarded: Guarded) -> None:
    os.kill(guarded.process.pid, signal.SIGSTOP)
    guarded.beat()
    assert guarded.hear(10 * INTERVAL_S) is None
    os.kill(guarded.process.pid, signal.SIGCONT)
    assert guarded.hear(5) is not None


def test_it_ends_when_its_process_has_died(guarded: Guarded) -> None:
    """Though somebody else, a child say, still holds the channel open."""
    guarded.beat()
    guarded.process.kill()
    guarded.process.wait()
    assert guarded.guard.wait(timeout=5) == 0


def test_it_ends_when_the_channel_closes(guarded: Guarded) -> None:
    guarded.channel.close()
    assert guarded.guard.wait(timeout=5) == 0
