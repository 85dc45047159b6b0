"""All that callers and handlers ask for: keys, tickets, attaching, requests of handlers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aegis_sdk import (
    Cancelled,
    Context,
    Draining,
    Expired,
    HandlerFailed,
    KeyReused,
    Method,
    NeverAccepted,
    OutcomeUnknown,
    Overloaded,
    ResourceContext,
    Retries,
    Service,
)
from aegis_sdk.context import Ticket
from aegis_sdk.contract.metrics import REQUESTS_STORED
from aegis_sdk.domain.recorder import Recorder
from aegis_sdk.domain.turns.states import HeldState
from aegis_sdk.domain.turns.work import Write
from aegis_sdk.infrastructure.log_watch import LogWatch
from aegis_sdk.infrastructure.turns.assembly import TurnClient
from aegis_sdk.infrastructure.turns.log import store_gate

from tests.integration.turns.support import (
    ADD,
    ADD_SLOWLY,
    SERVICE,
    WAIT_S,
    Add,
    Owners,
    Sum,
    World,
    add,
    adder,
    give,
)
from tests.integration.turns.test_checkpoints import saved

ORDER = Method(SERVICE, "order", request=int, reply=int, stored=True)
ORDER_ANY = Method(SERVICE, "order_any", request=int, reply=int, stored=True)
RELAY = Method(SERVICE, "relay", request=Add, reply=int)
"""Has another resource add, twice, and fails when it is told so."""


class Handlers:
    """A service whose slow handler waits until it is told to go on, and what it has begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go_on = asyncio.Event()
        self.fails = 0
        self.service = Service(SERVICE)
        self.service.handles(ADD, pure=True)(add)
        self.service.handles(ADD_SLOWLY)(self._add_slowly)
        self.service.handles(RELAY, retries=Retries(attempts=2, wait_s=0.0))(self._relay)

    async def _add_slowly(self, ctx: ResourceContext, request: Add) -> Sum:
        self.begun.append(ctx.request_id)
        await self.go_on.wait()
        return add(ctx, request)

    async def _relay(self, ctx: ResourceContext, request: Add) -> int:
        self.begun.append(ctx.request_id)
        first = await ctx.request(ADD, request, resource="B")
        second = await ctx.request(ADD, request, resource="B")
        if self.fails:
            self.fails -= 1
            raise RuntimeError("not this time")
        return first.total + second.total

    async def has_begun(self, count: int = 1) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.begun) < count:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.005)


@pytest.fixture
async def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
async def client(world: World, handlers: Handlers) -> TurnClient:
    instance = await world.instance("accounts-1", ["A", "B"], handlers.service)
    await give(world, instance, ["A", "B"])
    return await world.client()


async def submit(
    client: TurnClient,
    method: Method[Add, Sum],
    n: int,
    *,
    resource: str = "A",
    key: str | None = None,
) -> Ticket:
    return await client.requester.submit(
        method, Add(n=n), resource=resource, key=key, timeout_s=5.0, expires_s=None
    )


async def attach(client: TurnClient, request_id: str, timeout_s: float = WAIT_S) -> int:
    return (await client.requester.attach(request_id, ADD, timeout_s=timeout_s)).total


# --- keys -----------------------------------------------------------------------------------------------------


async def test_a_key_has_one_effect_whoever_asks(world: World, client: TurnClient) -> None:
    """G3: also from another process, and after another owner took over."""
    calls = (client.request(ADD, Add(n=1), resource="A", timeout_s=WAIT_S, key="k") for _ in "abc")
    assert [reply.total for reply in await asyncio.gather(*calls)] == [1, 1, 1]
    other = await world.client()
    assert (await other.request(ADD, Add(n=1), resource="A", timeout_s=5.0, key="k")).total == 1
    second = await world.instance("accounts-2", ["A", "B"])
    await give(world, second, ["A", "B"])
    assert (await other.request(ADD, Add(n=1), resource="A", timeout_s=5.0, key="k")).total == 1
    assert (await other.request(ADD, Add(n=1), resource="A", timeout_s=5.0)).total == 2


