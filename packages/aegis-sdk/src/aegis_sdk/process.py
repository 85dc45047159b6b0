"""What concerns this process as a whole: the signals that end it, and children that are forked from it.

The first SIGTERM or SIGINT drains every instance that runs in the process, in whichever loop. A second ends the process
at once. Signals are taken by `signal.signal`, not by a loop: so they work on Windows too, and while a handler blocks the
loop a second one still ends the process. When all instances are drained the process has `EXIT_S` to end. Something that
never returns, such as a thread that asyncio joins, must not keep it.

A forked child has copies of all sockets, so NATS would not notice its parent's death. They are cut off in the child, which
can't use them anyway: whatever was opened before the fork belongs to the parent. A handler that forks ends its child, or
it is ended when it comes back to the loop. A process has one of each, so this
module has what the others must not have: globals.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from aegis_sdk.errors import ContractError
from aegis_sdk.telemetry import log

EXIT_S: Final = 5.0
DRAINED_S_MAX: Final = 15.0
"""Longer than a drain may take, its leaving included; a loop that is blocked drains nothing."""
LOOK_S: Final = 0.05
FORKED: Final = (
    "this client was opened before this process was forked, and belongs to the parent: connect in the child"
)
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

Drain = Callable[[str], None]

_drains: dict[Drain, asyncio.AbstractEventLoop] = {}
_handlers_before: dict[signal.Signals, Any] = {}
_waiting = 0
"""How many wait for the end of an instance now, with signals."""
_came = False
_ending = ""
"""The first signal's name, from when it came: the process has not long to live."""
_forking: asyncio.AbstractEventLoop | None = None
"""The loop that runs in the thread that forks just now."""
_forked: dict[object, Callable[[], None]] = {}


# --- signals ----------------------------------------------------------------------------------------------
def drain_on_signal(drain: Drain) -> None:
    """`drain` is called, on this loop, with the name of the first signal that comes while one waits for its end,
    or soon when it came already.
    """
    _drains[drain] = loop = asyncio.get_running_loop()
    if _ending:
        loop.call_soon(drain, _ending)


def drained(drain: Drain) -> None:
    _drains.pop(drain, None)


def serves_on(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether an instance is served on it: who blocks it holds that up."""
    return loop in _drains.values()


@contextlib.contextmanager
def signals_drain() -> Iterator[None]:
    """Signals drain as long as this is entered, by any of several; nothing is done where there can be no handlers."""
    global _waiting  # noqa: PLW0603 - see the module
    _waiting += 1
    if not _handlers_before:
        _take_signals()
    try:
        yield
    finally:
        _waiting -= 1
        if not _waiting:
            _give_signals_back()


def _take_signals() -> None:
    for number in SIGNALS:
        try:
            _handlers_before[number] = signal.signal(number, _on_signal)
        except (ValueError, OSError, RuntimeError) as error:  # not the main thread, or not here
            log.warning("signals_not_handled", signal=number.name, error=str(error))
            return


def _give_signals_back() -> None:
    global _came  # noqa: PLW0603 - see the module
    if threading.current_thread() is threading.main_thread():
        for number, before in _handlers_before.items():
            if signal.getsignal(number) is _on_signal:
                signal.signal(number, signal.SIG_DFL if before is None else before)
        _handlers_before.clear()
        _came = False


def _on_signal(number: int, _: object) -> None:
    global _came, _ending
    if _came:
        os._exit(128 + number)
    _came, _ending = True, signal.Signals(number).name
    threading.Thread(target=_end_late, name="aegis-exit", daemon=True).start()
    for drain, loop in list(_drains.items()):
        with contextlib.suppress(RuntimeError):  # its loop is closed
            loop.call_soon_threadsafe(drain, _ending)


def _end_late() -> None:
    """The interpreter's end kills this thread, unless something keeps it from ending."""
    give_up_s = time.monotonic() + DRAINED_S_MAX
    while _drains and time.monotonic() < give_up_s:
        time.sleep(LOOK_S)
    time.sleep(EXIT_S)
    kept = [thread.name for thread in threading.enumerate() if not thread.daemon]
    log.error("process_did_not_end", instances=len(_drains), threads=kept)
    time.sleep(LOOK_S)  # for the log
    os._exit(1)


def end_as_pid_1() -> None:
    """The first process of a container ignores SIGTERM unless it has a handler: until an instance has one, have this."""
    with contextlib.suppress(ValueError):  # not in the main thread
        if os.getpid() == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


# --- loops ------------------------------------------------------------------------------------------------
def check_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Raises: ContractError, unless it is `loop` that runs here."""
    if asyncio._get_running_loop() is not loop:
        raise ContractError(
            "this client belongs to another event loop than the one that runs here, or none does: connect in this"
            " one; threads share an aegis_sdk.blocking.connect(), a handler in a thread has ctx.request_blocking"
        )


# --- forks ------------------------------------------------------------------------------------------------
def when_forked(key: object, action: Callable[[], None]) -> None:
    """Call `action` in each child that is forked from now on, until `forget_fork(key)`."""
    _forked[key] = action


def forget_fork(key: object) -> None:
    _forked.pop(key, None)


def cut_off(fd: int) -> None:
    """Let go of what `fd` is, but keep its number taken: whatever has it would close another's file later."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, fd, inheritable=False)
    os.close(nothing)


def end_child(code: int = 1) -> None:
    """In a forked child that comes back to where its parent goes on, as one more of it: nobody waits there."""
    log.error(
        "forked_child_ended",
        pid=os.getpid(),
        reason="it came back to its parent's event loop: end it by os._exit, or use subprocess or multiprocessing",
    )
    time.sleep(LOOK_S)  # for the log
    os._exit(code)


def _before_fork() -> None:
    global _forking  # noqa: PLW0603 - see the module
    _forking = asyncio._get_running_loop()


def _in_child() -> None:
    global _ending  # noqa: PLW0603 - see the module
    if _forking is not None and _forked:
        _forking.call_soon(end_child)
    for action in list(_forked.values()):
        with contextlib.suppress(Exception):
            action()
    _forked.clear()
    _drains.clear()
    _ending = ""
    _give_signals_back()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)
