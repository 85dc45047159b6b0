"""Parts that start before what they need: they wait for it, say so, and end soon where waiting can't help."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import aegis_sdk
import nats
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats, free_port
from aegis_sdk import RefusedByNats, Role, Unavailable
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.log_line import Line

from tests.adverse.support_doors import Guarded, totals
from tests.integration.control.support import control, until

SOON_S = 5.0
"""Far below the 30 s that a start waits."""


def said(caplog: pytest.LogCaptureFixture, event: str) -> list[Line]:
    lines = [record.msg for record in caplog.records if isinstance(record.msg, Line)]
    return [line for line in lines if line["event"] == event]


async def test_a_connect_waits_for_nats_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a warning: that is seen where nobody has set up logging."""
    server = EmbeddedNats(tmp_path, free_port())
    caplog.set_level(logging.WARNING)

    async def use() -> bool:
        async with aegis_sdk.connect(server.url):
            return True

    async def is_told() -> bool:
        return bool(said(caplog, "waiting_for_nats"))

    using = asyncio.create_task(use())
    await until(is_told, "it says what it waits for")
    with server:
        assert await using
    [line] = said(caplog, "waiting_for_nats")
    assert line["url"] == server.url
    assert server.url in str(line["error"])


async def test_a_bound_of_the_caller_s_counts() -> None:
    begun_s = time.monotonic()
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        async with aegis_sdk.connect("nats://127.0.0.1:1", wait_s=0.3):
            pass
    assert time.monotonic() - begun_s < SOON_S


@pytest.mark.parametrize(
    ("login", "error", "reason"),
    [
        ({"user": "u", "password": "wrong"}, RefusedByNats, "Authorization Violation"),
        ({"nkeys_seed": "/no/such.nk"}, Unavailable, r"/no/such\.nk"),
        ({"nkeys_seed": "/dev/null"}, Unavailable, "holds no seed"),
    ],
)
async def test_a_login_that_can_not_be_right_is_told_at_once(
    tmp_path: Path, login: dict[str, Any], error: type[Exception], reason: str
) -> None:
    guarded = Guarded(tmp_path)
    guarded.start("authorization { user: u, password: one }")
    begun_s = time.monotonic()
    try:
        with pytest.raises(error, match=reason):
            async with aegis_sdk.connect(f"nats://{guarded.host}", **login):
                pass
    finally:
        guarded.stop()
    assert time.monotonic() - begun_s < SOON_S


async def test_an_instance_that_does_not_serve_says_what_it_waits_for(
    server: EmbeddedNats, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        instance = await aegis.serve(totals(), resources={"T-1": Role.AUTO})
        await instance.ready()
        client = await nats.connect(server.url)
        await client.jetstream().delete_stream(Subjects(prefix).journal_stream(instance.service))
        await client.close()

        async def is_lost() -> bool:
            return bool(said(caplog, "log_lost"))

        await until(is_lost, "it sees that its log is gone")
        with pytest.raises(Unavailable, match=r"is not ready after 0\.1 s: .*gone"):
            await instance.ready(timeout_s=0.1)
