"""A call of a resource with many timers beside one without any: `python -m bench.timers [--calls N] [--timers N]`.

Both are asked at one instance in a process of its own, in blocks that take turns, so that what else the machine does meets both. Then the
same with a timer that is set and dropped by each call. In the end all timers come due within a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence

import aegis_sdk
from aegis_sdk import Aegis, AegisError, Method, ResourceContext, Role, Service

from bench.small import system

ADD: Method[int, int] = Method("sums", "add", request=int, reply=int)
SWAP: Method[int, int] = Method("sums", "swap", request=int, reply=int)
"""`add`, and a timer that is set, in place of the one of the call before, which is dropped."""
ARM: Method[tuple[int, int, float], int] = Method(
    "sums", "arm", request=tuple[int, int, float], reply=int
)
"""(from which number, how many, due at which Unix time): timers that count."""
FIRED: Method[int, int] = Method("sums", "fired", request=int, reply=int)
PLAIN, ARMED = "PLAIN", "ARMED"
BLOCK = 100
ARMED_AT_ONCE = 500
FAR_S = 86_400.0


def sums() -> Service:
    service = Service("sums")

    def add(ctx: ResourceContext, n: int) -> int:
        total = (ctx.state.get("total", int) or 0) + n
        ctx.state.set("total", total)
        return total

    def swap(ctx: ResourceContext, n: int) -> int:
        total = add(ctx, n)
        ctx.drop_timer(f"swap {total - 1}")
        ctx.later(FIRED, 1, after_s=FAR_S, name=f"swap {total}")
        return total

    def arm(ctx: ResourceContext, asked: tuple[int, int, float]) -> int:
        first, count, due_s = asked
        for n in range(first, first + count):
            ctx.later(FIRED, 1, after_s=max(0.0, due_s - time.time()), name=f"armed {n}")
        return len(ctx.timers)

    def fired(ctx: ResourceContext, n: int) -> int:
        count = (ctx.state.get("fired", int) or 0) + n
        ctx.state.set("fired", count)
        return count

    service.handles(ADD, pure=True)(add)
    service.handles(SWAP, pure=True)(swap)
    service.handles(ARM, pure=True)(arm)
    service.handles(FIRED, pure=True)(fired)
    return service


async def serve(url: str) -> None:
    async with aegis_sdk.connect(url) as aegis:
        instance = await aegis.serve(sums(), resources=dict.fromkeys((PLAIN, ARMED), Role.AUTO))
        await instance.serve_forever()


async def asked(aegis: Aegis, method: Method[int, int], resource: str) -> list[float]:
    took_s = []
    for _ in range(BLOCK):
        began_s = time.perf_counter()
        await aegis.request(method, 1, resource=resource, timeout_s=30.0)
        took_s.append(time.perf_counter() - began_s)
    return took_s


async def side_by_side(aegis: Aegis, method: Method[int, int], calls: int) -> dict[str, float]:
    """p50 and p99 of the resource without timers, and of the one with them, in ms."""
    took_s: dict[str, list[float]] = {PLAIN: [], ARMED: []}
    for _ in range(calls // BLOCK):
        for resource in took_s:
            took_s[resource] += await asked(aegis, method, resource)
    return {
        f"{resource.lower()}_{name}_ms": round(of(all_s) * 1e3, 3)
        for resource, all_s in took_s.items()
        for name, of in (("p50", statistics.median), ("p99", _p99))
    }


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[len(values) * 99 // 100]


async def arm(aegis: Aegis, timers: int, due_s: float) -> float:
    """Seconds that it took."""
    began_s = time.perf_counter()
    for first in range(0, timers, ARMED_AT_ONCE):
        count = min(ARMED_AT_ONCE, timers - first)
        await aegis.request(ARM, (first, count, due_s), resource=ARMED, timeout_s=30.0)
    return time.perf_counter() - began_s


async def fire(aegis: Aegis, timers: int) -> dict[str, float]:
    """All of them come due, and calls go on meanwhile."""
    await arm(aegis, timers, time.time() + 1.0 + timers / 5_000)  # each replaces its old one
    waits_s: list[float] = []
    began_s, first_s = 0.0, time.perf_counter()
    while (fired := await aegis.request(FIRED, 0, resource=ARMED, timeout_s=30.0)) < timers:
        if fired == 0 or not began_s:
            began_s = time.perf_counter()
        else:
            waits_s += await asked_once(aegis)
        if time.perf_counter() - first_s > 120.0:
            raise TimeoutError(f"{fired} of {timers} have fired in 120 s")
    took_s = time.perf_counter() - began_s
    p50_s = statistics.median(waits_s) if waits_s else 0.0
    return {"fired_s": round(took_s, 2), "call_meanwhile_p50_ms": round(p50_s * 1e3, 2)}


async def asked_once(aegis: Aegis) -> list[float]:
    began_s = time.perf_counter()
    await aegis.request(ADD, 1, resource=ARMED, timeout_s=30.0)
    return [time.perf_counter() - began_s]


async def measure(url: str, calls: int, timers: int) -> dict[str, object]:
    async with aegis_sdk.connect(url) as aegis:
        while True:
            try:
                await aegis.request(ADD, 0, resource=ARMED, timeout_s=30.0)
                break
            except AegisError:  # nobody serves it yet
                await asyncio.sleep(0.1)
        armed_s = await arm(aegis, timers, time.time() + FAR_S)
        await side_by_side(aegis, ADD, 2 * BLOCK)
        return {
            "timers": timers,
            "armed_s": round(armed_s, 2),
            "call": await side_by_side(aegis, ADD, calls),
            "call_that_sets_and_drops": await side_by_side(aegis, SWAP, calls),
            **await fire(aegis, timers),
        }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.timers", description=__doc__)
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--timers", type=int, default=10_000)
    parser.add_argument("--serve", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve))
        return 0
    with system() as made:
        made.start("bench.timers", "--serve", made.url)
        print(json.dumps(asyncio.run(measure(made.url, given.calls, given.timers))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
