"""The log, as a writer stores to it, readers read it, and callers hear and ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import pytest
from aegis_sdk.application.ports import GateRefused
from aegis_sdk.application.turns.ports import WriterLog
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.domain.turns.entries import Claim, End, Entry, Gate, Saved, Turn
from aegis_sdk.domain.turns.output import Save
from aegis_sdk.domain.turns.work import Work, Write

from tests.contract.worlds import WAIT_S, Ports, World, executed, request, until

ODD = "Müller.株式*>"


class Writer:
    """A writer's log that waits for what became of each write."""

    def __init__(self, log: WriterLog) -> None:
        self.log = log
        self._told: dict[Write, asyncio.Future[str]] = {}
        log.on_stored = lambda write, _: self._told[write].set_result("stored")
        log.on_refused = lambda write: self._told[write].set_result("refused")
        log.on_taken = lambda write: self._told[write].set_result("taken")

    async def store(self, write: Write) -> str:
        self._told[write] = asyncio.get_running_loop().create_future()
        self.log.store(write)
        self.log.push()
        async with asyncio.timeout(WAIT_S):
            return await self._told[write]


def turn(k: int, gate: int, *requests: Request, outcome: Outcome | None = None) -> Write:
    """`k` 0: a single."""
    write = Write(k, gate)
    for each in requests:
        write.add(Work(each, sent_s=0.0, pure=True), outcome or executed())
    return write


class Reading:
    """What a reader gives."""

    def __init__(self) -> None:
        self.entries: list[Entry | Claim] = []
        self.unreadable: list[str] = []

    def take(self, entry: Entry | Claim) -> None:
        self.entries.append(entry)

    def miss(self, seq: int, why: str, words: Sequence[str]) -> None:
        self.unreadable.append(why)

    @property
    def kinds(self) -> list[str]:
        return [type(entry).__name__ for entry in self.entries]


def ids(entries: Iterable[Entry | Claim]) -> list[str]:
    return [s.request_id for entry in entries if isinstance(entry, Turn) for s in entry.settled]


async def test_a_turn_is_stored_under_the_newest_gate_of_its_writer_and_no_other(
    world: World, ports: Ports
) -> None:
    """G5: whoever has stored a newer gate has the next turn refused; the gates of others are no matter."""
    writer, other = Writer(ports.log), (await world.connect()).log
    first, second, third = (request(world.service, f"c.{n}") for n in (1, 2, 3))
    gate = await ports.log.gate(ports.caller)
    assert await writer.store(turn(1, gate, first, second)) == "stored"
    await other.gate("another")
    assert await writer.store(turn(2, gate, third)) == "stored"
    newer = await other.gate(ports.caller)
    refused = turn(3, gate, request(world.service, "c.4"))
    assert await writer.store(refused) == "refused"
    assert await writer.store(turn(3, newer, request(world.service, "c.4"))) == "stored"


async def test_what_is_stored_again_is_taken(world: World, ports: Ports) -> None:
    """G2: each subject takes one entry, a single whoever stores it."""
    writer, gate = Writer(ports.log), await ports.log.gate(ports.caller)
    several = [request(world.service, f"c.{n}") for n in (1, 2)]
    alone = request(world.service, "c.3")
    group = request(world.service, "c.4", None)
    for write in (turn(1, gate, *several), turn(2, gate, alone), turn(0, 0, group)):
        assert await writer.store(write) == "stored"
        assert await writer.store(write) == "taken"


async def test_a_reader_gives_the_log_in_order_from_where_it_is_told(
    world: World, ports: Ports
) -> None:
    """G6: with what each outcome changed, whatever its resource is called."""
    writer, gate = Writer(ports.log), await ports.log.gate(ports.caller)
    outcome = Outcome(OutcomeKind.EXECUTED, b"1", b'{"set":{"a":1},"delete":[]}', number=7)
    odd = request(world.service, "c.1", ODD)
    assert await writer.store(turn(1, gate, odd, outcome=outcome)) == "stored"
    whole, rest = Reading(), Reading()
    sources = [
        ports.readers.log(whole.take, whole.miss, is_main=False),
        ports.readers.log(rest.take, rest.miss, is_main=False),
    ]
    await sources[0].start()
    await sources[1].start(after=gate)
    assert await writer.store(turn(2, gate, request(world.service, "c.2"))) == "stored"
    last = await ports.log.gate("end")
    await until(lambda: [source.position for source in sources] == [last, last])
    assert whole.kinds == ["Gate", "Turn", "Turn", "Gate"]
    assert rest.kinds == ["Turn", "Turn", "Gate"]
    assert ids(rest.entries) == ["c.1", "c.2"]
    (settled,) = [e.settled[0] for e in rest.entries[:1] if isinstance(e, Turn)]
    assert (settled.resource, settled.outcome) == (ODD, outcome)
    assert whole.unreadable == []
    for source in sources:
        await source.stop()


@pytest.mark.parametrize("resource", [None, "ACC 1"])
@pytest.mark.parametrize("number", [".1", ".1t"])
async def test_the_log_tells_a_caller_the_outcome_that_stands_alone(
    world: World, ports: Ports, resource: str | None, number: str
) -> None:
    """G8: the one that is stored; who waits for another's request is told as well."""
    server = await world.connect()
    writer, told = Writer(server.log), dict[str, list[Outcome]]()
    for calls in (ports.calls, server.calls):
        calls.on_outcome = lambda id_, outcome: told.setdefault(id_, []).append(outcome)
    asked = request(world.service, ports.caller + number, resource)
    await ports.calls.expect(asked.request_id)
    await server.calls.expect(asked.request_id)
    gate = 0 if resource is None else await server.log.gate(server.caller)
    is_single = resource is None or number.endswith("t")
    assert await writer.store(turn(0 if is_single else 1, gate, asked)) == "stored"
    await until(lambda: len(told.get(asked.request_id, [])) == 2)
    assert told == {asked.request_id: [executed(), executed()]}


