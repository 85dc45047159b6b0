"""The log on a real server: what becomes of a turn, and what can be found again."""

from __future__ import annotations

import asyncio
import bisect
import time
from collections.abc import Sequence
from typing import Any

import pytest
from aegis_sdk.application.ports import AlreadyStored
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.turns.entries import TURN
from aegis_sdk.domain.turns.entries import Claim, Entry, Gate, Turn
from aegis_sdk.domain.turns.work import Work, Write
from aegis_sdk.infrastructure.consumer import Meta
from aegis_sdk.infrastructure.turns import log as turns_log
from aegis_sdk.infrastructure.turns import search
from aegis_sdk.infrastructure.turns.log import TurnLog, store_cancel, store_end, store_gate
from aegis_sdk.infrastructure.turns.outcomes import LogOutcomes
from aegis_sdk.infrastructure.turns.reader import LogReader
from aegis_sdk.nats.jetstream import JetStream, Outgoing
from aegis_sdk.nats.wire import Message

from tests.integration.turns.support import WAIT_S, World


def turn(k: int, gate: int, *request_ids: str, body: bytes = b"1") -> Write:
    write = Write(k, gate)
    for request_id in request_ids:
        work = Work(Request(request_id, "accounts", "add", "A", b"{}"), sent_s=0.0, pure=True)
        write.add(work, Outcome(OutcomeKind.EXECUTED, body, epoch=1))
    return write


class Answers:
    """A writer's log that waits for what became of each write."""

    def __init__(self, log: TurnLog) -> None:
        self.log = log
        self._waiting: dict[int, asyncio.Future[str]] = {}
        log.on_stored = lambda write, _: self._tell(write, "stored")
        log.on_refused = lambda write: self._tell(write, "refused")
        log.on_taken = lambda write: self._tell(write, "taken")

    async def store(self, write: Write) -> str:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[id(write)] = future
        self.log.store(write)
        async with asyncio.timeout(WAIT_S):
            return await future

    def _tell(self, write: Write, what: str) -> None:
        self._waiting.pop(id(write)).set_result(what)


async def writer(world: World, name: str = "w1") -> Answers:
    log = TurnLog(await world.link(), world.names, writer=name, nonce="n")
    await log.open()
    return Answers(log)


class Early:
    """A link that says of the first batch that it exists, as a cluster may while an earlier try is on its way."""

    def __init__(self, link: Any) -> None:
        self._link = link
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    async def store_together(self, *arguments: Any, **options: Any) -> Any:
        self.asked += 1
        if self.asked == 1:
            raise AlreadyStored("it is on its way")
        return await self._link.store_together(*arguments, **options)


@pytest.mark.plain
async def test_a_batch_that_is_on_its_way_is_no_clash(world: World) -> None:
    """R10: computed again, it would be another turn of that number, and its writer would take itself for a copy."""
    answers = await writer(world)
    gate = await store_gate(await world.link(), world.names, "w1")
    early = Early(answers.log._link)
    answers.log._link = early  # type: ignore[assignment]
    answers.log.on_clashed = lambda write: pytest.fail("none of its singles is there")
    batch = turn(1, gate, "c.1")
    request = Request("c~1.1", "accounts", "add", "A", b"{}")
    single = Work(request, sent_s=0.0, pure=True, single=True)
    batch.add_single(single, Outcome(OutcomeKind.EXECUTED, b"1", epoch=1))
    assert await answers.store(batch) == "stored"
    assert early.asked == 2


async def test_a_turn_is_stored_under_the_newest_gate_and_no_other(world: World) -> None:
    """R1, R3: whoever has stored a newer gate has the writer's next turn refused."""
    answers, link = await writer(world), await world.link()
    gate = await store_gate(link, world.names, "w1")
    assert await answers.store(turn(1, gate, "c.1", "c.2")) == "stored"
    await store_gate(link, world.names, "another")
    assert await answers.store(turn(2, gate, "c.3")) == "stored"
    newer = await store_gate(link, world.names, "w1")
    assert await answers.store(turn(3, gate, "c.4")) == "refused"
    assert await answers.store(turn(3, newer, "c.4")) == "stored"


