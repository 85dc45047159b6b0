"""Timers of real processes: killed before, at and after the due times, and put to sleep over them."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from typing import Any, Final

from aegis_sdk.contract.envelope import OutcomeKind
from aegis_sdk.infrastructure.turns.assembly import TurnClient

from tests.integration.turns.support import WAIT_S, Owners, Told, Worker, World, read_log
from tests.integration.turns.timing_worker import TICK, timing

TIMING: Final = "tests.integration.turns.timing_worker"
LATE_S: Final = 0.05
"""What is promised of an active that lives."""
BUSY_S: Final = 1.0
"""What this machine may add while other tests run on it."""


async def two(world: World) -> tuple[Worker, Worker, Owners, TurnClient]:
    """The first one is the owner of A."""
    first, second = await asyncio.gather(
        *(Worker.start(world, f"accounts-{n}", ["A"], module=TIMING) for n in (1, 2))
    )
    owners = Owners(await world.link(), world.names)
    await owners.move({"A": first.writer})
    return first, second, owners, await world.client()


async def ask(client: TurnClient, method: str, payload: Any) -> Any:
    body = json.dumps(payload).encode()
    outcome = await Told().call_with(client, "A", method, body)
    return json.loads(outcome.body)


async def set_all(client: TurnClient, waits_s: list[float]) -> dict[str, float]:
    """When each is due at the earliest, by name; every third one's handler waits."""
    due: dict[str, float] = {}
    for n, wait_s in enumerate(waits_s):
        due[str(n)] = time.time() + wait_s
        await ask(client, "set", {"name": str(n), "after_s": wait_s, "slowly": n % 3 == 0})
    return due


async def ticked(client: TurnClient, count: int) -> list[tuple[str, float, str]]:
    """When so many have fired."""
    async with asyncio.timeout(WAIT_S):
        while len(found := await ask(client, "ticks", "")) < count:  # noqa: ASYNC110 - the log's
            await asyncio.sleep(0.05)
    return [(name, at_s, by) for name, at_s, by in found]


async def once_each(world: World) -> None:
    """By the log: none of them has two outcomes."""
    stored, _ = await read_log(world)
    fired = {name: outcomes for name, outcomes in stored.items() if ".@" in name}
    assert {name for name, outcomes in fired.items() if len(outcomes) > 1} == set()


async def test_a_killed_active_s_timers_fire_once_each_at_the_next_one(small_world: World) -> None:
    """G2, G3: some were fired, one is under way, some come due while nobody serves, some later."""
    first, second, owners, client = await two(small_world)
    due = await set_all(client, [0.3 + n / 20 for n in range(24)])
    await asyncio.sleep(max(0.0, due["8"] - time.time()))
    first.send(signal.SIGKILL)
    await asyncio.sleep(0.3)
    await owners.move({"A": second.writer})
    found = await ticked(client, len(due))
    await asyncio.sleep(0.3)
    assert len(await ask(client, "ticks", "")) == len(due)
    assert Counter(name for name, _, _ in found) == Counter(list(due))
    assert {by for _, _, by in found} == {"accounts-1", "accounts-2"}
    assert [name for name, at_s, _ in found if at_s < due[name]] == []
    await once_each(small_world)


async def test_an_active_that_slept_over_the_due_time_fires_none_again(small_world: World) -> None:
    """G5: it wakes up as a zombie, with timers that are due by its clock and fired elsewhere."""
    first, second, owners, client = await two(small_world)
    due = await set_all(client, [0.6, 0.65, 0.7])
    await asyncio.sleep(0.2)
    first.send(signal.SIGSTOP)
    await owners.move({"A": second.writer})
    found = await ticked(client, len(due))
    first.send(signal.SIGCONT)
    await asyncio.sleep(1.0)
    assert await ask(client, "ticks", "") == [list(each) for each in found]
    assert {by for _, _, by in found} == {"accounts-2"}
    await once_each(small_world)


async def test_timers_of_an_active_that_lives_are_at_most_50_ms_late(small_world: World) -> None:
    """And so are those that came due together, a portion after the other."""
    instance = await small_world.instance("accounts-1", ["A"], timing())
    await Owners(await small_world.link(), small_world.names).move({"A": instance.writer})
    client = await small_world.client()
    due: dict[str, float] = {}
    for n in range(20):
        due[str(n)] = time.time() + 0.3
        await ask(client, "set", {"name": str(n), "after_s": 0.3})
        await asyncio.sleep(0.01)
    found = await ticked(client, len(due))
    late_s = [at_s - due[name] for name, at_s, _ in found]
    assert min(late_s) >= 0.0
    assert sorted(late_s)[len(late_s) // 2] < LATE_S
    assert max(late_s) < LATE_S + BUSY_S
    assert instance.host.timers_open == 0


async def test_hundreds_that_came_due_meanwhile_leave_calls_their_turn(small_world: World) -> None:
    """Each is noted before it begins, since the owner before may have died of it."""
    first = await small_world.instance("accounts-1", ["A"], timing())
    second = await small_world.instance("accounts-2", ["A"], timing())
    owners, client = Owners(await small_world.link(), small_world.names), await small_world.client()
    await owners.move({"A": first.writer})
    for n in range(4):
        await ask(client, "set", {"name": f"{n}-", "after_s": 0.5, "many": 100})
    await first.stop()
    await asyncio.sleep(0.5)
    await owners.move({"A": second.writer})
    begun_s = time.monotonic()
    waits_s = []
    while len(await ask(client, "ticks", "")) < 400:
        sent_s = time.monotonic()
        await ask(client, "add", {"n": 1})
        waits_s.append(time.monotonic() - sent_s)
        assert time.monotonic() - begun_s < WAIT_S
    assert sorted(waits_s)[len(waits_s) // 2] < 0.5
    await once_each(small_world)


async def test_what_is_submitted_for_later_outlives_the_active_that_took_it_in(
    small_world: World,
) -> None:
    """G1, G2: by its ticket it is cancelled, or its outcome is had, from another process."""
    first, second, owners, client = await two(small_world)
    submit = client.requester.submit
    begun_s = time.time()
    asked: dict[str, Any] = {"resource": "A", "key": None, "timeout_s": WAIT_S, "expires_s": None}
    kept = await submit(TICK, "kept", **asked, not_before=1.0)
    gone = await submit(TICK, "gone", **asked, not_before=1.0)
    await ask(client, "ticks", "")  # both are timers by now
    first.send(signal.SIGKILL)
    await owners.move({"A": second.writer})
    other = await small_world.client()
    ended = await other.requester.cancel(gone.id, None, resource=None, timeout_s=WAIT_S)
    assert ended is OutcomeKind.CANCELLED
    assert await other.requester.attach(kept.id, TICK, timeout_s=WAIT_S) == 1
    [[name, at_s, by]] = await ask(client, "ticks", "")
    assert (name, by) == ("kept", "accounts-2")
    assert at_s >= begun_s + 1.0
    stored, _ = await read_log(small_world)
    assert [len(stored[each.id]) for each in (kept, gone)] == [1, 1]
