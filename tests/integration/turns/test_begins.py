"""A request that kills its process is given up after three begins, and no other is blamed for it."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest
from aegis_control.application.operators.explain import Explain
from aegis_control.domain.operators.story import Word
from aegis_control.infrastructure.nats_archive import NatsArchive
from aegis_sdk.contract.dead_letter import ERROR_CODE
from aegis_sdk.contract.envelope import OutcomeKind
from aegis_sdk.nats.jetstream import JetStream

from tests.integration.turns.support import WAIT_S, Owners, Told, Worker, World
from tests.integration.turns.test_hand_ins import make_stream, stored

KILLING = "tests.integration.turns.killing"
BESIDE = [f"ACC-{n}" for n in range(4)]


@pytest.mark.scenario
@pytest.mark.parametrize("method", ["die", "die_at_once"])
async def test_a_request_that_kills_its_process_is_given_up(
    small_world: World, method: str
) -> None:
    """Its process dies three times, the last time while nothing else runs. What waited beside it takes effect."""
    world = small_world
    await make_stream(world, world.subjects.dlq_stream, world.subjects.dead_letters)
    resources = ["ACC-9", *BESIDE]
    workers = await asyncio.gather(
        *(Worker.start(world, f"accounts-{n}", resources, module=KILLING) for n in range(4))
    )
    owners = Owners(await world.link(), world.names)
    client, told = await world.client(), Told()
    await owners.move(dict.fromkeys(resources, workers[0].writer))
    calls = [asyncio.create_task(told.call(client, "ACC-9", method))]
    calls += [asyncio.create_task(told.call(client, r)) for r in (*BESIDE, "ACC-9")]
    async with asyncio.timeout(WAIT_S):
        for dead, heir in itertools.pairwise(workers):
            await dead.ended()
            await owners.move(dict.fromkeys(resources, heir.writer))
        outcomes = await asyncio.gather(*calls)
    kinds = [outcome.kind for outcome in outcomes if outcome is not None]
    assert kinds == [OutcomeKind.FAILED, *[OutcomeKind.EXECUTED] * 5]
    assert outcomes[0] is not None
    assert b"gave_up" in outcomes[0].body
    assert b"begun 3 times" in outcomes[0].body
    (letter,) = await stored(world, world.subjects.dlq_stream, 1)
    assert letter[ERROR_CODE] == "gave_up"
    [dead_id] = [name for name, each in told.outcomes.items() if each.kind is OutcomeKind.FAILED]
    archive = NatsArchive(JetStream(await world.link()), world.subjects)
    story = await Explain(archive, now_s=time.time(), search_s=WAIT_S)(dead_id)
    [begun] = [step.text for step in story.steps if step.word is Word.NOTED]
    assert begun.startswith("begin 3")


@pytest.mark.scenario
async def test_a_group_request_that_kills_its_members_is_given_up(small_world: World) -> None:
    """The broker gives it to the next member each time."""
    world = small_world
    await make_stream(world, world.subjects.dlq_stream, world.subjects.dead_letters)
    names = [f"accounts-{n}" for n in range(5)]
    workers = [await Worker.start(world, name, [], module=KILLING) for name in names]
    client, told = await world.client(members=names[:1]), Told()
    outcome = await told.call(client, None, "die_anywhere")
    assert outcome is not None
    assert outcome.kind is OutcomeKind.FAILED
    assert b"gave_up" in outcome.body
    # Three times as it was stored, and once more as it was sent, unless it was stored first.
    assert sum(worker.has_ended for worker in workers) in (3, 4)
    (letter,) = await stored(world, world.subjects.dlq_stream, 1)
    assert letter[ERROR_CODE] == "gave_up"
