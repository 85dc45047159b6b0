"""Requests as they are sent to an active, over core NATS: one subscription for each resource that it serves.

A subscription is a claim that can be out of date: the server goes on sending to an instance that was replaced and has not
read it. Such a request is judged like all others. Its turn is refused by the gate (G5), and the caller has stored it
meanwhile. So who subscribes decides how quick an answer is, never whether an effect is right.

Three kinds of messages come to these subjects, told apart without parsing more than a header: a request (`Nats-Msg-Id`), a
polite cancel (`aegis-cancel`), and one member's question to another whether it has a group request in hand.

That question spares a run. A stored group request that was sent to one member is dealt to another one by the broker;
without the question both would run it, and one of the two outcomes would be refused (G2). A member that says nothing may be
gone, so the other one begins.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable
from typing import Final

from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from aegis_sdk.application.ports import StoreError
from aegis_sdk.contract.envelope import MSG_ID, Outcome, Request
from aegis_sdk.contract.turns.entries import reply_headers
from aegis_sdk.contract.turns.sent import ANSWER, CANCEL, SENT, Answer, read_sent, served_body
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.nats.link import SETTLE_S, Link
from aegis_sdk.nats.wire import Message
from aegis_sdk.telemetry import log

ANNOUNCED_MAX: Final = 1000
"""Names in one message: the longest ones fit."""
_CANCEL: Final = CANCEL.encode()
_MSG_ID: Final = MSG_ID.encode()
_YES: Final = b"1"
_NO: Final = b"0"
ASK_S: Final = 0.3
"""A member whose loop runs answers in a moment; one that does not is taken for gone."""
SILENT_S: Final = 1.0
"""Of one that did not, no further ones are asked for so long: each wait holds up a request that others have to begin."""

OnRequest = Callable[[Request, float, int], None]
"""A request, when it was sent (Unix time), and the stored one that comes before it."""


class SentRequests:
    """The active's side: Sent (application/turns/ports.py), of one instance.

    The host sets the callbacks before it serves anything. Invariant: `_subscriptions` has exactly what callers reach here, by
    resource. A new connection subscribes to all of it again; what was sent in between is lost, and its callers doubt.
    """

    def __init__(self, link: Link, names: LogSubjects) -> None:
        self._link = link
        self._names = names
        self._subscriptions: dict[str, Subscription] = {}
        self._group: list[Subscription] = []
        self._silent_s: dict[str, float] = {}
        """Members that said nothing when they were last asked, and when they were asked (the loop's clock)."""
        self.on_request: OnRequest = lambda request, sent_s, after: None
        self.on_cancel: Callable[[str], None] = lambda request_id: None
        self.on_asked: Callable[[str], bool] = lambda request_id: False

    def serve(self, resources: Iterable[str]) -> None:
        """In one write, however many: a takeover of ten thousand must not wait for each. What is served already stays.

        Raises: StoreUnreachable, when the connection is closed.
        """
        new = [resource for resource in resources if resource not in self._subscriptions]
        subjects = [self._names.sent(resource) for resource in new]
        made = self._link.subscribe_all(subjects, self._receive)
        self._subscriptions |= dict(zip(new, made, strict=True))

    def serve_group(self, instance_id: str) -> None:
        """Raises: StoreUnreachable, when the connection is closed."""
        subject = self._names.sent_to_member(instance_id)
        self._group = self._link.subscribe_all([subject], self._receive)

    def leave(self, resources: Iterable[str]) -> None:
        found = [self._subscriptions.pop(resource, None) for resource in resources]
        self._link.drop_all([each for each in found if each is not None])

    def leave_all(self) -> None:
        self.leave(list(self._subscriptions))
        self._link.drop_all(self._group)
        self._group = []

    async def settle(self) -> None:
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            await self._link.settle(timeout_s=SETTLE_S)

    async def has_in_hand(self, instance_id: str, request_id: str) -> bool | None:
        asked_s = asyncio.get_running_loop().time()
        if asked_s - self._silent_s.get(instance_id, -SILENT_S) < SILENT_S:
            return None
        subject = self._names.sent_to_member(instance_id)
        try:
            said = await self._link.request(subject, request_id.encode(), timeout_s=ASK_S)
        except StoreError:
            self._silent_s[instance_id] = asked_s
            return None
        self._silent_s.pop(instance_id, None)
        return said == _YES

    def announce(self, instance_id: str, resources: Collection[str]) -> None:
        names = list(resources)
        for at in range(0, len(names), ANNOUNCED_MAX):
            body = served_body(instance_id, names[at : at + ANNOUNCED_MAX])
            self._link.publish(self._names.served, body)

    def answer(self, request_id: str, outcome: Outcome) -> None:
        """To the caller that the id names, whether it still is there or not. An answer that is lost is asked for again."""
        self._link.publish(self._names.reply(request_id), outcome.body, reply_headers(outcome))

    def refuse(self, request_id: str, answer: Answer) -> None:
        self._link.publish(self._names.reply(request_id), b"", {ANSWER: answer.value})

    def _receive(self, message: Message) -> None:
        if cancelled := message.header(_CANCEL):
            self.on_cancel(cancelled)
            return
        if message.reply and not message.header(_MSG_ID):
            has = self.on_asked(message.data.decode(errors="replace"))
            self._link.publish(message.reply, _YES if has else _NO)
            return
        try:
            headers = message.headers
            request = Request.parse(
                headers,
                message.data,
                service=self._names.service,
                resource=self._names.sent_to(message.subject),
            )
            sent_s, after = read_sent(headers.get(SENT, ""))
        except (KeyError, ValueError) as error:
            log.error("request_unreadable", subject=message.subject, error=repr(error))
            return
        self.on_request(request, sent_s, after)