@pytest.mark.parametrize(
    ("n", "resource"), [(2, "A"), (1, "B")], ids=["another payload", "another resource"]
)
async def test_a_key_of_another_request_is_refused(
    client: TurnClient, handlers: Handlers, n: int, resource: str
) -> None:
    """While the first one is open, and when it has its outcome; for `submit` as well."""
    first = asyncio.create_task(
        client.request(ADD_SLOWLY, Add(n=1), resource="A", timeout_s=WAIT_S, key="k")
    )
    await handlers.has_begun()
    for _ in ("open", "done"):
        with pytest.raises(KeyReused):
            await client.request(ADD_SLOWLY, Add(n=n), resource=resource, timeout_s=WAIT_S, key="k")
        with pytest.raises(KeyReused):
            await submit(client, ADD_SLOWLY, n, resource=resource, key="k")
        handlers.go_on.set()
        assert (await first).total == 1
    assert len(handlers.begun) == 1


# --- tickets --------------------------------------------------------------------------------------------------


async def test_a_ticket_is_attached_to_by_anybody_before_and_after_its_outcome(
    world: World, client: TurnClient, handlers: Handlers
) -> None:
    """G1: it is stored when it is given."""
    ticket = await submit(client, ADD_SLOWLY, 5)
    await handlers.has_begun()
    other = await world.client()
    waiting = asyncio.create_task(attach(other, ticket.id))
    with pytest.raises(OutcomeUnknown, match="no outcome yet") as still_open:
        await attach(client, ticket.id, timeout_s=0.1)
    assert not isinstance(still_open.value, NeverAccepted)
    handlers.go_on.set()
    assert await waiting == 5
    assert await attach(client, ticket.id) == 5


async def test_what_was_never_accepted_is_told_from_what_is_open(client: TurnClient) -> None:
    for request_id in ("somebody.7", "somebody.7t", "key-accounts.x"):
        with pytest.raises(NeverAccepted):
            await attach(client, request_id, timeout_s=0.1)


async def test_an_outcome_that_shares_a_turn_is_found_by_its_id(
    world: World, client: TurnClient
) -> None:
    """Whoever knows a request's id can attach to it, however it was stored."""
    await asyncio.gather(
        *(client.request(ADD, Add(n=1), resource="A", timeout_s=WAIT_S) for _ in range(20))
    )
    other = await world.client()
    caller = client.requester._composer._caller
    totals = [await attach(other, f"{caller}.{n}") for n in range(1, 21)]
    assert totals == list(range(1, 21))


async def test_stored_requests_that_are_done_do_not_run_again_at_the_next_owner(
    world: World, client: TurnClient, handlers: Handlers
) -> None:
    """G3: a new instance reads them all, and those with outcomes in the log are done."""
    handlers.go_on.set()
    tickets = [await submit(client, ADD_SLOWLY, 1) for _ in range(8)]
    tickets += [await submit(client, ADD_SLOWLY, 1, key=str(n)) for n in range(8)]
    for ticket in tickets:
        await attach(client, ticket.id)
    second = Handlers()
    second.go_on.set()
    instance = await world.instance("accounts-2", ["A"], second.service)
    await give(world, instance, ["A"])
    assert (await client.request(ADD_SLOWLY, Add(n=1), resource="A", timeout_s=5.0)).total == 17
    assert len(second.begun) == 1


@pytest.mark.parametrize("is_purged", [False, True])
@pytest.mark.parametrize("follows", [True, False])
async def test_a_new_owner_does_not_wait_for_a_stored_request_that_is_done(
    world: World, handlers: Handlers, follows: bool, is_purged: bool
) -> None:
    """G7: what a caller sends names the place of what it stored before; only its reader knows that this is past."""
    first = await world.instance("accounts-1", ["A"], handlers.service)
    await give(world, first, ["A"])
    client = await world.client()
    second = await world.instance("accounts-2", ["A"], Handlers().service) if follows else None
    ticket = await submit(client, ADD, 1)
    assert await attach(client, ticket.id) == 1
    if is_purged:
        stream = world.subjects.request_stream(world.names.service)
        await (await world.link()).api(f"STREAM.PURGE.{stream}", {})
    second = second or await world.instance("accounts-2", ["A"], Handlers().service)
    await give(world, second, ["A"])
    stored = client.caller.open.stored
    assert (await client.request(ADD, Add(n=1), resource="A", timeout_s=5.0)).total == 2
    assert client.caller.open.stored == stored  # else it was open for long, or in doubt


