"""A caller's side on the wire: sends requests to whoever serves their resource, and hears the answers.

What comes to `<prefix>.rep.<caller>.<n>` may be four things, told apart by a header each:

- an *outcome* that its writer sent (`aegis-outcome`): of a turn of several, or found again for a duplicate;
- a *turn of one outcome* (`aegis-turn`), which the server republished when it stored it, so that it comes a hop sooner;
- a *word* why there is no outcome (`busy`, `moved`, `late`);
- a status 503 of the server: nobody subscribes to the resource's subject. It comes at the speed of a round trip, so a resource
  without an active is noticed long before any timeout.

All of it is core NATS, so each may be missing or come twice. A caller that hears nothing doubts, stores and asks again
(domain/turns/doubt.py); an outcome that comes twice is the same one. An answer that can't be read is logged and left out:
the doubt then reads the log, where it is `unreadable` for certain.

Anybody may publish to a caller's subject. A forged answer can deceive its caller; it can't make an effect.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from nats.aio.subscription import Subscription

from aegis_sdk.contract.envelope import OUTCOME, Outcome, Request
from aegis_sdk.contract.names import NO_RESOURCE
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.entries import TURN, EntryUnreadable, decode_turn, log_of
from aegis_sdk.contract.turns.reads import position_text
from aegis_sdk.contract.turns.sent import (
    ANSWER,
    CANCEL,
    POSITION,
    SENT,
    Answer,
    read_served,
    sent_header,
)
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.wire import Message
from aegis_sdk.telemetry import log

_TURN: Final = TURN.encode()
_OUTCOME: Final = OUTCOME.encode()
_ANSWER: Final = ANSWER.encode()
_POSITION: Final = POSITION.encode()
_SEQUENCE: Final = b"Nats-Sequence"
"""Of what the server republishes."""
_NOBODY: Final = "503"


class Calls:
    """All services' calls of one client. `caller` is its token in request ids.

    Its Caller sets the callbacks before `start`. They run on the connection's reading, and must be quick.
    Invariant: whatever waits for an answer is under a subscription: one of `_heard`, by its caller's name, or one of
    `_others`. Subscriptions end with the link; there is no close.
    """

    def __init__(self, link: Link, subjects: Subjects, *, caller: str) -> None:
        self._link = link
        self._subjects = subjects
        self._names: dict[str, LogSubjects] = {}
        self._own = f"{caller}."
        self._heard: dict[str, Subscription] = {}
        """By this client's name, now and before a new connection, and a dot. A name stays until nothing is open under it."""
        self._expected: dict[str, int] = {}
        """Request ids that are not this client's, and how many wait for each."""
        self._others: dict[str, Subscription] = {}
        self._prefix = len(subjects.reply(""))
        self.on_outcome: Callable[[str, Outcome], None] = lambda request_id, outcome: None
        self.on_answer: Callable[[str, Answer], None] = lambda request_id, answer: None
        self.on_served: Callable[[str, str, Collection[str]], None] = _nobody

    async def start(self) -> None:
        """Raises: StoreUnreachable."""
        await self._hear_own()

    async def rename(self, caller: str, *, is_open: Callable[[str], bool]) -> None:
        """Listen for `caller` too; for names before as long as something `is_open` under them. Raises: StoreUnreachable."""
        for old in [name for name in self._heard if not is_open(name)]:
            self._link.drop(self._heard.pop(old))
        self._own = f"{caller}."
        await self._hear_own()

    async def _hear_own(self) -> None:
        subject = self._subjects.reply(f"{self._own}*")
        self._heard[self._own] = await self._link.subscribe(subject, self._receive)

    async def expect(self, request_id: str) -> None:
        """Hear answers to an id of somebody else's (`attach`, a key), until as many `forget`s. Raises: StoreUnreachable."""
        if any(request_id.startswith(name) for name in self._heard):
            return
        self._expected[request_id] = self._expected.get(request_id, 0) + 1
        if self._expected[request_id] == 1:
            subject = self._subjects.reply(request_id)
            self._others[request_id] = await self._link.subscribe(subject, self._receive)

    def forget(self, request_id: str) -> None:
        waiting = self._expected.pop(request_id, 0) - 1
        if waiting > 0:
            self._expected[request_id] = waiting
        elif (subscription := self._others.pop(request_id, None)) is not None:
            self._link.drop(subscription)

    def names(self, service: str) -> LogSubjects:
        """From the first one on, what the service's instances say that they serve is heard. Raises: StoreUnreachable, when the
        connection is closed.
        """
        names = self._names.get(service)
        if names is None:
            names = self._names[service] = LogSubjects(self._subjects, service)
            self._link.subscribe_all([names.served], partial(self._served, service))
        return names

    def send(self, request: Request, *, sent_s: float, after: int, member: str) -> None:
        """To a group without members goes nothing: the server says that nobody is there. Raises: StoreTooLarge,
        StoreUnreachable.

        `sent_s`: Unix time; the owner judges the request's age by it (R9). `after`: the place of what this caller stored
        last for the resource; the owner lets the request wait until it has read up to there (G7).
        """
        names = self.names(request.service)
        headers = request.headers()
        headers[SENT] = sent_header(sent_s, after)
        self._link.post(
            _to(names, request, member),
            request.payload,
            headers,
            reply=names.reply(request.request_id),
        )

    def cancel(self, request: Request, *, member: str) -> None:
        """Ask the active to end it, unless it has begun. Raises: StoreUnreachable."""
        subject = _to(self.names(request.service), request, member)
        self._link.post(subject, b"", {CANCEL: request.request_id})

    def _receive(self, message: Message) -> None:
        request_id = message.subject[self._prefix :]
        if said := message.header(_OUTCOME):
            self._outcome(request_id, said, message)
        elif message.header(_TURN):
            self._turn(request_id, message)
        elif message.status == _NOBODY:
            self.on_answer(request_id, Answer.NOBODY)
        elif (word := message.header(_ANSWER)) in Answer.__members__.values():
            self.on_answer(request_id, Answer(word))

    def _served(self, service: str, message: Message) -> None:
        try:
            instance_id, resources = read_served(message.data)
        except ValueError as error:
            log.error("announcement_unreadable", subject=message.subject, error=repr(error))
            return
        self.on_served(service, instance_id, resources)

    def _outcome(self, request_id: str, said: str, message: Message) -> None:
        try:
            outcome = Outcome.read(said, message.data)
        except (KeyError, ValueError) as error:
            log.error("outcome_unreadable", subject=message.subject, error=repr(error))
            return
        outcome.position = message.header(_POSITION)
        self.on_outcome(request_id, outcome)

    def _turn(self, request_id: str, message: Message) -> None:
        """As the log has it. Its position is the republished message's sequence, in the log that the turn itself names."""
        try:
            records = decode_turn(message.data)
        except EntryUnreadable as error:
            log.error("outcome_unreadable", subject=message.subject, error=repr(error))
            return
        for record in records:
            if record.request_id == request_id:
                if seq := message.header(_SEQUENCE):
                    record.outcome.position = position_text(log_of(message.data), int(seq))
                self.on_outcome(request_id, record.outcome)


def _nobody(service: str, instance_id: str, resources: Collection[str]) -> None:
    """Nobody listens yet."""


def _to(names: LogSubjects, request: Request, member: str) -> str:
    if request.resource is None:
        return names.sent_to_member(member or NO_RESOURCE)
    return names.sent(request.resource)
