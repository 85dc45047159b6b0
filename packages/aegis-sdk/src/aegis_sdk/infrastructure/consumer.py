"""A raw pull loop over one JetStream consumer: bounded credit, gaps noticed, made again on any doubt.

`fetch` of nats-py asks for each batch and waits; here the credit is topped up at half, which costs one
small publish for many messages. Invariant: messages of one generation arrive in the consumer's order
without a gap, or the generation ends and `make` is asked for a consumer again.

Theory of operation. A *generation* is one consumer, read by one subscription. It ends at the first doubt, and doubts are cheap:

- A gap in the consumer's own numbers: core NATS has dropped a message on its way (a slow reader is cut off).
- A new connection: what was on its way to the old one is gone.
- Silence while something was asked for. The server sends heartbeats on each pull, so a consumer that is gone, or whose server
  is, is noticed within SILENCE_S_MAX.
- A status that ends the pull for another reason than its time: the consumer was deleted, its leader changed.

The next generation begins where its user says (`make`), which is behind the last message that was given. So readers of logs
lose nothing and see nothing twice. With acknowledgements (the group), what was in hand is delivered again by the server.

Messages of an ended generation may still come. They carry its number in their subject, and find no receiver: whoever
was told of a gap is never given what stands behind it.

Credit bounds what is on its way and in hand together. `_asked` is what the server may still send on open pulls, `_held`
what was given and not finished. A lost message would keep its part of `_asked` for ever; but a lost message is a doubt, and
each generation counts from zero.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.subscription import Subscription

from aegis_sdk.application.ports import StoreError, StoreForbidden, StoreUnreachable
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.wire import Message
from aegis_sdk.telemetry import log

EXPIRES_S: Final = 30.0
"""How long one pull waits at the server; then it says how much of it was not used (408), and that is asked for again."""
HEARTBEAT_S: Final = (1.2, 1.5)
"""How often the server says that it still knows our pull; drawn for each. Each wakes this process, and the server
keeps all whose time comes together in step from then on: with one time for all, fifty instances woke at once.
"""
SILENCE_S_MAX: Final = 3.0
"""One heartbeat may be missing: one that is late under load must not cost a generation."""
AGAIN_WAIT_S: Final = 0.01
AGAIN_WAIT_S_MAX: Final = 0.2
"""A server that ends each pull at once must not be asked without pause: it elects a leader just then."""
RETIRE_S: Final = 1.0
"""How long a server may take to send what we have asked for, and to say that it has."""
QUIET_S: Final = 0.05
ANSWER_S: Final = 0.5
ANSWER_S_MAX: Final = 3.0
"""How long the n-th try waits for an answer: n times the first. A cluster without a leader drops what
it is asked, so a long first wait is lost; a busy one is slow, so later waits are longer."""


END_ASK_S: Final = 1.0
END_LOOK_S: Final = 0.002
READER_INACTIVE_S: Final = 15.0
"""After this long without its reader the server drops an ephemeral consumer."""
_NOBODY: Final = "503"

Make = Callable[[bool, float], Awaitable[str]]


class Unreadable(Exception):
    """Raised by `on_message`: nobody will ever be able to read this message; don't deliver it again."""


@dataclass(slots=True)  # not frozen: see contract.envelope
class Meta:
    """What a delivery's reply subject says."""

    stream_seq: int
    consumer_seq: int
    delivered: int
    pending: int
    stored_s: float = 0.0


def parse_meta(reply: str) -> Meta:
    """`$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`; with a
    domain and account hash before the stream, and a token after the end, in the longer form (ADR-15 of NATS).
    """
    tokens = reply.split(".")
    first = 4 if len(tokens) == 9 else 6
    delivered, stream_seq, consumer_seq, stored_ns, pending = tokens[first : first + 5]
    return Meta(
        int(stream_seq), int(consumer_seq), int(delivered), int(pending), int(stored_ns) * 1e-9
    )


