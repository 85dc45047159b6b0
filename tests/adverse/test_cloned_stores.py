"""A copy of a running server's store, started as another server: whoever goes over to it is told, and nothing is served from it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats, free_ports
from aegis_sdk import LogLost, Role

from tests.adverse.support_doors import ADD, totals
from tests.adverse.test_refusals import Door, warnings
from tests.integration.cli.support import run_cli
from tests.integration.control.support import control, until


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[EmbeddedNats, EmbeddedNats]]:
    """The first runs; the other one is the copy to come."""
    ports = free_ports(2)
    made = [
        EmbeddedNats(tmp_path / name, port=port, sync_interval="always")
        for name, port in zip(("first", "copy"), ports, strict=True)
    ]
    with made[0]:
        yield made[0], made[1]
        made[1].stop()


async def start_copy(first: EmbeddedNats, copy: EmbeddedNats) -> None:
    """Copied while the first goes on, as `cp -r` or a snapshot of its disk does."""
    skipped = shutil.ignore_patterns("*.lock", "*.log")
    await asyncio.to_thread(shutil.copytree, first.data_dir, copy.data_dir, ignore=skipped)
    await asyncio.to_thread(copy.start)


async def instance_knows(outcomes: int, caplog: pytest.LogCaptureFixture) -> None:
    """That so many are stored. The server may tell a caller before; what nobody here knows can't be missed."""

    async def stored() -> bool:
        return sum("request_stored" in record.getMessage() for record in caplog.records) >= outcomes

    await until(stored, "the instance knows what it has stored")


@pytest.fixture(autouse=True)
def all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aegis_sdk")


@pytest.mark.parametrize("since", [1, 30])
async def test_a_copy_that_everybody_goes_over_to_is_a_loss_and_not_served_from(
    servers: tuple[EmbeddedNats, EmbeddedNats], since: int, caplog: pytest.LogCaptureFixture
) -> None:
    """G3, G6: also where one acknowledged outcome alone is missing; then the first is put in its place again, and has it all."""
    first, copy = servers
    url = f"{first.url},{copy.url}"
    async with (
        control(url, "aegis"),
        aegis_sdk.connect(url) as serving,
        aegis_sdk.connect(url) as caller,
    ):
        await serving.serve(totals(), resources={"T-1": Role.AUTO})
        assert await caller.request(ADD, 1, resource="T-1") == 1
        await start_copy(first, copy)
        last = [await caller.request(ADD, 1, resource="T-1") for _ in range(since)][-1]
        await instance_knows(last, caplog)
        first.kill()

        async def told() -> bool:
            try:
                served = await caller.request(ADD, 0, resource="T-1", timeout_s=0.5)
            except LogLost:
                return True
            except aegis_sdk.AegisError:
                return False
            raise AssertionError(f"served from the copy: {served} after {last}")

        await until(told, "the caller is told")
        copy.kill()
        await asyncio.to_thread(first.start)

        async def accepted() -> bool:
            said = await run_cli("accept-loss", "totals", "--yes", "--url", first.url)
            return said.code == 0

        await until(accepted, "an operator says that it may be served from")

        async def served() -> bool:
            with contextlib.suppress(aegis_sdk.AegisError):
                return await caller.request(ADD, 0, resource="T-1", timeout_s=1.0) == last
            return False

        await until(served, "the first has everything")
    assert any(line["event"] == "log_lost" for line in warnings(caplog))


async def test_an_instance_that_goes_over_to_a_copy_alone_halts_there(
    servers: tuple[EmbeddedNats, EmbeddedNats], caplog: pytest.LogCaptureFixture
) -> None:
    """G5, G6: both servers run, and a caller on either gets no answer from the older state."""
    first, copy = servers
    async with Door(first.port) as door:
        url = f"nats://{door.host},{copy.url}"
        async with (
            control(first.url, "aegis"),
            aegis_sdk.connect(url) as moving,
            aegis_sdk.connect(first.url) as caller,
            aegis_sdk.connect(first.url) as staying,
        ):
            await moving.serve(totals(), resources={"T-1": Role.AUTO})
            assert await caller.request(ADD, 1, resource="T-1") == 1
            await start_copy(first, copy)
            assert await caller.request(ADD, 1, resource="T-1") == 2
            await instance_knows(2, caplog)
            door.word = b"Server Shutdown"
            door.empty()

            async def halted() -> bool:
                return any(line["event"] == "log_lost" for line in warnings(caplog))

            await until(halted, "the instance sees that it is another log")
            await staying.serve(totals(), resources={"T-1": Role.AUTO})
            assert await caller.request(ADD, 1, resource="T-1", timeout_s=10.0) == 3
