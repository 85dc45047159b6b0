"""Streams that an operator deletes, empties or replaces by an older copy, under a running system.

A position means something only in the log that it was read from. So a loss is told, nothing is served from
what is left until an operator says so, and then every request is served once again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aegis_sdk
import nats
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Aegis, Method, ResourceContext, Role, Service
from aegis_sdk.contract.metrics import GATES
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.infrastructure.turns.assembly import TurnClient
from nats.aio.client import Client

from tests.integration.control.support import control

ADD = Method("counters", "add", request=int, reply=int)
PUT = Method("counters", "put", request=int, reply=int)
HALVE = Method("counters", "halve", request=int, reply=int)
NAMES = Subjects()
JOURNAL = NAMES.journal_stream("counters")
REQUESTS = NAMES.request_stream("counters")
LOG = LogSubjects(NAMES, "counters")
OWN_GATES = (GATES, ("own",))
RAN: list[int] = []
"""What the group's handlers of this process were run with."""
ADDED: list[int] = []
"""What those of resources were."""
HOLD = 1_000_000
"""An `add` of so much waits for RELEASED."""
RELEASED = threading.Event()  # each test has a loop of its own


def counters() -> Service:
    service = Service("counters")
    ADDED.clear()
    RELEASED.clear()

    @service.handles(ADD)
    async def add(ctx: ResourceContext, delta: int) -> int:
        ADDED.append(delta)
        if delta == HOLD:
            while not RELEASED.is_set():  # noqa: ASYNC110 - of no loop
                await asyncio.sleep(0.01)
        total = (ctx.state.get("total", int) or 0) + delta
        ctx.state.set("total", total)
        return total

    @service.handles(PUT)
    async def put(ctx: ResourceContext, key: int) -> int:
        ctx.state.set(f"k{key}", True)
        return len(ctx.state.keys())

    @service.handles(HALVE)
    async def halve(ctx: aegis_sdk.Context, number: int) -> int:
        RAN.append(number)
        return number // 2

    return service


