"""Link against a real server: what it takes from the client library's inside, and what it says of failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk.application.ports import StoreMissing, StoreTooLarge, StoreUnreachable
from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.link import Link, NotInTime
from aegis_sdk.nats.login import Server
from aegis_sdk.nats.wire import Message


@pytest.fixture
async def nats_server() -> AsyncIterator[EmbeddedNats]:
    with EmbeddedNats() as server:
        yield server


async def test_a_message_reaches_its_callback_without_a_task_of_its_own(
    nats_server: EmbeddedNats,
) -> None:
    """Fails when the client library no longer lets its parser be replaced."""
    link = await Link.open(Server(nats_server.url), name="test")
    got: list[bytes] = []
    arrived = asyncio.Event()

    def receive(message: Message) -> None:
        got.append(message.data)
        if len(got) == 3:
            arrived.set()
        if message.data == b"1":
            raise RuntimeError("a broken callback must not end the connection")

    subscription = await link.subscribe("subject", receive)
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if "_wait_for_msgs" in repr(task)]
    for n in range(3):
        link.publish("subject", str(n).encode())
    async with asyncio.timeout(5):
        await arrived.wait()
    assert got == [b"0", b"1", b"2"]
    link.drop(subscription)
    await link.close()


async def test_what_is_on_its_way_to_dropped_subscriptions_still_reaches_them(
    nats_server: EmbeddedNats,
) -> None:
    """Whoever gives a resource away refuses what was sent to it before; nothing is lost without a word."""
    link = await Link.open(Server(nats_server.url), name="test")
    got: list[bytes] = []
    dropped = link.subscribe_all(["one", "two"], lambda message: got.append(message.data))
    link.publish("one", b"1")
    link.publish("two", b"2")
    link.drop_all(dropped)
    link.publish("one", b"3")
    await link.settle(timeout_s=5)
    assert got == [b"1", b"2"]
    await link.settle(timeout_s=5)
    assert not link._tap.callbacks.keys() & {each._id for each in dropped}
    await link.close()


async def test_a_flush_that_is_cancelled_as_its_answer_comes_is_cancelled(
    nats_server: EmbeddedNats,
) -> None:
    """The client library's own wait would swallow the cancellation before Python 3.12."""
    link = await Link.open(Server(nats_server.url), name="test")
    flushing = asyncio.create_task(link.flush(timeout_s=5))
    while not link.client._pongs:  # noqa: ASYNC110 - the client has no event for it
        await asyncio.sleep(0)
    link.client._pongs.pop().set_result(True)
    flushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flushing
    await link.close()


async def test_each_failure_says_what_is_known(nats_server: EmbeddedNats) -> None:
    link = await Link.open(Server(nats_server.url), name="test")
    with pytest.raises(StoreMissing):
        await link.store("no.stream.here", b"", {}, timeout_s=2)
    with pytest.raises(StoreTooLarge):
        await link.store("no.stream.here", b"x" * (2 << 20), {}, timeout_s=2)
    with pytest.raises(StoreMissing):
        await link.api("STREAM.INFO.nothing", {})
    nats_server.kill()
    with pytest.raises(StoreUnreachable):
        await link.store("no.stream.here", b"", {}, timeout_s=0.5)
    await link.close()


async def test_a_server_that_is_not_there_is_told_within_seconds() -> None:
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
            await Link.open(Server("nats://127.0.0.1:1"), name="test")


async def test_calls_at_the_same_time_have_each_their_own_answer(nats_server: EmbeddedNats) -> None:
    """Or none: who is not answered is told so, and holds no other up for longer than its time."""
    link = await Link.open(Server(nats_server.url), name="test")
    await link.subscribe("echo", lambda message: link.publish(message.reply, message.data))
    await link.subscribe("silent", lambda message: None)
    calls = [(subject, b"%d" % n, None) for n, subject in enumerate(["echo", "silent", "nobody"])]
    echoed, silent, nobody = await link.ask_all(calls, timeout_s=0.2)
    assert isinstance(echoed, Message)
    assert echoed.data == b"0"
    assert isinstance(silent, NotInTime)
    assert isinstance(nobody, Message)
    assert nobody.status == "503"
    asking = asyncio.create_task(link.ask_all([("silent", b"", None)] * 2, timeout_s=60.0))
    await link.flush(timeout_s=5.0)
    await link.close()
    assert [type(answer) for answer in await asking] == [StoreUnreachable] * 2