class HeldBack:
    """A log whose turns are on their way until they are let go."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._held: list[Write] = []
        self.has_one = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def store(self, write: Write) -> bool:
        self._held.append(write)
        self.has_one.set()
        return False

    def let_go(self) -> None:
        for write in self._held:
            self._log.store(write)
        self.store = self._log.store  # type: ignore[method-assign]


async def test_a_stored_request_is_done_though_its_resource_was_away_while_its_turn_was_on_its_way(
    world: World, handlers: Handlers
) -> None:
    """G1: what the turn says is void by then, the request is not."""
    instance = await world.instance("accounts-1", ["A"], handlers.service)
    await give(world, instance, ["A"])
    client, host = await world.client(), instance.host
    log = HeldBack(host._log)
    host._log = log
    ticket = await submit(client, ADD, 1)
    owners = Owners(await world.link(), world.names)
    async with asyncio.timeout(WAIT_S):
        await log.has_one.wait()
        await owners.move({"A": "another~1"})
        await host.until(lambda: not host.serving)
        await owners.move({"A": instance.writer})
        await host.until(lambda: "A" in host.serving)
        await store_gate(await world.link(), world.names, instance.writer)
        log.let_go()
    assert await attach(client, ticket.id) == 1


async def test_an_instance_is_ready_when_it_serves_what_it_was_given(world: World) -> None:
    """Whoever was before it is shut out first."""
    instance = await world.instance("accounts-1", ["A"])
    owners = Owners(await world.link(), world.names)
    async with asyncio.timeout(WAIT_S):
        await instance.ready()
        await owners.move({"A": "another~1"})
        await owners.move({"A": instance.writer})
        held = instance.host.writer.held
        while held["A"].state is HeldState.FOLLOWING:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.002)
        await instance.ready()
    assert instance.host.serving == {"A"}
    assert instance.waits_for == ""


class Noting(LogWatch):
    """Keeps what it is told that the instance has stored."""

    def stored(self, seq: int, subject: str, kind: str) -> None:
        assert f".{kind}." in subject
        self.told = {*getattr(self, "told", ()), kind}
        super().stored(seq, subject, kind)


async def test_whatever_an_instance_stores_must_be_there_on_its_next_connection(
    world: World,
) -> None:
    """G1: its watch knows of each kind, also of those that nobody has read yet."""
    watch = Noting(await world.link(), world.subjects, SERVICE, "")
    service = adder()

    @service.handles(ORDER_ANY)
    def order_any(ctx: Context, n: int) -> int:
        return n

    instance = await world.instance("accounts-1", ["A"], service, watch=watch)
    await give(world, instance, ["A"])
    client = await world.client()
    await client.request(ADD, Add(n=1), resource="A", timeout_s=WAIT_S)
    await client.request(ADD, Add(n=1), resource="A", timeout_s=WAIT_S, key="k")
    await instance.start_group()
    await client.request(ORDER_ANY, 1, timeout_s=WAIT_S)
    kinds = {"claim", "turn", "any"} | ({"at"} if world.replicas == 1 else set())  # else in a batch
    async with asyncio.timeout(WAIT_S):  # the server may tell a caller before the instance
        while watch.told != kinds:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.005)


# --- what handlers ask ----------------------------------------------------------------------------------------


async def test_a_standby_that_starts_knows_which_stored_requests_are_done(world: World) -> None:
    """G1: no session tells it of those with a key, and a checkpoint covers their outcomes. What it says lets them be trimmed."""
    first = await world.instance("accounts-1", ["A"])
    await give(world, first, ["A"])
    client = await world.client()
    for n in range(3):
        await client.request(ADD, Add(n=n), resource="A", timeout_s=WAIT_S, key=f"k{n}")
    await saved(first, "A")
    second = await world.instance("accounts-2", ["A"])
    async with asyncio.timeout(WAIT_S):
        while second.requests_done < 3:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)


async def test_what_its_method_has_stored_is_on_disk_before_it_runs(world: World) -> None:
    """G1: of resources and of the group, asked for by a caller or a handler. It is counted, and served like any other."""
    link, service = await world.link(), Service(SERVICE)
    seen: list[int] = []

    async def stored() -> int:
        info = await link.api(f"STREAM.INFO.{world.subjects.request_stream(SERVICE)}", {})
        return int(info["state"]["last_seq"])

    @service.handles(ORDER)
    async def order(ctx: ResourceContext, n: int) -> int:
        seen.append(await stored())
        return n if n == 0 else await ctx.request(ORDER_ANY, n)

    @service.handles(ORDER_ANY)
    async def order_any(_: Context, n: int) -> int:
        seen.append(await stored())
        return n

    recorder = Recorder()
    caller = await world.client(["accounts-1"])
    instance = await world.instance("accounts-1", ["A"], service, asks=caller.requester)
    await give(world, instance, ["A"])
    client = await world.client(["accounts-1"], recorder=recorder)
    assert await client.request(ORDER, 0, resource="A", timeout_s=WAIT_S) == 0
    assert await client.request(ORDER_ANY, 1, timeout_s=WAIT_S) == 1
    assert await client.request(ORDER, 2, resource="A", timeout_s=WAIT_S) == 2
    assert seen == [1, 2, 3, 4]
    told = {labels: n for family, labels, n in recorder.numbers() if family is REQUESTS_STORED}
    assert told == {(SERVICE, "always"): 3}


async def test_a_handler_that_runs_again_gets_the_stored_replies(
    client: TurnClient, handlers: Handlers
) -> None:
    """G3: its two equal requests are two, and have one effect each however often it runs."""
    handlers.fails = 1
    assert await client.request(RELAY, Add(n=1), resource="A", timeout_s=WAIT_S) == 1 + 2
    assert len(handlers.begun) == 2
    assert (await client.request(ADD, Add(n=1), resource="B", timeout_s=WAIT_S)).total == 3


async def test_a_call_chain_that_comes_back_fails_at_once(world: World, handlers: Handlers) -> None:
    instance = await world.instance("accounts-1", ["B"], handlers.service)
    await give(world, instance, ["B"])
    client = await world.client()
    with pytest.raises(HandlerFailed, match="Deadlock"):
        await client.request(RELAY, Add(n=1), resource="B", timeout_s=WAIT_S)


async def test_a_parents_deadline_ends_its_childs_wait(world: World, handlers: Handlers) -> None:
    """G4: nobody serves B; nothing comes of it later."""
    instance = await world.instance("accounts-1", ["A"], handlers.service)
    await give(world, instance, ["A"])
    client = await world.client()
    with pytest.raises((Cancelled, Expired)):  # by its caller or its owner, whoever says it first
        await client.request(RELAY, Add(n=1), resource="A", timeout_s=0.3)
    second = await world.instance("accounts-2", ["B"])
    await give(world, second, ["B"])
    assert (await client.request(ADD, Add(n=1), resource="B", timeout_s=WAIT_S)).total == 1


# --- what does not fit ----------------------------------------------------------------------------------------


async def test_a_full_stream_is_overloaded_and_without_effect(
    world: World, handlers: Handlers
) -> None:
    """G4: its active is silent, and it can't be stored."""
    instance = await world.instance("accounts-1", ["A"], handlers.service)
    await give(world, instance, ["A"])
    client = await world.client()
    link, stream = await world.link(), world.subjects.request_stream(SERVICE)
    config = (await link.api(f"STREAM.INFO.{stream}", {}))["config"]
    full = config | {"max_bytes": 1, "discard": "new"}
    await link.api(f"STREAM.UPDATE.{stream}", full)
    with pytest.raises(Overloaded):
        await submit(client, ADD, 1)
    with pytest.raises(Overloaded):
        await client.request(ADD, Add(n=1), resource="A", timeout_s=WAIT_S, key="k")
    await Owners(await world.link(), world.names).move({"A": "nobody~1"})
    async with asyncio.timeout(WAIT_S):
        await instance.host.until(lambda: not instance.host.serving)
    with pytest.raises(Overloaded):
        await client.request(ADD, Add(n=1), resource="A", timeout_s=WAIT_S)


async def test_a_client_that_drains_ends_what_is_open(
    client: TurnClient, handlers: Handlers
) -> None:
    open_ = asyncio.create_task(
        client.request(ADD_SLOWLY, Add(n=1), resource="A", timeout_s=WAIT_S)
    )
    await handlers.has_begun()
    draining = asyncio.create_task(client.close(drain_s=WAIT_S))
    await asyncio.sleep(0)
    with pytest.raises(Draining):
        await client.request(ADD, Add(n=1), resource="A", timeout_s=WAIT_S)
    handlers.go_on.set()
    assert (await open_).total == 1
    await draining
