"""A reader of a consumer outlasts a server that drops what it is asked, without losing much time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import pytest
from aegis_sdk.application.ports import Connected, StoreUnreachable
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.infrastructure import consumer
from aegis_sdk.infrastructure.consumer import Make, PullLoop
from aegis_sdk.infrastructure.requests import NatsDeliveries
from aegis_sdk.infrastructure.turns.reader import LogReader
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.wire import Callback, Message

pytestmark = pytest.mark.plain  # they stand in for the connection


class Inboxes:
    def new_inbox(self) -> str:
        return "_INBOX.x"


class LeaderlessLink:
    """Drops the first `dropped` calls; `lost_s` is the time that was spent on waiting for them."""

    def __init__(self, dropped: int, *, waiting: int = 0) -> None:
        self.client = Inboxes()
        self.api_prefix = "$JS.API."
        self.is_connected = True
        self.connected = Connected("a connection")
        self.reconnect: Callable[[], Awaitable[None]] | None = None
        self.lost_s = 0.0
        self.retired = 0
        self.pulled: list[str] = []
        self.pulls: list[dict[str, Any]] = []
        self.receive: Callback | None = None
        self._dropped = dropped
        self._waiting = waiting

    async def api(
        self, subject: str, request: Mapping[str, Any], *, timeout_s: float
    ) -> dict[str, Any]:
        if self._dropped:
            self._dropped -= 1
            self.lost_s += timeout_s
            raise StoreUnreachable("no answer in time")
        return {
            "name": "made",
            "num_pending": self._waiting,
            "state": {"last_seq": 0},
            "config": {},
            "ack_floor": {"stream_seq": 0},
            "delivered": {"stream_seq": 0},
        }

    async def subscribe(self, subject: str, callback: Callback) -> object:
        self.receive = callback
        return object()

    def publish(self, subject: str, payload: bytes = b"", *, reply: str = "") -> None:
        if ".CONSUMER.DELETE." in subject:
            return
        self.pulled.append(reply)
        self.pulls.append(json.loads(payload))

    def drop(self, subscription: object) -> None: ...

    async def retire(self, subscription: object, *, timeout_s: float) -> None:
        self.retired += 1

    def on_restored(self, callback: Callable[[], Awaitable[None]]) -> None:
        self.reconnect = callback

    def off_restored(self, callback: Callable[[], Awaitable[None]]) -> None: ...


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Sleeps between tries take no time; how long they would have."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def wait(delay_s: float) -> None:
        waits.append(delay_s)
        await sleep(0)

    monkeypatch.setattr("aegis_sdk.infrastructure.consumer.asyncio.sleep", wait)
    return waits


def reader(link: Link) -> LogReader:
    def on_unreadable(seq: int, why: str, words: Sequence[str]) -> None: ...

    names = LogSubjects(Subjects(), "svc")
    return LogReader(link, names, on_entry=lambda _: None, on_unreadable=on_unreadable)


async def read_log(link: Link) -> None:
    log = reader(link)
    await log.start()
    await log.stop()


async def test_a_reader_knows_its_lag_before_it_has_read_anything() -> None:
    """Of two standbys control takes the one that is less behind: one that just began is not."""
    log = reader(cast(Link, LeaderlessLink(0, waiting=700)))
    await log.start()
    assert log.lag_entries == 700
    await log.stop()


async def read_group(link: Link) -> None:
    source = await NatsDeliveries(link, Subjects()).open_group(
        "svc", credit=1, on_delivery=lambda _: None
    )
    await source.stop()


@pytest.mark.parametrize("read", [read_log, read_group])
async def test_calls_that_a_leaderless_cluster_drops_cost_little_time(
    read: Callable[[Link], Awaitable[None]], no_waits: list[float]
) -> None:
    """G8: an election drops whatever is asked meanwhile; four calls lost are not four long waits."""
    link = LeaderlessLink(dropped=4)
    await read(cast(Link, link))
    assert link.lost_s + sum(no_waits) < 6.0


async def test_a_server_that_is_slow_is_given_more_time_at_each_try(no_waits: list[float]) -> None:
    """One that needs three seconds for an answer gets them before long."""
    given: list[float] = []

    async def make(again: bool, timeout_s: float) -> str:
        given.append(timeout_s)
        if timeout_s < 3.0:
            raise StoreUnreachable("no answer in time")
        return "made"

    await started(make, LeaderlessLink(0))
    assert given == sorted(given)
    assert len(given) < 10


async def test_pulls_that_nobody_takes_are_not_sent_a_hundred_times_a_second(
    no_waits: list[float],
) -> None:
    """A consumer without a leader refuses each pull at once, for seconds."""

    async def make(again: bool, timeout_s: float) -> str:
        return "made"

    link = LeaderlessLink(0)
    loop = await started(make, link)
    no_waits.clear()
    for _ in range(8):
        pulls = len(link.pulled)
        assert link.receive is not None
        link.receive(Message("_INBOX.x", "", b"NATS/1.0 503\r\n\r\n", b""))
        async with asyncio.timeout(5.0):
            while len(link.pulled) == pulls:  # noqa: ASYNC110 - its own task goes on by turns
                await asyncio.sleep(0)
    await loop.stop()
    waits = [wait_s for wait_s in no_waits if wait_s]
    assert waits[-1] == consumer.AGAIN_WAIT_S_MAX
    assert waits[0] < waits[-1]


async def started(make: Make, link: LeaderlessLink, *, holds: bool = False) -> PullLoop:
    loop = PullLoop(
        cast(Link, link),
        "stream",
        make=make,
        on_message=lambda message, meta: None,
        credit=8,
        in_order=True,
        holds=holds,
    )
    await loop.start()
    return loop


async def test_no_two_readers_are_woken_at_the_same_times() -> None:
    """Fifty instances that one server woke at once held each other up for 10 ms, every 1.5 s."""
    link = LeaderlessLink(0)
    for _ in range(20):
        await read_log(cast(Link, link))
    beats_s = [pull["idle_heartbeat"] / 1e9 for pull in link.pulls]
    assert len(set(beats_s)) == 20
    assert max(beats_s) <= consumer.SILENCE_S_MAX / 2


async def test_silence_counts_from_when_the_server_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reader whose credit was held for long was owed nothing; a pull without an answer is a doubt."""
    monkeypatch.setattr(consumer, "SILENCE_S_MAX", 0.2)
    made_again = asyncio.Event()

    async def make(again: bool, timeout_s: float) -> str:
        if again:
            made_again.set()
        return "made"

    link = LeaderlessLink(0)
    loop = await started(make, link, holds=True)
    assert link.receive is not None
    for seq in range(1, 9):
        link.receive(Message("_INBOX.x", f"$JS.ACK.stream.made.1.{seq}.{seq}.0.0", b"", b""))
    await asyncio.sleep(0.3)
    asked_s = time.monotonic()
    for _ in range(8):
        loop.finished()
    async with asyncio.timeout(5.0):
        await made_again.wait()
    assert time.monotonic() - asked_s >= consumer.SILENCE_S_MAX
    await loop.stop()


