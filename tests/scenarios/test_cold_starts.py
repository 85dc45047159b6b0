"""Everything was killed and is started together: it comes up by itself, in whatever order."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Unavailable

from tests.scenarios.ledger import Booking, Methods, ledger
from tests.scenarios.system import Process, System, new_service, running_system

pytestmark = pytest.mark.scenario
ORDERS = list(itertools.permutations(["nats", "control", "instances", "client"]))


@pytest.fixture
async def system() -> AsyncIterator[System]:
    async with running_system() as running:
        yield running


@pytest.mark.parametrize("order", random.Random(7).sample(ORDERS, 3), ids=" ".join)
async def test_all_that_was_killed_and_starts_together_goes_on_where_it_was(
    system: System, order: tuple[str, ...]
) -> None:
    """G1, G6: nobody is started twice, and nobody waits for anybody before it is started."""
    service, nats = new_service(), system.nats
    assert isinstance(nats, EmbeddedNats)
    book = Methods(service).book

    async def instances() -> None:
        for n in (1, 2):
            options = {"url": system.url, "service": service, "resources": {"A": "auto"}}
            told = json.dumps(options | {"id": f"{service}-{n}"})
            await _start(system, f"again-{n}", "-m", "tests.scenarios.ledger", told)

    async def ask(n: int) -> int:
        async with aegis_sdk.connect(system.url) as aegis:
            wanted = Booking(op=f"op-{n}")
            return (await aegis.request(book, wanted, resource="A", timeout_s=30.0)).count

    await instances()
    assert await _asked_until_served(ask) == 1
    for process in system.processes:
        await process.kill()
    nats.kill()

    asked: list[asyncio.Task[int]] = []

    async def client() -> None:
        asked.append(asyncio.create_task(_asked_until_served(ask)))

    async def control() -> None:
        module = "aegis_control.entrypoints.service"
        await _start(system, "control", "-m", module, "serve", "--url", system.url, "--http-port=0")

    async def start_nats() -> None:
        await asyncio.to_thread(nats.start)

    starts: dict[str, Callable[[], Awaitable[None]]] = {
        "nats": start_nats,
        "control": control,
        "instances": instances,
        "client": client,
    }
    for name in order:
        await starts[name]()
        await asyncio.sleep(0.3)  # one after the other, as an init system starts them
    async with asyncio.timeout(30):
        assert await asked[0] == 2


async def _start(system: System, name: str, *arguments: str) -> None:
    system.processes.append(await Process.start(name, *arguments, folder=system.folder))


async def _asked_until_served(ask: Callable[[int], Awaitable[int]]) -> int:
    """A call to a service that is not there yet is refused, without effect."""
    for n in itertools.count():
        try:
            return await ask(n)
        except (aegis_sdk.UnknownService, aegis_sdk.NotExecuted, Unavailable):
            await asyncio.sleep(0.1)
    raise AssertionError("unreachable")


async def test_an_instance_says_when_it_serves_all_that_is_its_own(system: System) -> None:
    """Also what another had before, whose log is to be read first."""
    service = new_service()
    resources = {f"A-{n}": aegis_sdk.Role.AUTO for n in range(200)}
    async with aegis_sdk.connect(system.url) as first, aegis_sdk.connect(system.url) as other:
        instance = await first.serve(ledger(service), resources=resources)
        await instance.ready()
        assert instance.active_resources == sorted(resources)
        book = Methods(service).book
        await asyncio.gather(
            *(first.request(book, Booking(op=name), resource=name) for name in resources)
        )
        standby = await other.serve(ledger(service), resources=resources)
        await standby.ready()
        assert standby.active_resources == []
        await instance.stop()
        with pytest.raises(aegis_sdk.Draining):
            await instance.ready()
