"""The blocking client beside the asynchronous one: `python -m bench.blocking [--calls N] [--threads N]`.

Both ask one instance in a process of its own, in blocks that take turns, so that what else the machine does meets both. The
asynchronous client has a loop to itself, as the blocking one does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import aegis_sdk
from aegis_sdk import Aegis, Method, ResourceContext, Role, Service, blocking

from bench.small import system

ADD: Method[int, int] = Method("sums", "add", request=int, reply=int)
RESOURCES = [f"R{n}" for n in range(32)]
BLOCK = 100


async def serve(url: str) -> None:
    service = Service("sums")

    @service.handles(ADD)
    async def add(ctx: ResourceContext, n: int) -> int:
        total = (ctx.state.get("total", int) or 0) + n
        ctx.state.set("total", total)
        return total

    async with aegis_sdk.connect(url) as aegis:
        instance = await aegis.serve(service, resources=dict.fromkeys(RESOURCES, Role.AUTO))
        await instance.serve_forever()


def timed(call: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    call()
    return time.perf_counter() - began_s


async def asked(aegis: Aegis) -> list[float]:
    took_s = []
    for _ in range(BLOCK):
        began_s = time.perf_counter()
        await aegis.request(ADD, 1, resource="R0")
        took_s.append(time.perf_counter() - began_s)
    return took_s


def one_at_a_time(url: str, aegis: blocking.Aegis, calls: int) -> tuple[float, float]:
    """p50 of the asynchronous client and of the blocking one, in seconds."""
    theirs: list[float] = []
    ours: list[float] = []
    with asyncio.Runner() as runner:
        opening = aegis_sdk.connect(url)
        plain = runner.run(opening.__aenter__())
        try:
            runner.run(asked(plain))
            for _ in range(calls // BLOCK):
                theirs += runner.run(asked(plain))
                ours += [timed(lambda: aegis.request(ADD, 1, resource="R0")) for _ in range(BLOCK)]
        finally:
            runner.run(plain.close())
    return statistics.median(theirs), statistics.median(ours)


def by_threads(aegis: blocking.Aegis, threads: int, calls: int) -> tuple[float, bool]:
    """Calls a second of so many threads, and whether each call took effect once."""
    before = {resource: aegis.request(ADD, 0, resource=resource) for resource in RESOURCES}

    def work(n: int) -> int:
        return aegis.request(ADD, 1, resource=RESOURCES[n % len(RESOURCES)], timeout_s=30.0)

    with ThreadPoolExecutor(threads) as pool:
        took_s = timed(lambda: list(pool.map(work, range(calls))))
    after = {resource: aegis.request(ADD, 0, resource=resource) for resource in RESOURCES}
    return calls / took_s, sum(after.values()) - sum(before.values()) == calls


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.blocking", description=__doc__)
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--serve", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve))
        return 0
    with system() as made:
        made.start("bench.blocking", "--serve", made.url)
        with blocking.connect(made.url) as aegis:
            while True:
                try:
                    aegis.request(ADD, 0, resource="R0", timeout_s=30.0)
                    break
                except aegis_sdk.ContractError:  # nobody has registered it yet
                    time.sleep(0.1)
            theirs_s, ours_s = one_at_a_time(made.url, aegis, given.calls)
            rate_per_s, is_exact = by_threads(aegis, given.threads, given.calls)
    told = {
        "async_p50_ms": round(theirs_s * 1e3, 3),
        "blocking_p50_ms": round(ours_s * 1e3, 3),
        "ratio": round(ours_s / theirs_s, 2),
        "threads": given.threads,
        "calls_per_s": round(rate_per_s),
        "each_once": is_exact,
    }
    print(json.dumps(told))
    return 0 if is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
