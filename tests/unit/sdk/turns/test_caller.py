"""When a caller is in doubt, and what it does then: against an owner and a store that are told what to say (G1, G4)."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Collection, Sequence

import pytest
from aegis_sdk.application.ports import Accepted, StoreFull, StoreUnreachable
from aegis_sdk.application.turns.caller import Caller
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.turns.entries import Record
from aegis_sdk.contract.turns.sent import Answer
from aegis_sdk.errors import Draining, OutcomeUnknown
from aegis_sdk.infrastructure.turns.assembly import EveryoneThere


class Owner:
    """Stands for the owner of all resources, and for NATS between; `serve` says what it answers at once."""

    def __init__(self) -> None:
        self.on_outcome: Callable[[str, Outcome], None] = lambda request_id, outcome: None
        self.on_answer: Callable[[str, Answer], None] = lambda request_id, answer: None
        self.on_served: Callable[[str, str, Collection[str]], None] = lambda *_: None
        self.sent: list[tuple[str, int]] = []
        self.cancelled: list[str] = []
        self.members: list[str] = []
        self.silent = False
        self.expected: list[str] = []

    def send(self, request: Request, *, sent_s: float, after: int, member: str) -> None:
        self.sent.append((request.request_id, after))
        self.members.append(member)
        if not self.silent and request.method == "quick":
            asyncio.get_running_loop().call_soon(self.answer, request.request_id)

    def answer(self, request_id: str, kind: OutcomeKind = OutcomeKind.EXECUTED) -> None:
        self.on_outcome(request_id, Outcome(kind, b"1", instance_id="accounts-1"))

    def cancel(self, request: Request, *, member: str) -> None:
        self.cancelled.append(request.request_id)

    async def expect(self, request_id: str) -> None:
        self.expected.append(request_id)

    def forget(self, request_id: str) -> None:
        self.expected.remove(request_id)


class Stream:
    """Stands for the stored requests."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.given_to: list[str] = []
        self.changed = asyncio.Event()
        self.down = False
        self.full = False

    async def append(self, request: Request, *, timeout_s: float) -> Accepted:
        if self.down:
            raise StoreUnreachable("down")
        if self.full:
            raise StoreFull("full")
        self.requests.append(request.request_id)
        self.given_to.append(request.given_to)
        self.changed.set()
        return Accepted(len(self.requests), duplicate=False)

    async def has(self, count: int) -> None:
        while len(self.requests) < count:
            self.changed.clear()
            await self.changed.wait()

    def post(self, request: Request) -> None:
        raise NotImplementedError

    async def find(self, service: str, request_id: str, *, timeout_s: float) -> Request | None:
        raise NotImplementedError

    async def services(self) -> list[str]:
        raise NotImplementedError

    async def read(self, service: str, seq: int) -> Request | None:
        raise NotImplementedError


