"""A journal without room while requests run: it is said, nothing that was acknowledged is lost, and room alone heals it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aegis_sdk
import nats
import pytest
from aegis_sdk import Cancelled, Expired, NeverAccepted, OutcomeUnknown, Overloaded, Role
from aegis_sdk.contract.subjects import Subjects
from nats.js.client import JetStreamContext
from nats.js.errors import APIError

from tests.adverse.support_doors import ADD, Guarded, totals
from tests.adverse.test_refusals import warnings
from tests.integration.control.support import control, until

JOURNAL = Subjects().journal_stream("totals")
ACCOUNT = (
    "accounts {{ A {{ users = [{{ user: a, password: a }}], jetstream: {{ max_file: {}MB }} }} }}\n"
    "no_auth_user: a"
)
SMALL_MB, LARGE_MB = 80, 200
"""The events' stream reserves 64 of it."""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    server = Guarded(tmp_path)
    yield server
    server.stop()


@asynccontextmanager
async def operator(guarded: Guarded) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(f"nats://{guarded.host}")
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def bound_of_the_stream(guarded: Guarded) -> Callable[[], Awaitable[None]]:
    """As many bytes as it has; returns what raises that."""

    async def bound(n: int) -> None:
        async with operator(guarded) as stream:
            info = await stream.stream_info(JOURNAL)
            info.config.max_bytes = info.state.bytes if n == 0 else n
            await stream.update_stream(info.config)

    await bound(0)
    return lambda: bound(-1)


async def limit_of_the_account(guarded: Guarded) -> Callable[[], Awaitable[None]]:
    """Another stream takes all that is left; returns what raises the limit."""
    async with operator(guarded) as stream:
        await stream.add_stream(name="FILLER", subjects=["filler.>"])
        size = 512 << 10
        while size > 16:
            try:
                await stream.publish("filler.x", b"x" * size)
            except APIError:
                size //= 2

    async def more() -> None:
        await asyncio.to_thread(guarded.reload, ACCOUNT.format(LARGE_MB))

    return more


async def told(aegis: aegis_sdk.Aegis, *, timeout_s: float) -> int | OutcomeUnknown:
    """The new total, 0 for no effect, or the doubt."""
    try:
        return await aegis.request(ADD, 1, resource="T-1", timeout_s=timeout_s)
    except OutcomeUnknown as error:
        return error
    except Overloaded:
        return 0


async def settled(aegis: aegis_sdk.Aegis, said: int | OutcomeUnknown) -> int:
    """The total that it made; 0 when it certainly has no effect."""
    if isinstance(said, int):
        return said
    try:
        return await aegis.attach(said.request_id, ADD, timeout_s=10.0)
    except (Cancelled, Expired, NeverAccepted):
        return 0


@pytest.mark.parametrize("fill", [bound_of_the_stream, limit_of_the_account])
async def test_a_journal_without_room_is_said_and_goes_on_where_it_stopped(
    guarded: Guarded,
    fill: Callable[[Guarded], Awaitable[Callable[[], Awaitable[None]]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """G1, G3, G4: who gives up learns that there is no room, who waits is answered, and each has one effect."""
    guarded.start(ACCOUNT.format(SMALL_MB))
    url = f"nats://{guarded.host}"
    async with control(url, "aegis"), aegis_sdk.connect(url) as aegis:
        await aegis.serve(totals(), resources={"T-1": Role.AUTO})
        assert await aegis.request(ADD, 1, resource="T-1") == 1
        make_room = await fill(guarded)
        waits = [asyncio.create_task(told(aegis, timeout_s=30.0)) for _ in range(20)]

        async def said() -> bool:
            return any(line["event"] == "journal_full" for line in warnings(caplog))

        await until(said, "the log says so")
        unknown = await told(aegis, timeout_s=0.3)
        assert isinstance(unknown, OutcomeUnknown)
        assert "no room to store its end" in str(unknown)
        if fill is limit_of_the_account:  # the stream alone has room for requests beside it
            with pytest.raises(Overloaded):
                await aegis.submit(ADD, 1, resource="T-1")
        else:
            assert not any(wait.done() for wait in waits)
        await make_room()
        found = [await settled(aegis, each) for each in [unknown, *await asyncio.gather(*waits)]]
        effects = [total for total in found if total]
        assert sorted(effects) == list(range(2, len(effects) + 2))
        assert await aegis.request(ADD, 0, resource="T-1") == len(effects) + 1
    [full] = [line for line in warnings(caplog) if line["event"] == "journal_full"]
    assert full["stream"] == JOURNAL
