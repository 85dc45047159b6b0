"""A client may be there before everything else, and is no slower for it afterwards."""

from __future__ import annotations

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import UnknownService
from aegis_sdk.infrastructure.directory import NatsDirectory

from tests.adverse.test_any_code import ADD, sums
from tests.integration.control.support import control, until


async def test_a_client_that_asked_before_control_ever_ran_follows_it_later(
    server: EmbeddedNats, prefix: str
) -> None:
    """It asked at the leader for each request from then on, which doubled the time that a request takes."""
    async with aegis_sdk.connect(server.url, prefix=prefix) as early:
        with pytest.raises(UnknownService):
            await early.request(ADD, 1, resource="R")
        async with (
            control(server.url, prefix),
            aegis_sdk.connect(server.url, prefix=prefix) as serving,
        ):
            await serving.serve(sums(), resources={"R": aegis_sdk.Role.AUTO})
            assert await early.request(ADD, 1, resource="R") == 1
            directory = early._requests.directory
            assert isinstance(directory, NatsDirectory)

            async def admitted() -> bool:
                return directory.admits("sums", "add", "R")

            await until(admitted, "the registry is followed", deadline_s=3.0)