class Log:
    """Stands for the log: what is in `outcomes` is there."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.asked: list[tuple[set[str], bool]] = []
        self.down = self.full = False
        self.hangs: set[str] = set()
        """Services whose log says nothing."""
        self.bug: Exception | None = None

    async def settle(
        self, service: str, requests: Sequence[Request], *, open_s: float, stored: bool
    ) -> dict[str, Outcome]:
        ids = {request.request_id for request in requests}
        self.asked.append((ids, stored))
        if service in self.hangs:
            await asyncio.Event().wait()
        if self.bug is not None:
            raise self.bug
        if self.down:
            raise StoreUnreachable("down")
        if self.full:
            raise StoreFull("full")
        return {i: outcome for i, outcome in self.outcomes.items() if i in ids}

    async def named(self, request: Request, *, anywhere: bool) -> Record | None:
        outcome = await self.anywhere(request, timeout_s=1.0)
        if outcome is None:
            return None
        return Record(request.request_id, request.resource, request.method, b"{}", outcome)

    async def anywhere(self, request: Request, *, timeout_s: float) -> Outcome | None:
        if self.down:
            raise StoreUnreachable("down")
        return self.outcomes.get(request.request_id)

    async def children(self, service: str, parent_token: str) -> list[str]:
        return []


class Known(EveryoneThere):
    """Stands for what control says."""

    def __init__(self) -> None:
        super().__init__(["a", "b", "c"])
        self.log_id = "log-1"
        self.loss = ""

    def lost(self, service: str) -> str:
        return self.loss

    def requests_log(self, service: str) -> str:
        return self.log_id


class World:
    def __init__(self, *, resolve_s: float = 3.0) -> None:
        self.owner, self.stream, self.log = Owner(), Stream(), Log()
        self.directory = Known()
        self.caller = Caller(
            calls=self.owner,
            requests=self.stream,
            last_word=self.log,
            outcomes=self.log,
            directory=self.directory,
            resolve_s=resolve_s,
        )
        self._numbers = itertools.count(1)

    def call(
        self,
        method: str = "quick",
        resource: str | None = "A",
        timeout_s: float = 5.0,
        *,
        service: str = "accounts",
        stored: bool = False,
    ) -> asyncio.Task[Outcome]:
        request_id = f"c.{next(self._numbers)}"
        made = Method(service, method, request=dict, reply=int, stored=stored)
        request = Request(
            *(request_id, service, method, resource, b"{}"), deadline_s=time.time() + timeout_s
        )
        return asyncio.create_task(self.caller.settle(request, made, again=False))


@pytest.fixture
async def world() -> World:
    return World()


async def test_an_owner_that_answers_others_is_not_in_doubt(world: World) -> None:
    """What waits in its queue is not stored: that would be a storm whenever there is too much to do."""
    await world.call()
    waiting = world.call("slow")
    ends_s = asyncio.get_running_loop().time() + 0.3
    while asyncio.get_running_loop().time() < ends_s:
        await world.call()
        await asyncio.sleep(0.005)
    assert world.stream.requests == []
    world.owner.answer("c.2")
    await waiting


async def test_a_silent_owner_is_in_doubt(world: World) -> None:
    """The request is stored, once, and sent again with the same number: whoever owns the resource serves it."""
    waiting = world.call("slow")
    await world.stream.has(1)
    while len(world.owner.sent) < 2:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.005)
    assert set(world.owner.sent) == {("c.1", 0)}
    world.owner.answer("c.1")
    await waiting
    assert world.stream.requests == ["c.1"]


@pytest.mark.parametrize("answer", [Answer.MOVED, Answer.NOBODY])
async def test_what_nobody_serves_waits_for_the_new_owner(world: World, answer: Answer) -> None:
    """After a failover thousands of calls are open: they are sent to the new owner, and not stored first."""
    waiting = [world.call("slow", resource) for resource in ("A", "B", "A")]
    await asyncio.sleep(0)
    for n in (1, 2, 3):
        world.owner.on_answer(f"c.{n}", answer)
    world.owner.on_served("accounts", "accounts-2", {"A", "B"})
    assert [request_id for request_id, _ in world.owner.sent] == ["c.1", "c.2", "c.3"] * 2
    for n in (1, 2, 3):
        world.owner.answer(f"c.{n}")
    await asyncio.gather(*waiting)
    assert world.stream.requests == []


@pytest.mark.parametrize("answer", [Answer.BUSY, Answer.LATE])
async def test_what_is_not_taken_is_stored_at_once(world: World, answer: Answer) -> None:
    waiting = world.call("slow")
    await asyncio.sleep(0)
    world.owner.on_answer("c.1", answer)
    async with asyncio.timeout(0.03):
        await world.stream.has(1)
    world.owner.answer("c.1")
    await waiting


async def test_a_new_connection_puts_all_that_is_open_in_doubt(world: World) -> None:
    waiting = [world.call("slow") for _ in range(3)]
    await asyncio.sleep(0)
    world.caller.restored()
    await world.stream.has(3)
    for n in (1, 2, 3):
        world.owner.answer(f"c.{n}")
    await asyncio.gather(*waiting)


async def test_a_later_request_names_the_stored_one_that_comes_before_it(world: World) -> None:
    """G7: a caller's own order holds across both ways; a request that is sent again names what it named at first."""
    first = world.call("slow")
    await world.stream.has(1)
    await asyncio.sleep(0)
    await world.call()
    await world.call(resource="B")
    assert ("c.2", 1) in world.owner.sent
    assert ("c.3", 0) in world.owner.sent
    world.owner.answer("c.1")
    await first


async def test_a_deadline_is_kept_politely(world: World) -> None:
    """The owner is asked, and says how it ended: the log is left alone."""
    waiting = world.call("slow", timeout_s=0.02)
    while not world.owner.cancelled:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.005)
    world.owner.answer("c.1", OutcomeKind.CANCELLED)
    assert (await waiting).kind is OutcomeKind.CANCELLED
    assert world.log.asked == []


async def test_those_that_give_up_together_end_their_doubt_together(world: World) -> None:
    """G4: each is told what the log says, an outcome or that it never takes effect; by few readings of it."""
    world.log.outcomes["c.7"] = Outcome(OutcomeKind.EXECUTED, b"7")
    outcomes = await asyncio.gather(*(world.call("slow", timeout_s=0.02) for _ in range(500)))
    assert [n + 1 for n, o in enumerate(outcomes) if o.kind is OutcomeKind.EXECUTED] == [7]
    assert {o.kind for o in outcomes} == {OutcomeKind.EXECUTED, OutcomeKind.CANCELLED}
    assert len(world.log.asked) < 10


async def test_the_end_of_a_request_that_may_be_stored_says_so(world: World) -> None:
    """Its stored copy may come back for as long as its stream keeps it."""
    await world.call("slow", timeout_s=0.2)
    assert world.stream.requests == ["c.1"]
    assert world.log.asked == [({"c.1"}, True)]


async def test_without_nats_nobody_knows() -> None:
    world = World(resolve_s=0.1)
    world.stream.down = world.log.down = True
    with pytest.raises(OutcomeUnknown):
        await world.call("slow", timeout_s=0.02)


