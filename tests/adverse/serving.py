"""A process for the tests of processes: `python -m tests.adverse.serving URL KIND`. It says JSON lines."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time

import aegis_sdk
from aegis_sdk import Aegis, Context, Method, Service, process
from aegis_sdk.infrastructure.guard import Guard

ECHO: Method[int, int] = Method("echo", "echo", request=int, reply=int)
WEDGE: Method[int, int] = Method("echo", "wedge", request=int, reply=int)
NAP: Method[int, int] = Method("echo", "nap", request=int, reply=int)
FORK: Method[int, int] = Method("echo", "fork", request=int, reply=int)
FORK_PLAIN: Method[int, int] = Method("echo", "fork_plain", request=int, reply=int)
OTHER: Method[int, int] = Method("other", "echo", request=int, reply=int)


def say_ready() -> None:
    """Once signals are heard: `serve_forever`, which comes next, begins with that."""
    asyncio.get_running_loop().call_soon(say, "ready")


def say(event: str, **more: object) -> None:
    """In one write: a forked child speaks on the same pipe."""
    os.write(1, json.dumps({"event": event, **more}).encode() + b"\n")


def echo() -> Service:
    service = Service("echo")

    @service.handles(ECHO)
    async def echo_(ctx: Context, n: int) -> int:
        return n

    @service.handles(NAP)
    async def nap(ctx: Context, n: int) -> int:
        say("napping")
        await asyncio.sleep(n / 1000)
        return n

    @service.handles(WEDGE)
    def wedge(ctx: Context, n: int) -> int:
        say("wedged")
        threading.Event().wait()
        return n

    @service.handles(FORK)
    async def fork_(ctx: Context, n: int) -> int:
        if not (child := os.fork()):
            return n
        await asyncio.to_thread(os.waitpid, child, 0)
        return n + 1

    @service.handles(FORK_PLAIN)
    def fork_plain(ctx: Context, n: int) -> int:
        if not (child := os.fork()):
            sys.exit()
        os.waitpid(child, 0)
        return n + 1

    return service


def other() -> Service:
    service = Service("other")

    @service.handles(OTHER)
    async def echo_(ctx: Context, n: int) -> int:
        return n

    return service


async def two(aegis: Aegis) -> None:
    """Two services; each waits for its end."""
    instances = await asyncio.gather(aegis.serve(echo()), aegis.serve(other()))

    async def end(n: int) -> None:
        await instances[n].serve_forever()
        say("ended", service=instances[n].service)

    ends = asyncio.gather(end(0), end(1))
    say_ready()
    await ends


async def late(aegis: Aegis) -> None:
    """The second service begins after the signal that ended the first."""
    first = await aegis.serve(echo())
    say_ready()
    await first.serve_forever()
    second = await aegis.serve(other())
    await second.serve_forever()
    say("ended", service="other")


async def one(aegis: Aegis) -> None:
    instance = await aegis.serve(echo(), instance_id="one")
    say_ready()
    await instance.serve_forever()
    say("ended", service="echo")


async def joined(aegis: Aegis) -> None:
    """Something else than a handler never returns: asyncio joins its own threads at the end."""
    instance = await aegis.serve(echo())
    stuck = asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    say_ready()
    await instance.serve_forever()
    say("ended", stuck=not stuck.done())


async def frozen(aegis: Aegis) -> None:
    """As PyInstaller has it: the interpreter is this very program."""
    sys.executable = "/bin/echo"
    await one(aegis)


async def bare(aegis: Aegis) -> None:
    """Neither shared memory nor handlers of signals, as elsewhere than on Linux."""
    del os.memfd_create
    await one(aegis)


def _has_guard() -> bool:
    return any(isinstance(key, Guard) for key in list(process._forked))


def inherit(aegis: Aegis) -> None:
    try:
        aegis.request(ECHO, 1).send(None)
    except BaseException as error:
        say("refused", error=type(error).__name__, text=str(error))
    time.sleep(8)
    os._exit(0)


async def fork(aegis: Aegis) -> None:
    """A child lives on when this process is killed, and tries to use what it has inherited."""
    instance = await aegis.serve(echo(), instance_id="one")
    async with asyncio.timeout(10):
        while not _has_guard():  # noqa: ASYNC110 - it starts in a thread
            await asyncio.sleep(0.01)
    child = os.fork()
    if not child:
        inherit(aegis)
    say("ready", child=child)
    await instance.serve_forever()


KINDS = {each.__name__: each for each in (two, late, one, joined, frozen, bare, fork)}


async def main(url: str, kind: str) -> None:
    aegis_sdk.configure_logs()
    async with aegis_sdk.connect(url, wait_s=30.0) as aegis:
        await KINDS[kind](aegis)


def in_a_thread(url: str) -> None:
    """The main thread does something else."""
    thread = threading.Thread(target=lambda: asyncio.run(main(url, "bare")), daemon=True)
    thread.start()
    thread.join(60)


if __name__ == "__main__":
    if sys.argv[2] == "thread":
        in_a_thread(sys.argv[1])
    else:
        asyncio.run(main(*sys.argv[1:]))
