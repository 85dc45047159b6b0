"""What operators are told of requests: nothing was stored of most of them but their outcomes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from aegis_control.application.operators.explain import Explain, NotFound
from aegis_control.domain.operators.story import Story, Word
from aegis_control.infrastructure.admin_client import AdminClient
from aegis_sdk.contract.control import TargetInstance
from aegis_sdk.contract.envelope import OutcomeKind
from aegis_sdk.infrastructure.requests import NatsRequestLog

from tests.integration.turns.support import SERVICE, WAIT_S, Told, Worker, World, composed
from tests.integration.turns.test_ownership import (
    admin,
    control,
    member,
    new_world,  # noqa: F401
    until_owned,
)

CALLS = 8


@pytest.fixture
async def operator(new_world: World) -> AsyncIterator[AdminClient]:  # noqa: F811
    """Of a control with one instance, which is active for R1."""
    async with control(new_world), admin(new_world) as made:
        await member(new_world, "accounts-0", ["R1"])
        await until_owned(new_world, "accounts-0", resources=["R1"])
        yield made


async def explain(operator: AdminClient, request_id: str) -> Story:
    tell = Explain(operator.archive, now_s=time.time(), search_s=WAIT_S)
    return await tell(request_id)


async def test_an_outcome_is_found_in_a_turn_of_its_own_and_in_one_that_it_shares(
    new_world: World, operator: AdminClient  # noqa: F811
) -> None:
    client, told = await new_world.client(), Told()
    await asyncio.gather(*(told.call(client, "R1") for _ in range(CALLS)))
    await told.call(client, "R1")
    assert len(told.outcomes) == CALLS + 1
    for request_id in told.outcomes:
        story = await explain(operator, request_id)
        assert story.outcome is OutcomeKind.EXECUTED
        assert (story.service, story.method, story.resource) == (SERVICE, "add", "R1")
        assert "executed by accounts-0 in epoch 1" in story.standing


async def test_a_groups_outcome_names_who_served_it(
    new_world: World, operator: AdminClient  # noqa: F811
) -> None:
    await Worker.start(new_world, "teller-1", [], module="tests.integration.turns.telling")
    client, told = await new_world.client(["teller-1"]), Told()
    await told.call(client, None, "greet")
    [request_id] = told.outcomes
    story = await explain(operator, request_id)
    assert story.outcome is OutcomeKind.EXECUTED
    assert "executed by teller-1" in story.standing
    assert story.resource is None
    assert story.method == "greet"


async def test_one_that_is_stored_waits_for_whoever_comes(
    new_world: World, operator: AdminClient  # noqa: F811
) -> None:
    client = await new_world.client()
    log = NatsRequestLog(await new_world.link(), new_world.subjects)
    await operator.drain(TargetInstance(instance_id="accounts-0"))
    await until_owned(new_world, "", resources=["R1"])
    waiting = [composed(client, "add", "R1", b'{"n":1}', timeout_s=WAIT_S) for _ in range(2)]
    for each in waiting:
        await log.append(each, timeout_s=WAIT_S)
    story = await explain(operator, waiting[1].request_id)
    assert story.outcome is None
    assert "waits: nobody is active for its resource (accounts-0 was" in story.standing
    await member(new_world, "accounts-1", ["R1"])
    await until_owned(new_world, "accounts-1", resources=["R1"])
    async with asyncio.timeout(WAIT_S):
        while (story := await explain(operator, waiting[1].request_id)).outcome is None:
            assert "waits" in story.standing
    assert "executed by accounts-1 in epoch 3" in story.standing


async def test_one_whose_caller_gave_up_says_so(
    new_world: World, operator: AdminClient  # noqa: F811
) -> None:
    """G4: nobody serves the resource, so no active can record it: the caller's own statement tells."""
    client, told = await new_world.client(), Told()
    await operator.drain(TargetInstance(instance_id="accounts-0"))
    await until_owned(new_world, "", resources=["R1"])
    await told.call(client, "R1", timeout_s=0.8)
    [request_id] = told.outcomes
    story = await explain(operator, request_id)
    assert story.outcome is OutcomeKind.CANCELLED
    assert story.standing.startswith("given up by its caller before it had an outcome")
    assert Word.GIVEN_UP in [step.word for step in story.steps]


async def test_of_an_unknown_one_nothing_is_found(
    new_world: World, operator: AdminClient  # noqa: F811
) -> None:
    with pytest.raises(NotFound):
        await explain(operator, "nobody.1")
