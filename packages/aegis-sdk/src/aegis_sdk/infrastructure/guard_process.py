"""Speaks for a process whose interpreter is held, so that it is not taken for dead.

Run as a script by `Guard` (guard.py), with the standard library alone, so that it costs little. It finds
each heartbeat in memory that both share, so that it is woken by none, and looks when the next one could be
late. If it is, it looks at the process: one that runs or waits is busy (a long garbage collection, C code
that keeps the interpreter's lock), and its heartbeat is sent on, with the silence added to its loop's
lag. One that was stopped or has died is left silent.

The silence counts as lag, so that control can go on telling busy from stalled: a process whose interpreter is held for
longer than `stall_limit_s` loses its resources, guard or not (ADR 0012). What the guard spares it is to be taken for dead
after the shorter heartbeat timeout.

A heartbeat is read while it may be written, without a lock. A checksum tells whether it is whole; if not, the next look
finds it.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import socket
import struct
import sys
import time
import zlib

SHARED_BYTES = 4096
_HEAD = struct.Struct("=dII")
"""When the heartbeat was written (the machine's monotonic clock), its length and checksum."""
_SILENT_INTERVALS = 1.5
_ALIVE = "RSD"
"""Running, sleeping, waiting for a disk; neither stopped, nor traced, nor dead (proc(5))."""


def write(shared: mmap.mmap, beat: bytes, now_s: float) -> None:
    """Lay a heartbeat into the shared memory, for `read`."""
    head = _HEAD.pack(now_s, len(beat), zlib.crc32(beat))
    shared[: len(head) + len(beat)] = head + beat


def read(shared: mmap.mmap) -> tuple[float, bytes]:
    """(when it was written, heartbeat); empty when it is being written just now."""
    at_s, size, checksum = _HEAD.unpack_from(shared)
    beat = shared[_HEAD.size : _HEAD.size + size]
    return at_s, beat if zlib.crc32(beat) == checksum else b""


def main(channel: socket.socket, shared: mmap.mmap, pid: int) -> None:
    """Ends when the process does."""
    began = _stat(pid)[1]
    connection: socket.socket | None = None
    subject, interval_s, wait_s = "", 0.0, None
    while True:
        readable, _, _ = select.select([channel], [], [], wait_s)
        if readable:
            data, fds, _, _ = socket.recv_fds(channel, 4096, 1)
            if not data:
                return
            for fd in fds:
                connection = socket.socket(fileno=fd)
            told = json.loads(data)
            subject, interval_s = told["subject"], told["interval_s"]
        heard_s, beat = read(shared)
        silence_s = time.monotonic() - heard_s
        wait_s = _SILENT_INTERVALS * interval_s - silence_s
        if wait_s > 0:
            continue
        wait_s = interval_s
        state, is_from = _stat(pid)
        if not began or is_from != began:
            return
        if state in _ALIVE and connection is not None and beat:
            _send(connection, subject, beat, silence_s)


def _stat(pid: int) -> tuple[str, str]:
    """(state, start time) of a process; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - pathlib doubles the start
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]


def _send(connection: socket.socket, subject: str, beat: bytes, silence_s: float) -> None:
    told = json.loads(beat)
    told["loop_lag_s"] = round(told["loop_lag_s"] + silence_s, 4)
    payload = json.dumps(told).encode()
    command = b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(payload), payload)
    try:
        connection.send(command, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        return  # the connection is gone; the process makes another when it runs again


if __name__ == "__main__":
    channel_fd, memory_fd, its_pid = map(int, sys.argv[1:])
    try:
        main(socket.socket(fileno=channel_fd), mmap.mmap(memory_fd, SHARED_BYTES), its_pid)
    except (KeyboardInterrupt, OSError):
        os._exit(0)
