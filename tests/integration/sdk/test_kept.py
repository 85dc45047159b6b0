"""What is added while an instance runs is read from what the instance reads anyway, where that is enough."""

from __future__ import annotations

import aegis_sdk
import nats
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Role

from tests.integration.control.support import control
from tests.integration.sdk.counters import ADD, counters


async def test_a_resource_that_nobody_ever_had_needs_no_reader_of_the_log() -> None:
    """A consumer on a log of many subjects takes its server milliseconds. One with a past has a reader, and its state."""
    with EmbeddedNats() as server:
        await _watched(server.url)


async def _watched(url: str) -> None:
    async with control(url, "aegis"), aegis_sdk.connect(url) as aegis:
        first = await aegis.serve(counters(), resources={"A": Role.AUTO}, instance_id="a")
        second = await aegis.serve(counters(), instance_id="b")
        assert await aegis.request(ADD, 1, resource="A") == 1
        client = await nats.connect(url)
        readers = await client.subscribe("$JS.API.CONSUMER.CREATE.AEGIS_JOURNAL_counters")
        await client.flush()
        for name in ("B", "C"):
            await first.add([name])
            assert await aegis.request(ADD, 7, resource=name) == 7
        await client.flush()
        assert readers.pending_msgs == 0
        await second.add(["A"])
        await first.remove(["A"])
        assert await aegis.request(ADD, 1, resource="A") == 2
        await client.flush()
        assert readers.pending_msgs > 0
        await client.close()