async def test_a_single_is_found_under_its_name_and_any_outcome_by_looking(
    world: World, ports: Ports
) -> None:
    """G3: what is not there is not found."""
    writer, gate = Writer(ports.log), await ports.log.gate(ports.caller)
    key = request(world.service, f"key-{world.service}.k", "A")
    shared = [request(world.service, f"c.{n}", "A") for n in (1, 2)]
    child = request(world.service, "c~1.1", "A")
    assert await writer.store(turn(0, gate, key)) == "stored"
    assert await writer.store(turn(0, gate, child)) == "stored"
    assert await writer.store(turn(1, gate, *shared)) == "stored"
    end = await ports.log.gate("end")
    found = await ports.outcomes.named(key, anywhere=False)
    assert found is not None
    assert (found.outcome, found.payload) == (executed(), key.payload)
    elsewhere = request(world.service, key.request_id, "B")
    assert await ports.outcomes.named(elsewhere, anywhere=False) is None
    assert await ports.outcomes.named(elsewhere, anywhere=True) == found
    assert await ports.outcomes.anywhere(shared[1], timeout_s=WAIT_S) == executed()
    unknown = request(world.service, "c.9", "A")
    assert await ports.outcomes.anywhere(unknown, timeout_s=WAIT_S) is None
    looked = await ports.log.find_all(["c.1", "c.2", "c.9", key.request_id], to_seq=end)
    assert looked == dict.fromkeys(["c.1", "c.2", key.request_id], executed())
    assert await ports.outcomes.children(world.service, "c~1") == ["c~1.1"]


async def test_a_checkpoint_is_stored_under_its_writers_gate_and_replaces_the_one_before(
    world: World, ports: Ports
) -> None:
    """G5, G6: one of a former owner would hide what the next one stored."""
    gate = await ports.log.gate(ports.caller)
    one, two, late = (
        Checkpoint(ports.caller, ODD, read=n, number=n, values=b'{"a":%d}' % n) for n in (1, 2, 3)
    )
    await ports.log.save(Save(one, gate))
    await ports.log.save(Save(two, gate))
    await ports.log.gate(ports.caller)
    with pytest.raises(GateRefused):
        await ports.log.save(Save(late, gate))
    found = await ports.readers.checkpoints([ODD, "other"])
    assert list(found) == [ODD]
    saved = found[ODD]
    assert isinstance(saved, tuple)
    assert saved[0] == Checkpoint.decode(two.encode())
    reading = Reading()
    source = ports.readers.log(reading.take, reading.miss, is_main=False)
    await source.start()
    await until(lambda: "Saved" in reading.kinds)
    assert [e.checkpoint for e in reading.entries if isinstance(e, Saved)] == [saved[0]]
    await source.stop()


async def test_begins_of_a_groups_request_are_noted(world: World, ports: Ports) -> None:
    """G2: by any member, for the next one."""
    other = (await world.connect()).log
    assert await ports.log.begins("c.1") == 0
    for n in (1, 2):
        await ports.log.note_begin("c.1", n)
        assert await other.begins("c.1") == n
    assert await ports.log.begins("c.2") == 0


async def test_who_gives_up_is_told_the_outcome_or_that_there_never_will_be_one(
    world: World, ports: Ports
) -> None:
    """G4: what has none is ended, so that no turn under an older gate can hold it."""
    server = await world.connect()
    writer, gate = Writer(server.log), await server.log.gate(server.caller)
    await world.own({"A": server.caller})
    done, open_ = (request(world.service, f"c.{n}", "A") for n in (1, 2))
    group = request(world.service, "c.3", None)
    assert await writer.store(turn(1, gate, done)) == "stored"
    async with asyncio.timeout(WAIT_S):
        told = await ports.last_word.settle(
            world.service, [done, open_, group], open_s=1.0, stored=True
        )
    assert told["c.1"] == executed()
    assert {outcome.kind for name, outcome in told.items() if name != "c.1"} <= {
        OutcomeKind.CANCELLED
    }
    assert await writer.store(turn(2, gate, open_)) == "refused"
    assert await writer.store(turn(0, 0, group)) == "taken"
    reading = Reading()
    source = server.readers.log(reading.take, reading.miss, is_main=False)
    await source.start()
    await until(lambda: "c.2" in {e.request_id for e in reading.entries if isinstance(e, End)})
    end = next(e for e in reading.entries if isinstance(e, End) and e.request_id == "c.2")
    assert end.resource == "A"
    gates = [e.seq for e in reading.entries if isinstance(e, Gate) and e.writer == server.caller]
    assert gates[-1] > end.seq
    await source.stop()


async def test_a_dead_letter_that_is_stored_twice_is_one(world: World, ports: Ports) -> None:
    asked = request(world.service, "c.1")
    outcome = Outcome.error(OutcomeKind.FAILED, "gave_up", "begun 3 times")
    for _ in range(2):
        await ports.letters.dead_letter(asked, outcome)
    assert await world.dead_letters() == ["c.1"]
