"""Control trims a service's log; no idle, drained or ownerless resource holds that up (G6)."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import pytest
from aegis_sdk.contract.control import FailoverResources, TargetInstance
from aegis_sdk.contract.envelope import OutcomeKind
from aegis_sdk.infrastructure.requests import NatsRequestLog
from aegis_sdk.infrastructure.turns.assembly import TurnClient
from aegis_sdk.nats.jetstream import JetStream

from tests.integration.control.support import until
from tests.integration.turns.support import ADD, SERVICE, WAIT_S, Add, Told, World, composed
from tests.integration.turns.test_ownership import (
    admin,
    control,
    log_of,
    member,
    new_world,  # noqa: F401
    until_owned,
)

KEEP_S = 2.0


async def add(caller: TurnClient, resource: str) -> int:
    reply = await caller.request(ADD, Add(n=1), resource=resource, timeout_s=WAIT_S)
    return reply.total


async def count(world: World, kind: str) -> int:
    """Entries in the log whose subject begins so."""
    js = JetStream(await world.link())
    asked = {"subjects_filter": world.names.all.replace(">", kind)}
    info = await js.api(f"STREAM.INFO.{world.names.stream}", asked)
    return len(info["state"].get("subjects") or {})


async def until_trimmed(world: World, caller: TurnClient, resource: str) -> None:
    """Traffic at one resource goes on, and of its turns few are left; so what stood before them is gone, too."""

    async def trimmed() -> bool:
        for _ in range(20):
            await add(caller, resource)
        return await first_turn(world) > start

    start = await last_entry(world)
    await until(trimmed, "it is trimmed", deadline_s=WAIT_S)


async def last_entry(world: World) -> int:
    info = await JetStream(await world.link()).api(f"STREAM.INFO.{world.names.stream}")
    return int(info["state"]["last_seq"])


async def first_turn(world: World) -> int:
    turns = world.names.all.replace(">", "turn.>")
    found = await JetStream(await world.link()).first_of(world.names.stream, turns)
    return 0 if found is None else found.seq


@pytest.fixture
def ages() -> dict[str, float]:
    return {"requests_max_age_s": KEEP_S, "outcome_ttl_s": KEEP_S}


async def test_a_drained_and_an_idle_resource_hold_up_nothing(
    new_world: World, ages: dict[str, float]  # noqa: F811
) -> None:
    """One request each to OLD and IDLE, then traffic elsewhere. What they know is kept: their next owners go on with it."""
    world = new_world
    async with control(world, **ages), admin(world) as operator:
        await member(world, "accounts-0", ["BUSY", "IDLE"])
        await member(world, "accounts-1", ["OLD"])
        await until_owned(world, "accounts-0", resources=["BUSY", "IDLE"])
        await until_owned(world, "accounts-1", resources=["OLD"])
        caller = await world.client()
        assert await add(caller, "OLD") == 1
        assert await add(caller, "IDLE") == 1
        await operator.drain(TargetInstance(instance_id="accounts-1"))
        await until_owned(world, "", resources=["OLD"])
        for _ in range(2):
            await until_trimmed(world, caller, "BUSY")
        assert await count(world, "own.*") == 1
        await member(world, "accounts-2", ["OLD"])
        await until_owned(world, "accounts-2", resources=["OLD"])
        assert await add(caller, "OLD") == 2
        assert await add(caller, "IDLE") == 2


async def test_what_a_dead_owner_did_is_kept_though_nobody_takes_over(
    new_world: World, ages: dict[str, float]  # noqa: F811
) -> None:
    """It is killed before it saves anything but its beginning; when it is given up, control folds what it did."""
    world = new_world
    async with control(world, **ages, return_grace_s=1.0):
        await member(world, "accounts-0", ["BUSY"])
        dying = await member(world, "accounts-1", ["OLD"])
        await until_owned(world, "accounts-0", resources=["BUSY"])
        await until_owned(world, "accounts-1", resources=["OLD"])
        caller = await world.client()
        assert [await add(caller, "OLD") for _ in range(3)] == [1, 2, 3]
        dying.send(signal.SIGKILL)
        await until_owned(world, "", resources=["OLD"])
        await until_trimmed(world, caller, "BUSY")
        await member(world, "accounts-2", ["OLD"])
        await until_owned(world, "accounts-2", resources=["OLD"])
        assert await add(caller, "OLD") == 4


async def test_a_control_that_comes_later_knows_who_owns_what(
    new_world: World, ages: dict[str, float]  # noqa: F811
) -> None:
    """The entry that said so of IDLE is trimmed: a checkpoint tells it."""
    world = new_world
    async with control(world, **ages):
        await member(world, "accounts-0", ["IDLE"])
        await until_owned(world, "accounts-0", resources=["IDLE"])
        await member(world, "accounts-2", ["BUSY"])
        await until_owned(world, "accounts-2", resources=["BUSY"])
        caller = await world.client()
        for _ in range(2):
            await until_trimmed(world, caller, "BUSY")
        assert await count(world, "own.*") == 1
        assert await count(world, "own.1") == 0
    async with control(world, **ages), admin(world) as operator:
        await member(world, "accounts-1", ["BUSY", "IDLE"])
        await until(lambda: moved(operator, "IDLE"), "accounts-1 has it", deadline_s=WAIT_S)
        _, entries = await log_of(world)
        assert entries[-1].moves.keys() == {"IDLE"}
        assert await add(caller, "IDLE") == 1
        assert await add(caller, "BUSY") > 1


async def test_a_caller_that_gives_up_finds_a_writer_whom_no_entry_names_any_more(
    new_world: World, ages: dict[str, float]  # noqa: F811
) -> None:
    """R6: the owner sleeps. The ownership entry that named it is trimmed; its checkpoint names it."""
    world = new_world
    async with control(world, **ages, heartbeat_timeout_s=30.0):
        sleeper = await member(world, "accounts-0", ["R1"])
        await until_owned(world, "accounts-0", resources=["R1"])
        await member(world, "accounts-1", ["BUSY"])
        await until_owned(world, "accounts-1", resources=["BUSY"])
        client = await world.client()
        assert await add(client, "R1") == 1
        for _ in range(2):
            await until_trimmed(world, client, "BUSY")
        assert await count(world, "own.1") == 0
        late = await world.client()
        sleeper.send(signal.SIGSTOP)
        told = Told()
        outcome = await told.call(late, "R1", timeout_s=0.5)
        assert outcome is not None
        assert outcome.kind is OutcomeKind.CANCELLED
        sleeper.send(signal.SIGCONT)
        assert await add(client, "R1") == 2


async def moved(operator: object, resource: str) -> bool:
    order = FailoverResources(resources=[resource], service=SERVICE)
    done = await operator.failover(order)  # type: ignore[attr-defined]
    return bool(done.moved)


@pytest.mark.scenario
async def test_stored_requests_go_when_they_have_outcomes(
    new_world: World,  # noqa: F811
) -> None:
    """G1: those of resources that nobody serves stay, and are done when somebody does."""
    world = new_world
    async with control(world):
        await member(world, "accounts-0", ["R1"])
        await until_owned(world, "accounts-0", resources=["R1"])
        client = await world.client()
        log = NatsRequestLog(await world.link(), world.subjects)
        for resource in ("R1", "R1", "LATER", "R1"):
            request = composed(client, "add", resource, b'{"n":1}', timeout_s=WAIT_S)
            await log.append(request, timeout_s=WAIT_S)

        def left(count: int) -> Callable[[], Awaitable[bool]]:
            async def there() -> bool:
                js = JetStream(await world.link())
                stream = world.subjects.request_stream(SERVICE)
                info = await js.api(f"STREAM.INFO.{stream}")
                return int(info["state"]["messages"]) == count

            return there

        await until(left(2), "LATER's and what came after it are left", deadline_s=WAIT_S)
        await member(world, "accounts-1", ["LATER"])
        await until(left(0), "all are done", deadline_s=WAIT_S)
