"""Outcomes for this client: one subscription for its own caller token, one more for each other id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nats.aio.subscription import Subscription

from aegis_sdk.contract.envelope import OUTCOME, Outcome
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.wire import Message
from aegis_sdk.telemetry import log

Deliver = Callable[[Outcome], None]
OUTCOME_HEADER: Final = OUTCOME.encode()


class NatsReplies:
    """Replies (application/ports.py)."""

    def __init__(self, link: Link, subjects: Subjects, *, caller: str) -> None:
        self._link = link
        self._subjects = subjects
        self._own = f"{caller}."
        self._prefix = len(subjects.reply(""))
        self._expected: dict[str, list[Deliver]] = {}
        self._extra: dict[str, Subscription] = {}
        self._listening: dict[str, Subscription] = {}
        """By the caller's name and a dot."""

    async def start(self) -> None:
        await self._listen()

    async def rename(self, caller: str) -> None:
        """Listen for `caller` too; what is open under the names before is still heard."""
        self._own = f"{caller}."
        await self._listen()

    async def _listen(self) -> None:
        for old in list(self._listening):
            if not any(request_id.startswith(old) for request_id in self._expected):
                self._link.drop(self._listening.pop(old))
        self._listening[self._own] = await self._link.subscribe(
            self._subjects.reply(f"{self._own}*"), self._on_reply
        )

    async def expect(self, request_id: str, deliver: Deliver) -> None:
        self._expected.setdefault(request_id, []).append(deliver)
        if not request_id.startswith(self._own) and request_id not in self._extra:
            self._extra[request_id] = await self._link.subscribe(
                self._subjects.reply(request_id), self._on_reply
            )

    def forget(self, request_id: str, deliver: Deliver) -> None:
        waiting = self._expected.get(request_id)
        if waiting is None:
            return
        if deliver in waiting:
            waiting.remove(deliver)
        if not waiting:
            del self._expected[request_id]
            if (extra := self._extra.pop(request_id, None)) is not None:
                self._link.drop(extra)

    def _on_reply(self, message: Message) -> None:
        waiting = self._expected.get(message.subject[self._prefix :])
        if not waiting:
            return
        try:
            outcome = Outcome.read(message.header(OUTCOME_HEADER), message.data)
        except (KeyError, ValueError) as error:
            log.error("outcome_unreadable", subject=message.subject, error=repr(error))
            return
        for deliver in waiting[:]:
            deliver(outcome)
