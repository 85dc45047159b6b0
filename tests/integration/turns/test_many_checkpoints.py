"""Checkpoints that are more than one answer of the server, and parts whose owner is late."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator

import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.streams import log_stream
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.domain.turns.output import Save
from aegis_sdk.infrastructure.turns.log import TurnLog
from aegis_sdk.infrastructure.turns.start import newest_checkpoints, newest_saved
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server

MANY = 100
OF_64_MB = 700_000


@pytest.fixture
async def log(server: EmbeddedNats, prefix: str) -> AsyncIterator[tuple[Link, LogSubjects]]:
    link = await Link.open(Server(server.url), name="test")
    names = LogSubjects(Subjects(prefix), "accounts")
    await link.api(f"STREAM.CREATE.{names.stream}", log_stream(names))
    yield link, names
    await link.close()


def made(owner: str, number: int, value: str, resource: str = "P") -> Checkpoint:
    values = json.dumps({"v": value}).encode()
    return Checkpoint(owner, resource, read=number, number=number, values=values)


async def test_all_checkpoints_are_found_though_the_server_ends_its_answer_early(
    log: tuple[Link, LogSubjects],
) -> None:
    """G4, G6: one that is left out looks like a resource that nobody ever had, and its writer like nobody."""
    link, names = log
    resources = [f"R-{n}" for n in range(MANY)]
    owner = TurnLog(link, names, writer="a~1", nonce="a~1")
    gate = await owner.gate("a~1")
    for name in resources:
        await owner.save(Save(made("a~1", 1, os.urandom(OF_64_MB // 2).hex(), name), gate))
    assert len(await newest_saved(link, names, resources)) == MANY
    found = await newest_checkpoints(link, names, [*resources, "NONE"])
    assert sorted(found) == sorted(resources)


async def test_a_late_purge_of_an_old_owner_leaves_the_new_ones_parts(
    log: tuple[Link, LogSubjects], monkeypatch: pytest.MonkeyPatch
) -> None:
    """G6: the log may be trimmed up to that checkpoint by then."""
    link, names = log
    old = TurnLog(link, names, writer="a~1", nonce="a~1")
    gate = await old.gate("a~1")
    large = os.urandom(800_000).hex()
    await old.save(Save(made("a~1", 1, large), gate))
    held: list[tuple[str, object]] = []
    api = link.api

    async def late(name: str, body: object = None, **more: object) -> object:
        if "PURGE" in name and not held:
            held.append((name, body))
            return {}
        return await api(name, body, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(link, "api", late)
    await old.save(Save(made("a~1", 2, "small"), gate))
    assert held
    new = TurnLog(link, names, writer="b~1", nonce="b~1")
    await new.save(Save(made("b~1", 3, large), await new.gate("b~1")))
    await api(*held[0])  # type: ignore[arg-type]
    found = await newest_checkpoints(link, names, ["P"])
    checkpoint, _ = found["P"]  # type: ignore[misc]
    assert checkpoint.number == 3
    assert json.loads(checkpoint.values) == {"v": large}
