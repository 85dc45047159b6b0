"""Speaks for a process whose interpreter is held, so that it is not taken for dead.

Run as a script by `Guard` (guard.py), with the standard library alone, so that it costs little. It is
given each heartbeat. When none comes in time, it looks at the process: one that runs or waits is busy (a
long garbage collection, C code that keeps the interpreter's lock), and its heartbeat is sent on, with
the silence added to its loop's lag. One that was stopped or has died is left silent.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time

_SILENT_INTERVALS = 1.5
_ALIVE = "RSD"
"""Running, sleeping, waiting for a disk; neither stopped, nor traced, nor dead (proc(5))."""


def main(channel: socket.socket, pid: int) -> None:
    """Ends when the process does."""
    began = _stat(pid)[1]
    connection: socket.socket | None = None
    told: dict[str, object] = {}
    heard_s, wait_s = time.monotonic(), None
    while True:
        readable, _, _ = select.select([channel], [], [], wait_s)
        if readable:
            data, fds, _, _ = socket.recv_fds(channel, 65536, 1)
            if not data:
                return
            for fd in fds:
                connection = socket.socket(fileno=fd)
            told, heard_s = json.loads(data), time.monotonic()
            wait_s = _SILENT_INTERVALS * float(str(told["interval_s"]))
            continue
        state, is_from = _stat(pid)
        if not began or is_from != began:
            return
        wait_s = float(str(told["interval_s"]))
        if state in _ALIVE and connection is not None:
            _send(connection, told, time.monotonic() - heard_s)


def _stat(pid: int) -> tuple[str, str]:
    """(state, start time) of a process; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - pathlib doubles the start
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]


def _send(connection: socket.socket, told: dict[str, object], silence_s: float) -> None:
    beat = json.loads(str(told["beat"]))
    beat["loop_lag_s"] = round(beat["loop_lag_s"] + silence_s, 4)
    payload = json.dumps(beat).encode()
    command = b"PUB %s %d\r\n%s\r\n" % (str(told["subject"]).encode(), len(payload), payload)
    try:
        connection.send(command, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        return  # the connection is gone; the process makes another when it runs again


if __name__ == "__main__":
    try:
        main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
    except (KeyboardInterrupt, OSError):
        os._exit(0)