async def test_a_turn_that_is_stored_again_is_taken(world: World) -> None:
    """Its subject takes one entry: to try again after an answer that was lost is harmless."""
    answers = await writer(world)
    gate = await store_gate(await world.link(), world.names, "w1")
    for write in (turn(1, gate, "c.1", "c.2"), turn(2, gate, "c.3")):
        assert await answers.store(write) == "stored"
        assert await answers.store(write) == "taken"


@pytest.mark.scenario
async def test_no_turn_slips_past_a_gate(world: World) -> None:
    """R3: while others store gates without a condition, on another connection."""
    answers, link = await writer(world), await world.link()
    gates = [await store_gate(link, world.names, "w1")]
    stored_under: dict[int, int] = {}
    seen: list[Entry | Claim] = []
    reader = LogReader(link, world.names, on_entry=seen.append, on_unreadable=_never)
    ending = asyncio.Event()

    async def bump() -> None:
        while not ending.is_set():
            gates.append(await store_gate(link, world.names, "w1"))
            await asyncio.sleep(0.001)

    bumping = asyncio.create_task(bump())
    refused = 0
    for k in range(1, 300):
        gate = gates[-1]
        if await answers.store(turn(k, gate, f"c.{k}")) == "stored":
            stored_under[k] = gate
        else:
            refused += 1
    ending.set()
    await bumping
    await reader.start()
    await reader.reached(await store_gate(link, world.names, "end"))
    await reader.stop()
    turns = [entry for entry in seen if isinstance(entry, Turn)]
    assert len(turns) == len(stored_under)
    assert refused
    for entry in turns:
        assert isinstance(entry.name, int)
        after = bisect.bisect_right(gates, stored_under[entry.name])
        assert after == len(gates) or gates[after] > entry.seq


async def test_an_outcome_is_found_wherever_it_stands(world: World) -> None:
    """Alone in its turn, among others, under its own name; and what is not there is not found."""
    answers, link = await writer(world), await world.link()
    gate = await store_gate(link, world.names, "w1")
    await answers.store(turn(1, gate, "c.1", body=b"10"))
    await answers.store(turn(2, gate, "c.2", "c.3", body=b"20"))
    await answers.store(turn(0, gate, "key-accounts.k", body=b"30"))
    end = await store_end(link, world.names, "A", "c.9", kept_s=60)
    for request_id, body in {
        "c.1": b"10",
        "c.2": b"20",
        "c.3": b"20",
        "key-accounts.k": b"30",
    }.items():
        found = await answers.log.find(request_id, to_seq=end)
        assert found is not None
        assert found.body == body
    assert await answers.log.find("c.4", to_seq=end) is None


async def test_an_outcome_that_cannot_be_read_is_a_definite_answer(small_world: World) -> None:
    """G4: its request has ended, and nobody runs it again or waits for it in vain. Others are not concerned."""
    answers, link, names = await writer(small_world), await small_world.link(), small_world.names
    group = Request("c.9", "accounts", "greet", None, b"{}")
    for subject, request_ids in {
        names.turn("w2", 1): "c.1,c.2",
        names.turn_of_one("w2", 2, "c.3"): "c.3",
        names.single("A", "key-accounts.k"): "key-accounts.k",
        names.single(None, group.request_id): group.request_id,
    }.items():
        await link.store(subject, b"9 from the future", {TURN: request_ids}, timeout_s=WAIT_S)
    end = await store_end(link, names, "A", "c.1", kept_s=60)
    outcomes = LogOutcomes(link, small_world.subjects)
    for wanted in (["c.1"], ["c.3"], ["key-accounts.k"], ["c.1", "c.5", "c.6", "c.7", "c.8"]):
        found = await answers.log.find_all(wanted, to_seq=end)
        assert found.keys() == {wanted[0]}
        attached = await outcomes.anywhere(
            Request(wanted[0], "accounts", "add", None, b""), timeout_s=WAIT_S
        )
        for outcome in (found[wanted[0]], attached):
            assert outcome is not None
            assert outcome.kind is OutcomeKind.UNREADABLE
            assert b"this one reads 1" in outcome.body
    assert (await store_cancel(link, names, group)).kind is OutcomeKind.UNREADABLE