class Place:
    """A server, a control and two instances in this process; a caller, and an operator's tools."""

    def __init__(
        self, server: EmbeddedNats, aegis: Aegis, operator: Client, serving: list[Aegis]
    ) -> None:
        self.server = server
        self.aegis = aegis
        self.operator = operator
        self.serving = serving

    def own_gates(self) -> float:
        """How many gates the instances stored that shut themselves out."""
        numbers = [each for aegis in self.serving for each in aegis._recorder.numbers()]
        return sum(count for family, labels, count in numbers if (family, labels) == OWN_GATES)

    @property
    def url(self) -> str:
        return self.server.url

    async def add(self, delta: int = 1, resource: str = "A") -> int:
        return await self.aegis.request(ADD, delta, resource=resource, timeout_s=10.0)

    async def api(self, name: str, /, **body: Any) -> dict[str, Any]:
        message = await self.operator.request(f"$JS.API.{name}", json.dumps(body).encode())
        answer: dict[str, Any] = json.loads(message.data)
        assert "error" not in answer, answer
        return answer

    async def cli(self, *arguments: str, code: int = 0) -> Any:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("ipc-cli")),
            *arguments,
            "--url",
            self.url,
            "-o",
            "json",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == code, (out, err)
        return json.loads(out) if out else None

    async def events(self, event: str) -> list[dict[str, Any]]:
        stream, found = self.operator.jetstream(), []
        info = await stream.stream_info(NAMES.events_stream)
        for seq in range(info.state.first_seq, info.state.last_seq + 1):
            message = await stream.get_msg(NAMES.events_stream, seq)
            body = json.loads(message.data or b"{}")
            found += [body] if body["event"] == event else []
        return found

    async def lost(self) -> dict[str, Any]:
        """The loss, when control has told of it."""
        found: list[dict[str, Any]] = []

        async def told() -> bool:
            found[:] = await self.events("log_lost")
            return bool(found)

        await until(told)
        return found[0]

    async def refused(self) -> None:
        """Returns when callers are told that the service is not served."""

        async def told() -> bool:
            try:
                await self.aegis.request(ADD, 0, resource="A", timeout_s=0.5)
            except aegis_sdk.LogLost:
                return True
            except aegis_sdk.AegisError:
                return False
            return False

        await until(told)

    async def moved(self, resource: str, to: str) -> bool:
        """Whether the resource could be moved by now."""
        data = json.dumps({"resources": [resource], "to": to}).encode()
        try:
            reply = await self.operator.request(NAMES.admin("failover"), data, timeout=5.0)
        except nats.errors.Error:
            return False
        return bool(json.loads(reply.data)["ok"])

    async def put(self, key: int) -> int:
        return await self.aegis.request(PUT, key, resource="A", timeout_s=10.0)

    async def knows_the_log_of_both(self) -> bool:
        """Two requests are accepted and waited for, and the client has noted in which log they are."""
        requests = self.aegis._requests
        if isinstance(requests, TurnClient):
            return len([waiting for waiting in requests.caller.open._all() if waiting.log]) == 2
        waited_for = requests._way._open
        noted = [entry for entry in waited_for if entry.accepted is not None and entry.log]
        return len(noted) == 2

    async def add_soon(self, delta: int, resource: str = "A") -> str:
        """Handed in, without a deadline; its id."""
        return (await self.aegis.submit(ADD, delta, resource=resource)).id

    async def answered(self, request_id: str) -> int:
        return await self.aegis.attach(request_id, ADD, timeout_s=20.0)

    @contextlib.asynccontextmanager
    async def down(self) -> AsyncIterator[Path]:
        """The server is stopped meanwhile; where it keeps everything."""
        self.server._end(signal.SIGTERM)
        yield self.server.data_dir
        await asyncio.to_thread(self.server.start)
        await until(self._answers)

    async def _answers(self) -> bool:
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            await self.operator.request("$JS.API.INFO", b"", timeout=0.5)
            return True
        return False

    async def copied(self, to: Path) -> None:
        async with self.down() as folder:
            shutil.copytree(folder, to)

    async def put_back(self, copy: Path) -> None:
        async with self.down() as folder:
            shutil.rmtree(folder)
            shutil.move(copy, folder)

    async def accepted(self) -> None:
        """Of two streams one loss may be told after the other is accepted: an operator accepts it, too."""
        told = len(await self.events("log_lost"))
        await self.cli("accept-loss", "counters", "--yes")

        async def served() -> bool:
            nonlocal told
            try:
                await self.aegis.request(ADD, 0, resource="A", timeout_s=2.0)
            except aegis_sdk.AegisError:
                if len(await self.events("log_lost")) > told:
                    told += 1
                    await self.cli("accept-loss", "counters", "--yes")
                return False
            return True

        await until(served)


@contextlib.asynccontextmanager
async def running(folder: Path, *, instances: int = 2) -> AsyncIterator[Place]:
    with EmbeddedNats(folder / "nats", sync_interval="always") as server:
        async with (
            control(server.url, "aegis"),
            aegis_sdk.connect(server.url) as aegis,
            contextlib.AsyncExitStack() as stack,
        ):
            serving: list[Aegis] = []
            for n in range(instances):
                offered = await stack.enter_async_context(aegis_sdk.connect(server.url))
                serving.append(offered)
                roles = dict.fromkeys("AB", Role.AUTO)
                await offered.serve(counters(), resources=roles, instance_id=f"i-{n}", wait_s=10.0)
            operator = await nats.connect(server.url, max_reconnect_attempts=-1)
            yield Place(server, aegis, operator, serving)
            await operator.close()