async def test_a_new_connection_is_asked_with_short_waits_again(no_waits: list[float]) -> None:
    """What an earlier server did not answer says nothing about the next one."""
    link = LeaderlessLink(0)
    given: list[float] = []

    async def make(again: bool, timeout_s: float) -> str:
        given.append(timeout_s)
        if len(given) == 4 and link.reconnect is not None:
            await link.reconnect()
        if len(given) < 6:
            raise StoreUnreachable("the connection to NATS was lost")
        return "made"

    await started(make, link)
    assert given[3] > given[4]
    assert given[4] == consumer.ANSWER_S


async def test_a_reader_retires_only_when_what_it_asked_for_has_come() -> None:
    """An unsubscription that overtakes a message costs its caller a whole ack_wait."""

    async def make(again: bool, timeout_s: float) -> str:
        return "made"

    link = LeaderlessLink(0)
    loop = await started(make, link)
    retiring = asyncio.create_task(loop.retire())
    for seq in range(1, 9):  # its whole credit
        await asyncio.sleep(consumer.QUIET_S / 50)
        assert not retiring.done()
        assert link.retired == 0
        assert link.receive is not None
        reply = f"$JS.ACK.stream.made.1.{seq}.{seq}.0.0"
        link.receive(Message("_INBOX.x", reply, b"", b""))
    async with asyncio.timeout(1.0):
        await retiring
    assert link.retired == 1
    assert len(link.pulled) == 1, "it asked for more"