class PullLoop:
    """Reads one consumer for ever, from `start` to `stop` or `retire`, through reconnects, elections and deleted consumers.

    `make(again, timeout_s)` creates or finds it and returns its name; each of its calls to the server
    may wait for `timeout_s`, and it may be tried any number of times.
    """

    def __init__(
        self,
        link: Link,
        stream: str,
        *,
        make: Make,
        on_message: Callable[[Message, Meta], None],
        credit: int,
        in_order: bool,
        holds: bool,
        owned: bool = False,
    ) -> None:
        """`in_order`: a gap in the consumer's sequence is a doubt. `holds`: a message keeps its credit
        until `finished`; otherwise reading it returns the credit. `owned`: the consumer is this loop's alone,
        and goes with it.
        """
        self._link = link
        self._stream = stream
        self._make = make
        self._on_message = on_message
        self._credit = credit
        self._in_order = in_order
        self._holds = holds
        self._owned = owned
        self._asked = 0
        self._held = 0
        self._refused = 0
        """Pulls in a row that no server took."""
        self._next_seq = 1
        self._generations = itertools.count(1)
        self._subject = ""
        self._consumer = ""
        self._subscription: Subscription | None = None
        self._heard_s = 0.0
        self._doubt = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._stopped = False
        self.pending = 0
        """Messages of the consumer not delivered yet, as of the last one read; `make` may set it, too."""

    async def start(self) -> None:
        """Returns when the consumer exists and is being read.

        Raises: StoreForbidden, where there may be none, for who has to tell a caller so; whoever can wait
        starts another. Later that is tried again as all else is: rights come and go with the server's configuration.
        """
        self._link.on_restored(self._on_restored)
        try:
            await self._begin(again=False)
        except BaseException:
            await self.stop()
            raise
        self._keeper = asyncio.create_task(self._keep())

    async def retire(self) -> None:
        """Ask for nothing more; returns when what the server had given us was delivered, and stops.

        What is dropped instead would be delivered elsewhere only after the consumer's ack_wait. An
        unsubscription may overtake messages inside the server: so it is sent when all that was asked
        for has come, or nothing comes any more.
        """
        self._stopped = True
        if self._keeper is not None:
            self._keeper.cancel()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._quiet()
            await self._link.retire(subscription, timeout_s=RETIRE_S)
        await self.stop()

    async def _quiet(self) -> None:
        begun_s = time.monotonic()
        while self._asked > 0 and (now_s := time.monotonic()) < begun_s + RETIRE_S:
            if now_s - max(begun_s, self._heard_s) > QUIET_S:
                return
            await asyncio.sleep(QUIET_S / 10)

    async def stop(self) -> None:
        """Nothing is delivered after this returns. Safe twice."""
        self._stopped = True
        self._subject = ""
        self._link.off_restored(self._on_restored)
        if self._keeper is not None:
            self._keeper.cancel()
        self._unsubscribe()
        self._forget_consumer()

    def _forget_consumer(self) -> None:
        """The server would keep it for a while, and so many of clients that come and go."""
        consumer, self._consumer = self._consumer, ""
        if self._owned and consumer:
            self._link.publish(f"{self._link.api_prefix}CONSUMER.DELETE.{self._stream}.{consumer}")

    def finished(self) -> None:
        """A held message is out of hand. One of an earlier generation may count for one of this: then a little more is
        asked for.
        """
        self._held = max(0, self._held - 1)
        self._top_up()

    def resumed(self) -> None:
        """A message that was out of hand is held again."""
        self._held += 1

    async def read_to_end(self) -> None:
        """Return when all that the consumer has to deliver now was read. Raises: StoreError, also when another one is made."""
        consumer = self._consumer
        info = await self._link.api(
            f"CONSUMER.INFO.{self._stream}.{consumer}", {}, timeout_s=END_ASK_S
        )
        end = int(info["delivered"]["consumer_seq"]) + int(info["num_pending"])
        while self._next_seq <= end:
            if consumer != self._consumer or self._stopped:
                raise StoreUnreachable("another consumer is read now")
            await asyncio.sleep(END_LOOK_S)

    # --- generations ----------------------------------------------------------------------------------------
    async def _begin(self, *, again: bool) -> None:
        """A new generation: it returns when its consumer is there and something was asked for, however long that takes.

        The old subscription goes first, so nothing of it is given while `make` decides where to go on. Raises: StoreForbidden,
        the first time.
        """
        self._unsubscribe()
        self._forget_consumer()
        self._asked = 0
        self._next_seq = 1
        if self._in_order:
            self._held = 0  # what was held is delivered again
        self._doubt.clear()
        n = 1
        while True:
            try:
                self._consumer = await self._make(again, min(n * ANSWER_S, ANSWER_S_MAX))
                break
            except StoreError as error:
                if isinstance(error, StoreForbidden) and not again:
                    raise
                log.debug("consumer_not_made", stream=self._stream, error=str(error), attempt=n)
                await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.5))
                # Another connection is another server, which was not slow yet.
                n = 1 if self._doubt.is_set() else n + 1
                self._doubt.clear()
        subject = f"{self._link.client.new_inbox()}.{next(self._generations)}"
        self._subject = subject
        self._doubt.clear()
        self._heard_s = time.monotonic()

        def receive(message: Message) -> None:
            if self._subject == subject:
                self._receive(message)

        self._subscription = await self._link.subscribe(subject, receive)
        self._top_up()

    def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._link.drop(subscription)

    async def _keep(self) -> None:
        """Notice doubt or silence, and begin a new generation."""
        while True:
            try:
                async with asyncio.timeout(self._patience_s()):
                    await self._doubt.wait()
            except TimeoutError:
                if self._patience_s() > 0:
                    continue
                log.debug("consumer_silent", stream=self._stream, consumer=self._consumer)
            if not self._link.is_connected:
                self._doubt.set()  # `on_restored` or the next round
                await asyncio.sleep(0.05)
                continue
            await asyncio.sleep(
                backoff_s(self._refused + 1, first_s=AGAIN_WAIT_S, max_s=AGAIN_WAIT_S_MAX)
            )
            await self._begin(again=True)

    def _patience_s(self) -> float:
        """How long the server may still be silent. One that was asked for nothing may be for ever."""
        since_s = self._heard_s if self._asked > 0 else time.monotonic()
        return since_s + SILENCE_S_MAX - time.monotonic()

    async def _on_restored(self) -> None:
        self._doubt.set()

    # --- messages -------------------------------------------------------------------------------------------
    def _receive(self, message: Message) -> None:
        self._heard_s = time.monotonic()
        if not message.reply.startswith("$JS.ACK."):
            self._status(message)
            return
        self._refused = 0
        meta = parse_meta(message.reply)
        self._asked -= 1
        if self._in_order and meta.consumer_seq != self._next_seq:
            log.info(
                "delivery_gap", stream=self._stream, consumer=self._consumer, seq=meta.consumer_seq
            )
            self._begin_again()
            return
        self._next_seq = meta.consumer_seq + 1
        self.pending = meta.pending
        if self._holds:
            self._held += 1
        try:
            self._on_message(message, meta)
        except Unreadable:
            self._held = max(0, self._held - 1)
            self._link.publish(message.reply, b"+TERM")
        self._top_up()

    def _status(self, message: Message) -> None:
        """A word of the server instead of a message: 100 is a heartbeat, 404 and 408 end a pull in peace, all else is a
        doubt.
        """
        status, headers = message.status, message.headers
        if status == "100":
            self._refused = 0
            return
        self._refused += status == _NOBODY
        if status in ("404", "408"):
            self._asked = max(
                0, self._asked - int(headers.get("Nats-Pending-Messages", self._asked))
            )
            self._top_up()
            return
        log.debug("pull_ended", stream=self._stream, consumer=self._consumer, status=status)
        self._begin_again()

    def _begin_again(self) -> None:
        self._subject = ""
        self._doubt.set()

    def _top_up(self) -> None:
        """Ask for more when at least half of the credit is free."""
        free = self._credit - self._asked - self._held
        if self._stopped or free < max(1, self._credit // 2) or not self._subject:
            return
        if not self._asked:
            self._heard_s = time.monotonic()  # until now the server had nothing to say
        self._asked += free
        pull = b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}' % (
            free,
            EXPIRES_S * 1e9,
            random.uniform(*HEARTBEAT_S) * 1e9,
        )
        self._link.publish(
            f"{self._link.api_prefix}CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}",
            pull,
            reply=self._subject,
        )


async def make_reader(
    link: Link,
    stream: str,
    filters: Sequence[str],
    start: Mapping[str, Any],
    *,
    timeout_s: float,
) -> tuple[str, int, int]:
    """An ephemeral consumer without acknowledgements: its name, the sequence behind which it begins, and
    how much it has to deliver now.

    Raises: StoreError.
    """
    config: dict[str, Any] = {
        "ack_policy": "none",
        "replay_policy": "instant",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": int(READER_INACTIVE_S * 1e9),
        **start,
    }
    if len(filters) == 1:
        config["filter_subject"] = filters[0]
    else:
        config["filter_subjects"] = list(filters)
    made = await link.api(
        f"CONSUMER.CREATE.{stream}",
        {"stream_name": stream, "config": config},
        timeout_s=timeout_s,
    )
    return (
        str(made["name"]),
        int(made["delivered"]["stream_seq"]),
        int(made.get("num_pending", 0)),
    )