async def until(condition: Callable[[], Awaitable[bool]], *, timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 - control is polled as an operator would
            await asyncio.sleep(0.05)


async def test_a_deleted_journal_is_told_and_nothing_is_served_until_that_is_accepted(
    tmp_path: Path,
) -> None:
    """G3, G6: no answer comes from an empty state; what was lost is named, and then all begins anew."""
    async with running(tmp_path) as place:
        assert [await place.add() for _ in range(5)] == [1, 2, 3, 4, 5]
        await place.api(f"STREAM.DELETE.{JOURNAL}")
        loss = await place.lost()
        assert loss["stream"] == JOURNAL
        assert loss["last_seq"] >= 5
        assert "is gone" in loss["reason"]
        assert loss["resources"] == ["A", "B"]
        await place.refused()
        findings = await place.cli("doctor", code=6)
        assert any(f["check"] == "logs" and f["level"] == "bad" for f in findings["findings"])
        planned = await place.cli("accept-loss", "counters", "--dry-run")
        assert planned["losses"][0]["stream"] == JOURNAL
        await place.accepted()
        assert await place.add() == 1
        assert await place.add(10) == 11
        info = await place.api(f"STREAM.INFO.{JOURNAL}")
        assert info["state"]["first_seq"] > loss["last_seq"]


async def test_a_journal_that_somebody_made_again_by_hand_is_not_served_from(
    tmp_path: Path,
) -> None:
    """G6: recreated empty within a moment, it is another log, whatever it is called."""
    async with running(tmp_path) as place:
        assert [await place.add() for _ in range(5)] == [1, 2, 3, 4, 5]
        config = (await place.api(f"STREAM.INFO.{JOURNAL}"))["config"]
        del config["metadata"]
        await place.api(f"STREAM.DELETE.{JOURNAL}")
        await place.api(f"STREAM.CREATE.{JOURNAL}", **config)
        with pytest.raises(aegis_sdk.AegisError):
            await place.aegis.request(ADD, 1, resource="A", timeout_s=1.0)
        assert "another one" in (await place.lost())["reason"]
        await place.refused()
        await place.accepted()
        assert await place.add() == 1


@pytest.mark.parametrize("keep", [0, 3])
async def test_a_purged_journal_is_told(tmp_path: Path, keep: int) -> None:
    """G6: the sequences go on, but owners and states are gone: a failover would forget everything."""
    async with running(tmp_path) as place:
        assert [await place.add() for _ in range(5)] == [1, 2, 3, 4, 5]
        await place.api(f"STREAM.PURGE.{JOURNAL}", **({"keep": keep} if keep else {}))
        loss = await place.lost()
        assert "emptied" in loss["reason"] or "the fence" in loss["reason"]
        await place.refused()
        await place.accepted()
        await place.add()


@pytest.mark.parametrize("first", [(), (REQUESTS,)], ids=["alone", "behind another loss"])
async def test_a_journal_that_its_leader_has_never_read_is_told_when_it_is_purged(
    tmp_path: Path, first: tuple[str, ...]
) -> None:
    """G6: nothing else shows it: the log is the same, and goes as far as it did. What waits to be accepted hides it no more."""
    with EmbeddedNats(tmp_path / "nats", sync_interval="always") as server:
        async with aegis_sdk.connect(server.url) as aegis:
            operator = await nats.connect(server.url, max_reconnect_attempts=-1)
            place = Place(server, aegis, operator, [aegis])
            async with control(server.url, "aegis"):
                await aegis.serve(counters(), resources={"A": Role.AUTO})
                assert await place.add() == 1
                for stream in first:
                    await place.api(f"STREAM.DELETE.{stream}")
                    assert (await place.lost())["stream"] == stream
            await place.api(f"STREAM.PURGE.{JOURNAL}")
            async with control(server.url, "aegis"):

                async def told() -> bool:
                    found = [loss["stream"] for loss in await place.events("log_lost")]
                    return found == [*first, JOURNAL]

                await until(told)
                await place.refused()
                await place.accepted()
                assert await place.add() == 1
            await operator.close()


async def test_a_new_leader_tells_a_journal_that_lacks_its_end_from_one_that_was_emptied(
    tmp_path: Path,
) -> None:
    """G6: what is left of it holds on when the loss is accepted, and who reads of the loss has to know."""
    with EmbeddedNats(tmp_path / "nats", sync_interval="always") as server:
        async with aegis_sdk.connect(server.url) as aegis:
            operator = await nats.connect(server.url, max_reconnect_attempts=-1)
            place = Place(server, aegis, operator, [aegis])
            async with control(server.url, "aegis"):
                await (await aegis.serve(counters(), resources={"A": Role.AUTO})).drain()
                await aegis.serve(counters(), resources={"A": Role.AUTO})
                assert await place.add() == 1
            js = operator.jetstream()
            entries = await js.stream_info(JOURNAL, subjects_filter=LOG.own_anywhere)
            newest = max(entries.state.subjects or {}, key=lambda each: int(each.split(".")[-1]))
            await js.delete_msg(JOURNAL, (await js.get_last_msg(JOURNAL, newest)).seq or 0)
            async with control(server.url, "aegis"):
                lost = await place.lost()
                assert lost["stream"] == JOURNAL
                assert "is an older copy" in lost["reason"]
                await place.refused()
                await place.accepted()
                assert await place.add() == 2
            await operator.close()


async def test_a_log_that_lost_its_ownership_entries_is_not_served_from(tmp_path: Path) -> None:
    """G5, G6: nobody could tell who may write."""
    async with running(tmp_path) as place:
        assert await place.add() == 1
        await place.api(f"STREAM.PURGE.{JOURNAL}", filter=LOG.own_anywhere)
        assert (await place.lost())["stream"] == JOURNAL
        await place.refused()
        await place.accepted()
        assert await place.add() == 2  # the turns are all there


async def test_gates_that_somebody_removes_are_stored_anew(tmp_path: Path) -> None:
    """G1, G8: nothing is lost with them, so a call only waits until its instance notices."""
    async with running(tmp_path) as place:
        assert await place.add() == 1
        assert not place.own_gates()
        await place.api(f"STREAM.PURGE.{JOURNAL}", filter=LOG.gate("*"))
        assert await place.add() == 2
        assert place.own_gates() == 1
        assert not await place.events("log_lost")


async def test_a_store_put_back_from_an_older_copy_is_told_and_not_served_from(
    tmp_path: Path,
) -> None:
    """G3, G6: the server was down meanwhile, and buckets and identities are as they were."""
    async with running(tmp_path) as place:
        assert [await place.add() for _ in range(5)] == [1, 2, 3, 4, 5]
        place.server._end(signal.SIGTERM)
        shutil.copytree(tmp_path / "nats", tmp_path / "copy")
        await asyncio.to_thread(place.server.start)
        assert [await place.add() for _ in range(50)] == list(range(6, 56))
        place.server._end(signal.SIGTERM)
        shutil.rmtree(tmp_path / "nats")
        shutil.move(tmp_path / "copy", tmp_path / "nats")
        await asyncio.to_thread(place.server.start)
        with pytest.raises(aegis_sdk.AegisError):
            await place.aegis.request(ADD, 1, resource="A", timeout_s=2.0)
        loss = await place.lost()
        assert loss["stream"] in (JOURNAL, REQUESTS)
        await place.refused()
        await place.accepted()
        total = await place.add()
        assert total == 6  # what was announced as lost is lost, and nothing else
        assert await place.add() == 7


async def test_a_request_stream_that_begins_again_swallows_no_request(tmp_path: Path) -> None:
    """G1: a sequence of the old stream is no sign that a request of the new one is done."""
    async with running(tmp_path) as place:
        assert [await place.add() for _ in range(5)] == [1, 2, 3, 4, 5]
        await place.api(f"STREAM.DELETE.{REQUESTS}")
        assert (await place.lost())["stream"] == REQUESTS
        await place.refused()
        await place.accepted()
        assert [await place.add() for _ in range(3)] == [6, 7, 8]  # the journal has the state
        assert await place.aegis.request(HALVE, 8) == 4


async def test_a_service_that_lost_nothing_has_no_loss_to_accept(tmp_path: Path) -> None:
    """An operator who mistakes the service changes nothing."""
    async with running(tmp_path, instances=1) as place:
        assert await place.add() == 1
        await place.cli("accept-loss", "counters", code=5)
        await place.cli("accept-loss", "nobody", code=3)
        assert await place.add() == 2


@pytest.mark.parametrize("name", [NAMES.leases_bucket, NAMES.registry_bucket, NAMES.control_bucket])
async def test_a_deleted_bucket_is_made_again_and_fills_itself(tmp_path: Path, name: str) -> None:
    """G5, G8: epochs stand in the log, instances come back by themselves; a fresh caller finds them."""
    async with running(tmp_path) as place:
        assert [await place.add() for _ in range(3)] == [1, 2, 3]
        await place.api(f"STREAM.DELETE.KV_{name}")

        async def made_again() -> bool:
            return f"KV_{name}" in {e["stream"] for e in await place.events("stream_made_again")}

        await until(made_again)
        async with aegis_sdk.connect(place.url) as fresh:

            async def served() -> bool:
                try:
                    return await fresh.request(ADD, 0, resource="A", timeout_s=2.0) == 3
                except aegis_sdk.AegisError:
                    return False

            await until(served)
        assert await place.add() == 4

        async def is_led() -> bool:
            with contextlib.suppress(AssertionError):
                return bool(await place.cli("show-route", "A"))
            return False

        await until(is_led)  # without its bucket control has no leader for a moment
        # A failover afterwards works, too: the epoch goes on from where it was.
        [before] = await place.cli("show-route", "A")
        standby = {"i-0": "i-1", "i-1": "i-0"}[before["active"]]
        await until(lambda: place.moved("A", standby))
        [after] = await place.cli("show-route", "A")
        assert after["epoch"] > before["epoch"]
        assert await place.add() == 5


async def test_leases_put_back_from_an_older_copy_are_brought_up_to_the_log(
    tmp_path: Path,
) -> None:
    """G5: who is active stands in the log; the lease that callers and operators read agrees again."""
    async with running(tmp_path) as place:
        assert await place.add() == 1
        [old] = await place.cli("show-route", "A")
        bucket = f"KV_{NAMES.leases_bucket}"
        key = f"$KV.{NAMES.leases_bucket}.{NAMES.lease_key('counters', 'A')}"
        stored = await place.operator.jetstream().get_last_msg(bucket, key)
        standby = {"i-0": "i-1", "i-1": "i-0"}[old["active"]]
        await until(lambda: place.moved("A", standby))
        await place.operator.jetstream().publish(key, stored.data or b"")

        async def agrees() -> bool:
            found = json.loads(
                (await place.operator.jetstream().get_last_msg(bucket, key)).data or b""
            )
            return bool(found["epoch"] == 2 and found["owner"] == standby)

        await until(agrees)
        assert await place.add() == 2


async def test_a_deleted_group_consumer_is_made_again_from_where_it_was(tmp_path: Path) -> None:
    """G1, G2: requests that wait are served, and those that were served are not run again."""
    async with running(tmp_path) as place:
        for number in range(20):
            assert await place.aegis.request(HALVE, 2 * number) == number
        ran = len(RAN)
        await place.api(f"CONSUMER.DELETE.{REQUESTS}.any")
        assert await place.aegis.request(HALVE, 84, timeout_s=15.0) == 42
        assert len(RAN) == ran + 1

        async def is_told() -> bool:
            return bool(await place.events("consumer_made_again"))

        await until(is_told)


async def test_a_journal_and_the_registry_lost_together_are_told_all_the_same(
    tmp_path: Path,
) -> None:
    """G6: without what the registry kept of the log, the leases tell that there was one."""
    async with running(tmp_path) as place:
        assert [await place.add() for _ in range(3)] == [1, 2, 3]
        await place.api(f"STREAM.DELETE.KV_{NAMES.registry_bucket}")
        await place.api(f"STREAM.DELETE.{JOURNAL}")
        assert (await place.lost())["stream"] == JOURNAL
        await place.accepted()
        assert await place.add() == 1


async def test_an_instance_that_halts_tells_that_it_is_not_active_any_more(tmp_path: Path) -> None:
    """What on_promoted began, on_demoted ends, also when it is the log that went away."""
    told: list[str] = []
    service = counters()
    service.on_promoted(lambda resource: told.append(f"promoted {resource}"))
    service.on_demoted(lambda resource: told.append(f"demoted {resource}"))
    async with running(tmp_path, instances=0) as place:
        await place.aegis.serve(service, resources={"A": Role.AUTO}, wait_s=10.0)
        assert await place.add() == 1
        await place.api(f"STREAM.DELETE.{JOURNAL}")
        await place.refused()
        await place.accepted()
        assert told == ["promoted A", "demoted A", "promoted A"]


@pytest.mark.parametrize("consumers_too", [False, True])
async def test_what_was_done_is_not_done_again_when_only_its_outcome_is_lost(
    tmp_path: Path, consumers_too: bool
) -> None:
    """G3: without a deadline too, and beside a resource that was never asked for anything."""
    async with running(tmp_path) as place:
        assert await place.moved("B", "i-1")
        ids = [await place.add_soon(delta) for delta in range(1, 11)]
        assert [await place.answered(each) for each in ids][-1] == 55
        if consumers_too:
            for name in (await place.api(f"CONSUMER.NAMES.{REQUESTS}"))["consumers"]:
                await place.api(f"CONSUMER.DELETE.{REQUESTS}.{name}")
        await place.api(f"STREAM.DELETE.{JOURNAL}")
        assert (await place.lost())["stream"] == JOURNAL
        await place.accepted()
        assert await place.add(100) == 100
        assert await place.add(200, "B") == 200
        assert [delta for delta in ADDED if delta] == [*range(1, 11), 100, 200]


async def test_what_waits_while_the_journal_is_emptied_is_done_afterwards(tmp_path: Path) -> None:
    """G1: that no entry says who owns it gives it to nobody else; nobody else has these requests."""
    async with running(tmp_path) as place:
        assert await place.add() == 1
        held = await place.add_soon(HOLD)
        ids = [await place.add_soon(delta) for delta in range(1, 21)]
        await until(lambda: _true(HOLD in ADDED))
        await place.api(f"STREAM.PURGE.{JOURNAL}")
        RELEASED.set()
        await place.lost()
        await place.accepted()
        for each in (held, *ids):
            await place.answered(each)
        assert await place.add(0) == HOLD + 210


async def test_no_state_is_made_of_changes_whose_beginning_is_lost(tmp_path: Path) -> None:
    """G6: what is left of an emptied journal are the last changes to a state that is lost."""
    async with running(tmp_path) as place:
        assert [await place.put(n) for n in range(5)] == [1, 2, 3, 4, 5]
        await place.api(f"STREAM.PURGE.{JOURNAL}", keep=2)
        await place.lost()
        await place.accepted()
        assert await place.put(9) == 2  # with the total that was asked for above


async def test_an_older_copy_that_others_have_written_on_is_told(tmp_path: Path) -> None:
    """G3, G5: its end says nothing then; an entry or a request that is not where it was does."""
    async with running(tmp_path) as place:
        assert [await place.add() for _ in range(3)] == [1, 2, 3]
        await place.copied(
            tmp_path / "copy"
        )  # each instance stores a claim and a gate for its new connection

        async def claimed() -> bool:
            state = (await place.api(f"STREAM.INFO.{JOURNAL}"))["state"]
            return bool(state["num_deleted"] >= 2)

        await until(claimed)
        await _write_on(tmp_path / "copy")
        await place.put_back(tmp_path / "copy")
        assert (await place.lost())["stream"] in (JOURNAL, REQUESTS)
        await place.accepted()
        assert await place.add() == 4


async def _write_on(copy: Path) -> None:
    """As callers do that give up, before any instance has come back."""
    with EmbeddedNats(copy) as server:
        client = await nats.connect(server.url)
        for n in range(50):
            await client.jetstream().publish(LOG.end("A", f"stranger.{n}"), b"")
        await client.close()


async def test_an_epoch_never_begins_again_in_an_older_copy(tmp_path: Path) -> None:
    """G5: others may compare epochs, and the copy knows nothing of those that came after it."""
    async with running(tmp_path) as place:
        assert await place.add() == 1
        await place.copied(tmp_path / "copy")
        [old] = await place.cli("show-route", "A")
        others = {"i-0": "i-1", "i-1": "i-0"}
        await until(lambda: place.moved("A", others[old["active"]]))
        assert [await place.add() for _ in range(20)][-1] == 21
        [moved] = await place.cli("show-route", "A")
        await place.put_back(tmp_path / "copy")
        await place.lost()
        await place.refused()
        await place.accepted()
        assert await place.add() == 2
        [now] = await place.cli("show-route", "A")
        assert now["epoch"] > moved["epoch"] > old["epoch"]


async def test_who_waits_for_a_request_that_is_lost_is_told_soon(tmp_path: Path) -> None:
    """G4: without a deadline nobody would end the doubt; who asked with one is served after all."""
    async with running(tmp_path) as place:
        held = await place.add_soon(HOLD)
        await until(lambda: _true(HOLD in ADDED))
        lost = await place.add_soon(1)
        waiting = asyncio.create_task(place.aegis.attach(lost, ADD, timeout_s=300.0))
        asking = asyncio.create_task(place.aegis.request(ADD, 2, resource="A", timeout_s=300.0))
        await until(place.knows_the_log_of_both)
        await place.api(f"STREAM.DELETE.{REQUESTS}")
        assert (await place.lost())["stream"] == REQUESTS
        await place.accepted()
        async with asyncio.timeout(10.0):
            with pytest.raises(aegis_sdk.NeverAccepted):
                await waiting
            assert await asking == 2
        with pytest.raises(aegis_sdk.NeverAccepted):
            await place.aegis.attach(held, ADD, timeout_s=0.1)


async def _true(value: bool) -> bool:
    return value
