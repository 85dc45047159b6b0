"""A process that gives itself to its service."""

from __future__ import annotations

import asyncio
import gc
import secrets
from collections.abc import AsyncIterator
from typing import Any

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Context, Instance, Method, Service

from tests.integration.control.support import control


class Failing:
    """Does what it stands for does, but for one step, which fails at its end."""

    def __init__(self, sound: Any, step: str) -> None:
        self._sound = sound
        self._step = step

    def __getattr__(self, name: str) -> Any:
        return self._fail if name == self._step else getattr(self._sound, name)

    async def _fail(self, *arguments: Any, **options: Any) -> None:
        await getattr(self._sound, self._step)(*arguments, **options)
        raise ValueError("nobody thought of this")


ECHO: Method[int, int] = Method("echo", "echo", request=int, reply=int)


@pytest.fixture
async def instance() -> AsyncIterator[Instance]:
    service = Service("echo")

    @service.handles(ECHO)
    async def echo(_: Context, number: int) -> int:
        return number

    prefix = f"t{secrets.token_hex(4)}"
    with EmbeddedNats() as server:
        async with (
            control(server.url, prefix),
            aegis_sdk.connect(server.url, prefix=prefix) as aegis,
        ):
            yield await aegis.serve(service)
    gc.unfreeze()


async def test_the_collector_leaves_alone_what_was_made_at_the_start(instance: Instance) -> None:
    assert gc.get_freeze_count() == 0, "others use this process, too"
    serving = asyncio.create_task(instance.serve_forever(signals=False))
    await asyncio.sleep(0)
    assert gc.get_freeze_count() > 10_000
    await instance.stop()
    await serving


@pytest.mark.parametrize("broken", ["_membership.leave", "_link.close"])
async def test_it_ends_whatever_fails_at_the_end(
    instance: Instance, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error there once kept the process from ever ending."""
    part, _, step = broken.partition(".")
    monkeypatch.setattr(instance, part, Failing(getattr(instance, part), step))
    serving = asyncio.create_task(instance.serve_forever(signals=False))
    with pytest.raises(ValueError, match="nobody thought"):
        await instance.drain(timeout_s=1.0)
    async with asyncio.timeout(5):
        await serving
    instance._draining = None  # closing the client would tell of the same error again
