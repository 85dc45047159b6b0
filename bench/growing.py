"""What callers see when a service grows: `python -m bench.growing [--resources N] [--instances N] [--rate N] [--explicit]`.

NATS, control and each instance are processes of their own. All resources are asked once, and control spreads them. Then one
instance more joins under an open loop of calls, whose latency counts from their intended times. Last, resources are asked for
that nobody ever had: one by one, and a thousand at the same moment.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import aegis_sdk
from aegis_control.infrastructure.admin_client import AdminClient, AdminError
from aegis_sdk import Aegis, Method, ResourceContext, Resources, Role, Service

from bench.runner import say
from bench.small import System, system

ADD: Method[int, int] = Method("sums", "add", request=int, reply=int)
SERVICE = "sums"
UNEVEN = 0.05
"""Of its share, that an instance may have more or less."""
SPREAD_S_MAX = 120.0
CALM_S = 5.0
TIMEOUT_S = 30.0
AT_ONCE = 256


def sums() -> Service:
    service = Service(SERVICE)

    @service.handles(ADD, pure=True)
    def add(ctx: ResourceContext, n: int) -> int:
        total = (ctx.state.get("total", int) or 0) + n
        ctx.state.set("total", total)
        return total

    return service


async def serve(url: str, named: int) -> None:
    """`named`: so many resources by their names; 0: on demand."""
    async with aegis_sdk.connect(url) as aegis:
        names = dict.fromkeys(names_of(named), Role.AUTO)
        instance = await aegis.serve(sums(), resources=names or Resources("*", idle_s=None))
        await instance.serve_forever()


def names_of(count: int) -> list[str]:
    return [f"R-{n}" for n in range(count)]


def join(made: System, named: int) -> None:
    """One instance more."""
    made.start("bench.growing", "--serve", made.url, "--named", str(named))


async def asked(aegis: Aegis, names: Sequence[str]) -> list[float]:
    """Each once, many side by side; what each took, in s."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> float:
        async with slots:
            began_s = time.perf_counter()
            await aegis.request(ADD, 1, resource=name, timeout_s=TIMEOUT_S)
            return time.perf_counter() - began_s

    return list(await asyncio.gather(*map(one, names)))


async def shares(operator: AdminClient) -> Counter[str]:
    """For how many resources each instance is active."""
    try:
        found = [each for each in await operator.list_services() if each.service == SERVICE]
    except AdminError:  # control has no leader yet
        found = []
    return Counter({one.instance_id: one.active for each in found for one in each.instances})


async def until_even(
    operator: AdminClient, instances: int, resources: int
) -> tuple[float, list[int]]:
    """How long that took, in s, and what each has."""
    began_s, share = time.monotonic(), resources / instances
    while time.monotonic() - began_s < SPREAD_S_MAX:
        held = await shares(operator)
        near = [abs(n - share) <= max(1.0, UNEVEN * share) for n in held.values()]
        if len(near) == instances and all(near):
            break
        await asyncio.sleep(0.1)
    return time.monotonic() - began_s, sorted((await shares(operator)).values())


class OpenLoop:
    """Calls at their times, of resources by chance, until it is stopped."""

    def __init__(self, aegis: Aegis, names: Sequence[str], rate: float) -> None:
        self._aegis = aegis
        self._names = names
        self._chance = random.Random(1)
        self._rate = rate
        self._calls: set[asyncio.Task[None]] = set()
        self.waits: list[tuple[float, float]] = []
        """(intended time, wait) of each, in s."""
        self.errors = 0
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        due_s = time.monotonic()
        while True:
            due_s += self._chance.expovariate(self._rate)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            call = asyncio.create_task(self._call(due_s))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _call(self, due_s: float) -> None:
        try:
            await self._aegis.request(
                ADD, 1, resource=self._chance.choice(self._names), timeout_s=TIMEOUT_S
            )
        except aegis_sdk.AegisError:
            self.errors += 1
        self.waits.append((due_s, time.monotonic() - due_s))

    async def stop(self) -> None:
        self._running.cancel()
        await asyncio.gather(*self._calls)

    def between(self, began_s: float, ended_s: float) -> dict[str, float]:
        waits_s = sorted(wait for due_s, wait in self.waits if began_s <= due_s <= ended_s)
        return {
            "calls": len(waits_s),
            "p50_ms": _ms(statistics.median(waits_s)),
            "p99_ms": _ms(waits_s[len(waits_s) * 99 // 100]),
            "longest_ms": _ms(waits_s[-1]),
        }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 2)


async def one_joins(
    made: System, aegis: Aegis, operator: AdminClient, given: argparse.Namespace
) -> dict[str, object]:
    say(f"one more joins, under {given.rate:g} calls a second")
    load = OpenLoop(aegis, names_of(given.resources), given.rate)
    await asyncio.sleep(CALM_S)
    started_s = time.monotonic()
    join(made, _named(given))
    await _until(lambda: _there(operator, given.instances + 1))
    joined_s = time.monotonic()
    took_s, active = await until_even(operator, given.instances + 1, given.resources)
    ended_s = time.monotonic()
    await load.stop()
    return {
        "before": load.between(started_s - CALM_S, started_s),
        "while_its_process_starts": load.between(started_s, joined_s),
        "while_it_spreads": load.between(joined_s, ended_s),
        "spread_s": round(took_s, 2),
        "active": active,
        "errors": load.errors,
    }


async def new_ones(aegis: Aegis) -> dict[str, float]:
    say("resources that nobody ever had")
    took_s = [(await asked(aegis, [f"NEW-{n}"]))[0] for n in range(100)]
    began_s = time.perf_counter()
    await asyncio.gather(
        *(aegis.request(ADD, 1, resource=f"MANY-{n}", timeout_s=TIMEOUT_S) for n in range(1000))
    )
    return {
        "first_call_p50_ms": _ms(statistics.median(took_s)),
        "first_call_longest_ms": _ms(max(took_s)),
        "a_thousand_s": round(time.perf_counter() - began_s, 2),
    }


async def measure(made: System, given: argparse.Namespace) -> dict[str, object]:
    for _ in range(given.instances):
        join(made, _named(given))
    async with aegis_sdk.connect(made.url) as aegis, AdminClient(made.url) as operator:
        await _until(lambda: _there(operator, given.instances))
        say(f"{given.instances} instances: each of {given.resources} resources is asked once")
        began_s = time.perf_counter()
        await asked(aegis, names_of(given.resources))
        asked_s = time.perf_counter() - began_s
        _, active = await until_even(operator, given.instances, given.resources)
        return {
            "resources": given.resources,
            "all_asked_s": round(asked_s, 2),
            "active": active,
            "one_joins": await one_joins(made, aegis, operator, given),
            **({} if given.explicit else {"new": await new_ones(aegis)}),
        }


def _named(given: argparse.Namespace) -> int:
    return given.resources if given.explicit else 0


async def _there(operator: AdminClient, instances: int) -> bool:
    return len(await shares(operator)) >= instances


async def _until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SPREAD_S_MAX):
        while not await true():  # noqa: ASYNC110 - control sets no event
            await asyncio.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.growing", description=__doc__)
    parser.add_argument("--resources", type=int, default=3_000)
    parser.add_argument("--instances", type=int, default=3, help="before one more joins")
    parser.add_argument("--rate", type=float, default=400.0, help="calls a second")
    parser.add_argument("--explicit", action="store_true", help="resources by name, not on demand")
    parser.add_argument("--serve", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--named", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve, given.named))
        return 0
    with system() as made:
        print(json.dumps(asyncio.run(measure(made, given))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
