"""Backup, restore and a move to another cluster, as docs/backup.md has them step by step."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aegis_sdk
import nats
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Role
from aegis_sdk.contract.control import LogsRecord
from nats.aio.client import Client

from tests.adverse.test_lost_logs import ADD, JOURNAL, NAMES, Place, counters, running, until
from tests.integration.control.stream_backups import api, backup, backup_all, restore
from tests.integration.control.support import control

KEY = "order-1"


async def keyed(place: Place) -> int:
    return await place.aegis.request(ADD, 10, resource="A", key=KEY, timeout_s=10.0)


@contextlib.asynccontextmanager
async def on(server: EmbeddedNats) -> AsyncIterator[Place]:
    """A new control, a new instance and a new caller."""
    async with control(server.url, "aegis"), aegis_sdk.connect(server.url) as aegis:
        await aegis.serve(counters(), resources=dict.fromkeys("AB", Role.AUTO), wait_s=10.0)
        operator = await nats.connect(server.url, max_reconnect_attempts=-1)
        yield Place(server, aegis, operator, [aegis])
        await operator.close()


async def goes_on(place: Place) -> None:
    """All is there that was there: the state, and the outcome of a request with a key; nothing is told to be lost."""
    assert (await place.cli("state", "A"))["state"]["total"] == 15
    assert await keyed(place) == 15
    assert await place.add() == 16
    findings = (await place.cli("doctor", code=6))["findings"]
    assert not [each for each in findings if each["check"] == "logs" and each["level"] == "bad"]


async def test_a_copy_of_the_stopped_servers_folder_goes_on_in_another_place(
    tmp_path: Path,
) -> None:
    """G2, G3, G6: state, outcomes and keys are all in the streams."""
    async with running(tmp_path / "here", instances=1) as place:
        assert [await place.add() for _ in range(5)] == [1, 2, 3, 4, 5]
        assert await keyed(place) == 15
        await place.copied(tmp_path / "there")
    with EmbeddedNats(tmp_path / "there", sync_interval="always") as server:
        async with on(server) as moved:
            await goes_on(moved)


async def test_backups_of_all_streams_of_a_system_at_rest_go_on_in_another_cluster(
    tmp_path: Path,
) -> None:
    """G2, G3, G6: instances and control are stopped, so the copies belong together."""
    with EmbeddedNats(tmp_path / "here", sync_interval="always") as server:
        async with on(server) as place:
            assert [await place.add() for _ in range(5)] == [1, 2, 3, 4, 5]
            assert await keyed(place) == 15
        operator = await nats.connect(server.url)
        copies = await backup_all(operator)
        await operator.close()
    with EmbeddedNats(tmp_path / "there", sync_interval="always") as server:
        operator = await nats.connect(server.url)
        for copy in copies:
            await restore(operator, copy)
        await operator.close()
        async with on(server) as moved:
            await goes_on(moved)


async def test_a_journal_restored_from_an_older_backup_is_told_and_not_served_from(
    tmp_path: Path,
) -> None:
    """G3, G6: under the running system; then an operator decides, and it goes on from what the backup has."""
    async with running(tmp_path) as place:
        assert [await place.add() for _ in range(5)] == [1, 2, 3, 4, 5]
        copy = await backup(place.operator, JOURNAL)
        assert [await place.add() for _ in range(5)] == [6, 7, 8, 9, 10]
        await api(place.operator, f"STREAM.DELETE.{JOURNAL}")
        await restore(place.operator, copy)
        assert (await place.lost())["stream"] == JOURNAL
        await place.refused()
        findings = (await place.cli("doctor", code=6))["findings"]
        assert any(each["check"] == "logs" and each["level"] == "bad" for each in findings)
        planned = await place.cli("accept-loss", "counters", "--dry-run")
        assert planned["losses"][0]["stream"] == JOURNAL
        await place.accepted()
        assert await place.add() == 6
        assert (await place.cli("state", "A"))["state"] == {"total": 6}


async def knows_of(operator: Client, entries: int) -> bool:
    """Whether the registry says that the journal goes at least so far."""
    bucket = await operator.jetstream().key_value(NAMES.registry_bucket)
    kept = await bucket.get(NAMES.logs_key("counters"))
    return LogsRecord.model_validate_json(kept.value or b"").journal.end >= entries


@pytest.mark.scenario
async def test_an_older_journal_is_noticed_by_a_system_that_starts_anew(tmp_path: Path) -> None:
    """G6: nobody is left who knew more, but control has kept in the registry how far the log went, as it does every 5 s."""
    with EmbeddedNats(tmp_path, sync_interval="always") as server:
        async with on(server) as place:
            assert await place.add() == 1
            copy = await backup(place.operator, JOURNAL)
            assert [await place.add() for _ in range(100)] == list(range(2, 102))
            await until(lambda: knows_of(place.operator, 100))
        operator = await nats.connect(server.url)
        await api(operator, f"STREAM.DELETE.{JOURNAL}")
        await restore(operator, copy)
        async with control(server.url, "aegis"), aegis_sdk.connect(server.url) as aegis:
            place = Place(server, aegis, operator, [aegis])
            assert (await place.lost())["stream"] == JOURNAL
        await operator.close()


async def test_an_older_copy_of_everything_is_told_by_an_export_from_before(
    tmp_path: Path,
) -> None:
    """With all processes new and all streams old, only what is kept elsewhere knows of more: docs/backup.md says so."""
    file = tmp_path / "counters.db"
    async with running(tmp_path / "here", instances=1) as place:
        assert await place.add() == 1
        await place.copied(tmp_path / "copy")
        assert await place.add() == 2
        await place.cli("export", "counters", "--sqlite", str(file))
    with EmbeddedNats(tmp_path / "copy", sync_interval="always") as server:
        operator = await nats.connect(server.url)
        place = Place(server, None, operator, [])  # type: ignore[arg-type] # nobody serves
        await place.cli("export", "counters", "--sqlite", str(file), code=5)
        await operator.close()