@pytest.mark.parametrize("room", [True, False], ids=["room in time", "no room"])
async def test_what_has_no_room_for_itself_or_its_end_waits_until_its_deadline(room: bool) -> None:
    """G4: its owner may have it, and answers as soon as there is room."""
    world = World(resolve_s=0.05)
    world.stream.full = world.log.full = True
    begun_s = time.monotonic()
    waiting = world.call("slow", timeout_s=1.0, stored=True)
    if room:
        _, pending = await asyncio.wait([waiting], timeout=0.5)
        assert pending
        world.owner.answer("c.1")
        assert (await waiting).kind is OutcomeKind.EXECUTED
    else:
        with pytest.raises(OutcomeUnknown):
            await waiting
        assert time.monotonic() - begun_s >= 1.0


async def test_a_log_that_could_not_be_read_is_read_again(world: World) -> None:
    """G4: NATS was away for a moment; the answer is as definite as without that."""
    world.log.outcomes["c.1"] = Outcome(OutcomeKind.EXECUTED, b"1")
    world.log.down = True
    waiting = world.call("slow", timeout_s=0.02)
    while not world.log.asked:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.005)
    world.log.down = False
    assert (await waiting).kind is OutcomeKind.EXECUTED


async def test_a_service_that_says_nothing_holds_up_no_other_one(world: World) -> None:
    """G4: those that give up on another service are told how it ended."""
    world.log.hangs = {"billing"}
    hanging = world.call("slow", timeout_s=0.02, service="billing")
    while not world.log.asked:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.005)
    async with asyncio.timeout(1.0):
        outcome = await world.call("slow", timeout_s=0.02)
    assert outcome.kind is OutcomeKind.CANCELLED
    assert not hanging.done()
    await world.caller.close(drain_s=0.0)
    with pytest.raises(OutcomeUnknown):
        await hanging


async def test_those_that_come_later_are_told_as_soon_as_the_log_can_be_read() -> None:
    """Each has its own time for that; whose time is over waits no longer for the others."""
    world = World(resolve_s=0.4)
    world.log.down = True
    first = world.call("slow", timeout_s=0.02)
    await asyncio.sleep(0.2)
    second = world.call("slow", timeout_s=0.02)
    with pytest.raises(OutcomeUnknown):
        await first
    assert not second.done()
    world.log.down = False
    assert (await second).kind is OutcomeKind.CANCELLED


async def test_a_fault_of_our_own_leaves_nobody_waiting(world: World) -> None:
    """Whoever gives up is told that nothing is known, whatever went wrong; and the next one is not concerned."""
    world.log.bug = RuntimeError("broken")
    with pytest.raises(OutcomeUnknown, match="broken"):
        async with asyncio.timeout(1.0):
            await world.call("slow", timeout_s=0.02)
    world.log.bug = None
    assert (await world.call("slow", timeout_s=0.02)).kind is OutcomeKind.CANCELLED


async def test_a_client_that_closes_tells_those_that_wait(world: World) -> None:
    waiting = world.call("slow")
    await asyncio.sleep(0)
    await world.caller.close(drain_s=0.0)
    with pytest.raises(OutcomeUnknown):
        await waiting
    with pytest.raises(Draining):
        await world.call()


async def test_group_requests_go_to_the_members_in_turn(world: World) -> None:
    """Consecutive ones reach different instances, and the shares are even."""
    for _ in range(9):
        await world.call(resource=None)
    assert world.owner.members == ["b", "c", "a"] * 3


@pytest.mark.parametrize("answer", [Answer.NOBODY, Answer.MOVED])
async def test_what_a_member_that_is_gone_was_sent_goes_to_the_next_one(
    world: World, answer: Answer
) -> None:
    """It has begun nothing of it, so nothing is in doubt; what no member takes is stored."""
    waiting = world.call("slow", resource=None)
    await asyncio.sleep(0)
    world.owner.on_answer("c.1", answer)
    assert world.owner.sent == [("c.1", 0)] * 2
    world.owner.on_answer("c.1", answer)
    assert sorted(world.owner.members) == ["a", "b", "c"]
    assert world.stream.requests == []
    world.owner.on_answer("c.1", answer)
    await world.stream.has(1)
    world.owner.answer("c.1")
    await waiting


async def test_what_its_method_has_stored_is_on_disk_before_anybody_has_it(world: World) -> None:
    """G1, of a group's request as of a resource's: under a plain id, and once."""
    for resource in ("A", None):
        waiting = world.call("slow", resource, stored=True)
        await asyncio.sleep(0)
        assert world.owner.sent == []
        await world.stream.has(1 if resource else 2)
        assert world.owner.sent == []
        request_id = world.stream.requests[-1]
        world.owner.answer(request_id)
        await waiting
    assert world.stream.requests == ["c.1", "c.2"]
    assert world.stream.given_to == ["", ""]


async def test_a_member_that_hangs_delays_only_what_it_was_given(world: World) -> None:
    """G1: it is stored, and another member gets it; those of the others are not in doubt."""
    world.owner.silent = True
    waiting = world.call(resource=None)
    await asyncio.sleep(0)
    world.owner.silent = False
    for _ in range(3):
        await world.call(resource=None)
    await world.stream.has(1)
    assert world.stream.requests == ["c.1"]
    world.owner.answer("c.1")
    await waiting