async def test_an_end_is_stored_once(world: World) -> None:
    link = await world.link()
    first = await store_end(link, world.names, "A", "c.1", kept_s=60)
    assert await store_end(link, world.names, "A", "c.1", kept_s=60) == first


async def test_a_reader_goes_on_behind_what_it_gave(small_world: World) -> None:
    """Over a connection that breaks: each entry once, in order, its own writer's without their outcomes."""
    answers = await writer(small_world)
    link = await small_world.link()
    gate = await store_gate(link, small_world.names, "w1")
    seen: list[Entry | Claim] = []
    reader = LogReader(
        link, small_world.names, on_entry=seen.append, on_unreadable=_never, own="w1"
    )
    await reader.start()
    last = 0
    for k in range(1, 40):
        assert await answers.store(turn(k, gate, f"c.{k}")) == "stored"
        if k % 10 == 0:
            link.client._transport.close()  # type: ignore[union-attr]
    last = await store_gate(await small_world.link(), small_world.names, "w2")
    async with asyncio.timeout(WAIT_S):
        await reader.reached(last)
    await reader.stop()
    numbers = [entry.name for entry in seen if isinstance(entry, Turn)]
    assert numbers == list(range(1, 40))
    assert all(not entry.settled for entry in seen if isinstance(entry, Turn))
    assert isinstance(seen[0], Gate)


def _never(seq: int, why: str, words: Sequence[str]) -> None:
    raise AssertionError(f"{seq}: {why}")


async def test_a_search_ends_where_what_it_goes_up_to_is_gone(world: World) -> None:
    """G8: an end goes with its time to live, and a log that stands still brings nothing behind it."""
    answers, link = await writer(world), await world.link()
    gate = await store_gate(link, world.names, "w1")
    await answers.store(turn(1, gate, "c.1"))
    seq = await store_end(link, world.names, "A", "c.2", kept_s=60.0)
    await link.api(f"STREAM.MSG.DELETE.{world.names.stream}", {"seq": seq})
    async with asyncio.timeout(search.LOOK_S + WAIT_S / 4):
        found = await answers.log.find_all(["c.1", "c.3"], to_seq=seq)
    assert list(found) == ["c.1"]


async def test_a_long_log_is_read_to_its_end(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: while it comes it is waited for; a new owner that gave up on it after a while began anew, for ever."""
    many, silence_s, look = 2_000, 1.0, search._Search._look

    def slowly(reading: search._Search, message: Message, meta: Meta) -> None:
        time.sleep(silence_s / many)
        look(reading, message, meta)

    monkeypatch.setattr(search._Search, "_look", slowly)
    monkeypatch.setattr(search, "CREDIT", 100)
    monkeypatch.setattr(search, "LOOK_S", 0.05)
    monkeypatch.setattr(turns_log, "FIND_SILENCE_S", silence_s)
    answers, link = await writer(small_world), await small_world.link()
    gate = await store_gate(link, small_world.names, "w1")
    js = JetStream(link)
    for at in range(0, many, 500):
        ends = [small_world.names.end("A", f"x.{n}") for n in range(at, at + 500)]
        await js.publish_all([Outgoing(subject, b"") for subject in ends])
    await answers.store(turn(1, gate, "c.1", "c.2"))
    begun_s = time.monotonic()
    found = await answers.log.find_all(["c.2"], to_seq=many + 2)
    assert list(found) == ["c.2"]
    assert time.monotonic() - begun_s > silence_s
