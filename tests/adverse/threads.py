"""A script without an event loop, for the tests of the blocking client: `python -m tests.adverse.threads URL PREFIX KIND`."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import threading

import aegis_sdk
from aegis_sdk import AegisError, Context, Method, Service, blocking

from tests.adverse.serving import say

ECHO: Method[int, int] = Method("words", "echo", request=int, reply=int)
SLOW: Method[int, int] = Method("words", "slow", request=int, reply=int)


def words(begun: threading.Event | asyncio.Event, release: asyncio.Event) -> Service:
    service = Service("words")

    @service.handles(ECHO)
    async def echo(ctx: Context, n: int) -> int:
        return n

    @service.handles(SLOW)
    async def slow(ctx: Context, n: int) -> int:
        begun.set()
        await release.wait()
        return n

    return service


def interrupted(aegis: blocking.Aegis) -> None:
    """Ctrl-C while it waits; then it asks again."""
    aegis_sdk.configure_logs()
    say("ready")
    try:
        aegis.request(SLOW, 1, timeout_s=60.0)
    except KeyboardInterrupt:
        say("interrupted", reply=aegis.request(ECHO, 7))


def left_open(aegis: blocking.Aegis) -> None:
    """Nobody closes it, and other threads wait at the end."""
    threading.Thread(target=lambda: say("late", reply=aegis.request(ECHO, 3))).start()


def _in_child(aegis: blocking.Aegis) -> None:
    for verb in (
        lambda: aegis.request(ECHO, 1),
        lambda: aegis.submit(ECHO, 1),
        lambda: aegis.attach("a.1", ECHO),
        aegis.drain,
    ):
        try:
            verb()
        except AegisError as error:
            say("refused", error=type(error).__name__, text=str(error))
    aegis.close()
    with blocking.connect(*sys.argv[1:2], prefix=sys.argv[2]) as own:
        say("own", reply=own.request(ECHO, 5))


def forks(aegis: blocking.Aegis) -> None:
    child = os.fork()
    if not child:
        _in_child(aegis)
        sys.exit()  # as most programs end: what was registered for the end is run here, too
    os.waitpid(child, 0)
    say("parent", reply=aegis.request(ECHO, 2))


def pool(aegis: blocking.Aegis) -> None:
    """A child of multiprocessing, forked while other threads ask."""
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            aegis.request(ECHO, 1)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for each in asking:
        each.start()
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(aegis,))
    child.start()
    child.join(20)
    done.set()
    for each in asking:
        each.join()
    say("parent", reply=aegis.request(ECHO, 2), code=child.exitcode)


async def _async_in_child(aegis: aegis_sdk.Aegis) -> None:
    for verb in (
        aegis.request(ECHO, 1),
        aegis.submit(ECHO, 1),
        aegis.attach("a.1", ECHO),
        aegis.serve(words(threading.Event(), asyncio.Event())),
        aegis.drain(),
    ):
        try:
            await verb
        except AegisError as error:
            say("refused", error=type(error).__name__, text=str(error))
    await aegis.close()
    say("closed")


async def async_forks(url: str, prefix: str) -> None:
    """The asynchronous client, in a child with a loop of its own."""
    async with aegis_sdk.connect(url, prefix=prefix) as aegis:
        child = multiprocessing.get_context("fork").Process(
            target=lambda: asyncio.run(_async_in_child(aegis))
        )
        child.start()
        await asyncio.to_thread(child.join, 20)
        reply = await aegis.request(ECHO, 2)
        say("parent", reply=reply, code=child.exitcode)


if __name__ == "__main__":
    _, url_, prefix_, kind = sys.argv
    if kind == "async_forks":
        asyncio.run(async_forks(url_, prefix_))
    elif kind == "left_open":
        left_open(blocking.connect(url_, prefix=prefix_))
    else:
        with blocking.connect(url_, prefix=prefix_) as client:
            globals()[kind](client)
