"""One client's open requests: executes what `Doubts` decides, and hands each caller its one outcome.

Each request is sent, stored, sent again, ended or given up as domain/turns/doubt.py has it. This module knows whom
a group's request goes to: the members in turn. It bounds how many requests are stored at once, and keeps their
order. Without the bound, a service that has lost its active would have thousands on their way together. Those that
give up at one moment do so together.

Theory of operation. Each request has two halves under one id: a `Call` at `Doubts`, which decides, and a `Waiting`
here, which has the request and the caller's future. Both are made together, by `outcome_of` or `end`, and go
together. Events (an answer, a look, a new connection) go to `Doubts`. What it asks for is taken by `_act` and
executed, in the order of `Asked`.

An answer ends a request wherever it comes from: the owner, the server that republishes a turn, the log that was
read at the end. The first one is delivered, and later ones are dropped. They are the same outcome (G2), so it does
not matter which is first.

What must stay true:
- A future is resolved once, and nobody else's outcome resolves it. It ends with an outcome or an error that says
  what is known; a timeout alone ends nothing (G4).
- Behind each `await` the request may have its answer, or its caller may be gone. So whoever stores one looks at its
  `call.state` before each try, and whoever settles some looks which of them are still open.
- An error that says "without effect" is raised only when the log says so. A request that could not be stored may
  have been sent before: it is ended first, and `refused` is raised when its outcome turns out to be `cancelled`.

What a crash leaves. The client's process holds nothing that anybody needs. What it had stored has its outcome in
the log, and whoever knows the id can attach. What it had only sent takes effect once or not at all, by its deadline
(the end of G1).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from aegis_sdk.application.composing import CLOSED
from aegis_sdk.application.outcomes import given_up, left_open
from aegis_sdk.application.ports import (
    Accepted,
    Directory,
    RequestLog,
    StoreError,
    StoreForbidden,
    StoreFull,
    StoreTooLarge,
    StoreUnreachable,
)
from aegis_sdk.application.turns.aside import Aside
from aegis_sdk.application.turns.ports import CallsOut, LastWord
from aegis_sdk.application.turns.positions import Positions
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.ids import is_nested
from aegis_sdk.contract.turns.sent import Answer
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.domain.recorder import Recorder
from aegis_sdk.domain.turns.doubt import VACANT, Because, Call, Doubts
from aegis_sdk.domain.turns.sessions import is_single
from aegis_sdk.domain.turns.states import CallState
from aegis_sdk.errors import (
    AegisError,
    Draining,
    KeyReused,
    OutcomeUnknown,
    Overloaded,
    PayloadTooLarge,
    RefusedByNats,
)
from aegis_sdk.telemetry import about, log

STORING_MAX: Final = 256
"""Requests that are being stored at once. More wait for their turn, and many are answered until it comes."""
STORE_S: Final = 1.0
"""One try to store a request; the next follows until it is stored, answered or given up."""
END_S_MAX: Final = 1.0
"""How long a client that closes still ends requests whose callers were cancelled: as a program that is interrupted does."""
_BECAUSE: Final = {
    Answer.BUSY: Because.BUSY,
    Answer.MOVED: Because.OWNER_CHANGED,
    Answer.LATE: Because.OPEN_LONG,
    Answer.NOBODY: Because.NO_RESPONDER,
}

CheckKey = Callable[[Accepted], Awaitable[None]]
"""Whether a key that the stream saw before belongs to the same request. Raises: KeyReused."""


class Waiting:
    """Who waits for a request's answer, and how it is sent. It belongs to one call of `outcome_of`, `listen` or
    `end`.

    `request` may be replaced while it is open: the group's names the member that it was sent to. All its copies
    have one id and one time of sending. `answer` is replaced once, when its caller was cancelled and the request is
    ended without it.
    """

    __slots__ = (
        "after", "answer", "call_id", "check_key", "is_cancelled", "is_left", "log", "member", "refused", "refused_by", "request", "sent_at", "times",
    )  # fmt: skip

    def __init__(self, request: Request, answer: asyncio.Future[Outcome]) -> None:
        self.request = request
        self.answer = answer
        self.call_id = request.request_id
        """The request's id, and more where this client waits for the same request several times."""
        self.check_key: CheckKey | None = None
        """For one with a key: asked when the stream says that it had that id before."""
        self.sent_at = time.time()
        """Unix time: all its copies carry the same."""
        self.times = 0
        """How often it was sent, to this member. From the second time on a single is marked, since no session would
        tell a copy.
        """
        self.member = ""
        """Of the group: whom it is sent to."""
        self.refused_by: set[str] = set()
        """Members that are gone, or leave."""
        self.after = 0
        """The last place that this caller had stored for the resource when it was first sent (G7)."""
        self.log = ""
        """The identity of the log that it is stored in; empty while that is not known."""
        self.is_cancelled = False
        """On purpose, before its deadline."""
        self.is_left = False
        """Whoever asked was cancelled, and waits no more."""
        self.refused: AegisError | None = None
        """The answer, if the request turns out to have no effect: why it was not stored."""

    def deliver(self, outcome: Outcome) -> None:
        """The outcome, unless it had one. Safe twice."""
        if not self.answer.done():
            self.answer.set_result(outcome)

    def fail(self, error: AegisError) -> None:
        """What its caller is told instead of an outcome, unless it had one. Safe twice."""
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # known, also when whoever asked is not waiting any more

    async def told(self) -> Outcome:
        """How it ended. Raises: what whoever asked for it is told; OutcomeUnknown, when that one was cancelled and it goes on."""
        while True:
            answer = self.answer
            await asyncio.wait({answer})
            if not answer.cancelled():
                return answer.result()
            if self.answer is answer:  # else it is ended for its caller, and the new one says how
                request_id = self.request.request_id
                raise OutcomeUnknown(
                    f"{request_id}: whoever asked for it was cancelled, and it was not ended: attach to it later",
                    request_id,
                )

    def tell_unknown(self, why: str) -> None:
        """Nobody can say now whether it took effect. Its id is in the error: `attach` will know."""
        request_id = self.request.request_id
        if self.refused is not None:
            why = f"{self.refused}; {why}"
        self.fail(OutcomeUnknown(f"{request_id} was open ({why}): attach to it later", request_id))


@dataclass(slots=True)
class _NotSettled:
    """Why callers that give up are not told how their requests ended."""

    text: str
    passes: bool = False
    """Another try may know more."""


class OpenCalls:
    """Of one client, from its connection to `close`. All of it runs on one event loop.

    Each id in `_waiting` has a `Call` at `Doubts`, and the other way round. What stands in `_beside` under the same
    request id is told its outcome, too: a second call with the same key, which has a `Call` of its own, or a
    listener, which has none.
    """

    def __init__(
        self,
        *,
        calls: CallsOut,
        requests: RequestLog,
        last_word: LastWord,
        directory: Directory,
        recorder: Recorder,
        resolve_s: float,
    ) -> None:
        self._calls = calls
        self._requests = requests
        self._last_word = last_word
        self._directory = directory
        self._recorder = recorder
        self._resolve_s = resolve_s
        """Seconds past its deadline in which a caller tries to end the doubt."""
        self._loop = asyncio.get_running_loop()
        self.positions = Positions()
        self._doubts = Doubts()
        self._waiting: dict[str, Waiting] = {}
        """By `call_id`."""
        self._beside: dict[str, list[Waiting]] = {}
        """By request id: who waits for it beside the one in `_waiting`, or without having asked for it."""
        self._member_n = 0
        """Counts group requests, so that they go to the members in turn."""
        self._last_stored: dict[tuple[str, str], tuple[int, str]] = {}
        """By service and resource: the place of what was stored last, and the identity of the log. A place in
        another log orders nothing.
        """
        self._storing = 0
        """Requests on their way to a stream: STORING_MAX at most."""
        self._to_store: deque[Call] = deque()
        """Those that wait for their turn, in the order in which `Doubts` named them: for a resource, that of their
        sending (G7).
        """
        self._giving_up: dict[str, dict[str, float]] = {}
        """By service: what gives up, and when it has tried for long enough (the loop's clock)."""
        self._looks = False
        """A look is scheduled."""
        self._aside = Aside("caller")
        self._ending: set[asyncio.Task[None]] = set()
        """Requests whose callers have left, while they are ended. `close` waits for these, for END_S_MAX."""
        self.is_closing = False
        self.is_gone = False
        """Closed, and no longer draining."""
        self.stored = 0
        """Requests that were stored, most of them in doubt."""
        calls.on_outcome, calls.on_answer = self._on_outcome, self._on_answer
        calls.on_served = self._on_served

    async def outcome_of(
        self,
        request: Request,
        *,
        ends_s: float,
        stored_as: Because | None = None,
        check_key: CheckKey | None = None,
    ) -> Outcome:
        """Its one outcome, at `ends_s` by the loop's clock, or soon after. `stored_as`: it is stored before anybody
        has it, and why. `check_key`: for a request with a key.

        When its caller is cancelled, the request is ended as at its deadline, without anybody waiting for that; the
        log says how it ended. Not so a handler's own request, which its next run asks for.

        Raises: PayloadTooLarge, Overloaded, RefusedByNats, KeyReused, Draining: without effect; OutcomeUnknown.
        """
        if self.is_closing:
            raise Draining(CLOSED)
        waiting = Waiting(request, self._loop.create_future())
        waiting.check_key = check_key
        if waiting.call_id in self._waiting:
            self._stand_beside(waiting)
            # The same id is open already: a key that two callers use. A request's id has no space,
            # so this one is nobody else's.
            waiting.call_id = f"{waiting.call_id} {id(waiting)}"
        place = self._place(waiting)
        if stored_as is not None:
            waiting.request = request  # nobody has it in hand before the stream has it
        self._waiting[waiting.call_id] = waiting
        call = Call(
            waiting.call_id,
            place,
            sent_s=self._loop.time(),
            deadline_s=ends_s,
            is_group=request.resource is None,
        )
        try:
            if self._doubts.made(call, stored_as=stored_as):
                self._send(waiting)
            else:
                self._act()
            self._look_later()
            outcome = await waiting.answer
        except asyncio.CancelledError:
            if self._is_ended_with_its_caller(waiting):
                self._leave_to_end(waiting)
            raise
        finally:
            if not waiting.is_left:
                self._forget(waiting)
        # It could not be stored, and is ended by now: the caller learns the reason, and that it had
        # no effect.
        if waiting.refused is not None and outcome.kind is OutcomeKind.CANCELLED:
            raise waiting.refused
        return outcome

    def _forget(self, waiting: Waiting) -> None:
        self._doubts.ended(waiting.call_id)
        del self._waiting[waiting.call_id]
        if self._beside:
            self.leave(waiting)

    # --- ending early -----------------------------------------------------------------------------------------
    def end_now(self, request_id: str) -> Waiting | None:
        """End it as at its deadline, if it is open here: what to wait for by `told`. None: this client has no such
        request.
        """
        waiting = self._waiting.get(request_id)
        if waiting is not None:
            self._end(waiting)
        return waiting

    def end(self, request: Request) -> None:
        """One that nobody waits for, and that may be stored."""
        if request.request_id in self._waiting or self.is_gone:
            return
        waiting = Waiting(request, self._loop.create_future())
        now_s = self._loop.time()
        place = request.service, request.resource or "any"
        call = Call(waiting.call_id, place, sent_s=now_s, deadline_s=now_s)
        self._waiting[waiting.call_id] = waiting
        self._doubts.made(call, stored_as=Because.SUBMITTED)
        self._leave_to_end(waiting)

    def _is_ended_with_its_caller(self, waiting: Waiting) -> bool:
        """Not a handler's: its next run asks for it again. Nor one that somebody else here asked for, too."""
        request_id = waiting.request.request_id
        others = [each for each in self._beside.get(request_id, ()) if each is not waiting]
        wanted = waiting.call_id != request_id or any(e.call_id in self._waiting for e in others)
        return not (self.is_gone or wanted or is_nested(request_id))

    def _leave_to_end(self, waiting: Waiting) -> None:
        """Nobody waits for it any more: end it, and tell the log how it ended."""
        waiting.is_left = True
        waiting.answer = self._loop.create_future()
        log.info("caller_cancelled", **about(waiting.request))
        self._end(waiting)
        ending = self._aside(self._until_ended(waiting))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    def _end(self, waiting: Waiting) -> None:
        """Its deadline is this moment: its owner is asked first, and if that says nothing, its end is stored."""
        waiting.is_cancelled = True
        self._doubts.cancelled(waiting.call_id, self._loop.time())
        self._act()
        self._look_later()

    async def _until_ended(self, waiting: Waiting) -> None:
        """The log says what nobody is left to be told."""
        keys = about(waiting.request)
        try:
            outcome = await waiting.answer
            self._recorder.answered(waiting.request, outcome, time.time() - waiting.sent_at)
            log.info("cancelled_request_ended", outcome=outcome.kind.value, **keys)
        except AegisError as error:
            log.warning("cancelled_request_open", error_code=error.code, error=str(error), **keys)
        finally:
            self._forget(waiting)

    def listen(self, request: Request) -> Waiting:
        """Be told its outcome, whoever asked for it; until `leave`. Raises: Draining."""
        if self.is_gone:
            raise Draining(CLOSED)
        waiting = Waiting(request, self._loop.create_future())
        self._stand_beside(waiting)
        return waiting

    def _stand_beside(self, waiting: Waiting) -> None:
        self._beside.setdefault(waiting.request.request_id, []).append(waiting)

    def leave(self, waiting: Waiting) -> None:
        """It waits beside others no more."""
        request_id = waiting.request.request_id
        beside = [each for each in self._beside.get(request_id, ()) if each is not waiting]
        if beside:
            self._beside[request_id] = beside
        else:
            self._beside.pop(request_id, None)

    def is_stored(self, request: Request, seq: int) -> None:
        """What this caller sends to the resource from now on comes behind it (G7)."""
        if request.resource is not None:
            place, log_id = (request.service, request.resource), self._log_of(request.service)
            before, of = self._last_stored.get(place, (0, log_id))
            self._last_stored[place] = max(seq, before if of == log_id else 0), log_id

    def is_any(self, prefix: str) -> bool:
        """Whether something is open under ids that begin so. Looks at all that is open."""
        return any(each.request.request_id.startswith(prefix) for each in self._all())

    def restored(self) -> None:
        """There is a new connection. What was sent on the old one may be lost, in either direction: what was sent
        and not stored is stored.
        """
        self._doubts.restored()
        self._act()

    async def close(self, *, drain_s: float) -> None:
        """Take nothing new, wait up to `drain_s` for what is open, then tell each caller that is left what is
        known: OutcomeUnknown. Requests whose callers were cancelled are still ended, for END_S_MAX at most.
        """
        self.is_closing = True
        answers = [waiting.answer for waiting in self._all()]
        if answers and drain_s > 0:
            await asyncio.wait(answers, timeout=drain_s)
        self.is_gone = True
        for waiting in self._all():
            if not waiting.is_left:
                waiting.fail(left_open(waiting.request))
        if self._ending:
            await asyncio.wait(self._ending, timeout=END_S_MAX)
        for waiting in self._all():
            waiting.fail(left_open(waiting.request))
        self._aside.stop()

    def _all(self) -> Iterator[Waiting]:
        yield from list(self._waiting.values())
        for beside in list(self._beside.values()):
            yield from beside

    # --- sending ----------------------------------------------------------------------------------------------
    def _place(self, waiting: Waiting) -> tuple[str, str]:
        """Whose silence counts: that of a resource's owner, or of the member of the group that it is sent to."""
        request = waiting.request
        if request.resource is not None:
            place = request.service, request.resource
            last = self._last_stored.get(place)
            if last is not None and last[1] == self._log_of(request.service):
                waiting.after = last[0]
            return place
        self._next_member(waiting)
        return request.service, f"any {waiting.member}"

    def _next_member(self, waiting: Waiting) -> bool:
        """A group's request is for the members in turn. Whether there is one that did not refuse it."""
        members = self._directory.members(waiting.request.service)
        left = [member for member in members if member not in waiting.refused_by]
        if left:
            self._member_n += 1
            waiting.member = left[self._member_n % len(left)]
            waiting.request = replace(waiting.request, given_to=waiting.member)
        return bool(left)

    def _send(self, waiting: Waiting) -> None:
        """To its owner, or to its member. What can't be sent now is not lost: the silence that follows has it
        stored.

        Raises: PayloadTooLarge.
        """
        request = waiting.request
        waiting.times += 1
        if waiting.times > 1 and is_single(request.request_id):
            request = replace(request, attempt=2)  # it may have an outcome: no session tells
        try:
            self._calls.send(
                request, sent_s=waiting.sent_at, after=waiting.after, member=waiting.member
            )
        except StoreTooLarge as error:
            raise PayloadTooLarge(str(error)) from error
        except StoreUnreachable as error:
            log.debug("request_not_sent", **about(request), error=str(error))

    # --- what comes back --------------------------------------------------------------------------------------
    def _on_outcome(self, request_id: str, outcome: Outcome) -> None:
        """It may come twice, and for a request that is not open any more. What its owner says at the same time: it
        lives.
        """
        waiting = self._waiting.get(request_id)
        if waiting is not None:
            call = self._doubts.open.get(request_id)
            if call is not None and outcome.instance_id:
                self._doubts.heard(outcome.instance_id, call.place, self._loop.time())
            if outcome.position and waiting.request.resource is not None:
                self.positions.saw(waiting.request.service, outcome.position)
            waiting.deliver(outcome)
        if self._beside:
            for each in self._beside.get(request_id, ()):
                each.deliver(outcome)

    def _on_answer(self, request_id: str, answer: Answer) -> None:
        """Nothing of it was stored by whoever says so. The group's goes to the next member, which is as good. A
        resource has one owner: there `Doubts` waits for the next one, or stores it.
        """
        because, now_s = _BECAUSE[answer], self._loop.time()
        waiting = self._waiting.get(request_id)
        if waiting is not None and waiting.request.given_to:
            waiting.request = replace(waiting.request, given_to="")
            if because in VACANT and self._goes_to_another(waiting):
                return
        self._doubts.refused(request_id, because, now_s)
        for each in self._beside.get(request_id, ()):
            self._doubts.refused(each.call_id, because, now_s)
        self._act()

    def _goes_to_another(self, waiting: Waiting) -> bool:
        """Whether another member is sent it: the one that was is gone, or leaves, and has begun nothing of it."""
        call = self._doubts.open[waiting.call_id]
        waiting.refused_by.add(waiting.member)
        if call.state is not CallState.SENT or not self._next_member(waiting):
            return False
        call.place = waiting.request.service, f"any {waiting.member}"
        waiting.times = 0
        self._send(waiting)
        return True

    def _on_served(self, service: str, instance_id: str, resources: Collection[str]) -> None:
        self._doubts.served(service, resources, instance_id, self._loop.time())
        self._act()

    # --- looking after what is open -----------------------------------------------------------------------------
    def _look_later(self) -> None:
        """While something is open there is a look, each TICK_S. A client without open requests has no timer."""
        if not self._looks and self._doubts.next_look_s:
            self._looks = True
            self._loop.call_at(self._doubts.next_look_s, self._look)

    def _look(self) -> None:
        self._looks = False
        self._doubts.look(self._loop.time())
        self._act()
        self._look_later()

    def _act(self) -> None:
        """Do what `Doubts` asks for: all of it, in the order of `Asked`. Called behind what may have it ask for
        something; the rest waits for the next look.
        """
        asked = self._doubts.take_asked()
        self._to_store += asked.store
        self._store_next()
        for call in asked.send:
            if (waiting := self._waiting.get(call.request_id)) is not None:
                self._send_again(call, waiting)
        for call in asked.cancel:
            if (waiting := self._waiting.get(call.request_id)) is not None:
                self._ask_to_end(waiting)
        for call in asked.give_up:
            self._give_up(call)

    def _send_again(self, call: Call, waiting: Waiting) -> None:
        """Unless it is gone with the log that it was stored in: then it is stored in the new one."""
        service = waiting.request.service
        if call.state is CallState.STORED and not self._directory.lost(service):
            log_id = self._log_of(service)
            waiting.log = waiting.log or log_id
            if waiting.log != log_id:
                self._doubts.lost(call.request_id)
                self._to_store += self._doubts.take_asked().store
                self._store_next()
                return
        try:
            self._send(waiting)
        except PayloadTooLarge as error:  # by the bound of another server than before
            self._end_early(call, waiting, error)

    def _log_of(self, service: str) -> str:
        """The identity of the log that has this service's requests; empty while it is not known."""
        return self._directory.requests_log(service)

    def _store_next(self) -> None:
        """Begin to store what may be. Most of what waits is answered before its turn, and is passed over."""
        while self._to_store and self._storing < STORING_MAX:
            call = self._to_store.popleft()
            waiting = self._waiting.get(call.request_id)
            if waiting is not None and call.state is CallState.STORING:
                self._storing += 1
                self.stored += 1
                if call.because is not None:
                    self._recorder.stored(waiting.request.service, call.because)
                self._aside(self._store(call, waiting))

    async def _store(self, call: Call, waiting: Waiting) -> None:
        """Until it is stored, answered, or given up."""
        request, n = waiting.request, 0
        try:
            while call.state is CallState.STORING:
                n += 1
                try:
                    accepted = await self._requests.append(request, timeout_s=STORE_S)
                except StoreFull as error:
                    self._end_early(call, waiting, Overloaded(f"{request.service}: {error}"))
                except StoreTooLarge as error:
                    self._end_early(call, waiting, PayloadTooLarge(str(error)))
                except StoreForbidden as error:
                    self._end_early(call, waiting, RefusedByNats(f"{request.service}: {error}"))
                except StoreError as error:
                    log.debug("request_not_stored", **about(request), error=str(error))
                    await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.5))
                else:
                    await self._accepted(call, waiting, accepted)
                    return
        finally:
            self._storing -= 1
            self._store_next()

    def _end_early(self, call: Call, waiting: Waiting, why: AegisError) -> None:
        """It may have been sent, and an earlier try may be stored: only its end makes sure that it has no effect."""
        waiting.refused = why
        self._doubts.hopeless(call.request_id, self._loop.time())
        self._act()

    async def _accepted(self, call: Call, waiting: Waiting, accepted: Accepted) -> None:
        """The stream has it. For a key that it had before, the request there decides whether this one may be the
        same.
        """
        if waiting.check_key is not None and accepted.duplicate:
            try:
                await waiting.check_key(accepted)
            except KeyReused as error:
                waiting.fail(error)
                return
        self._doubts.stored(call.request_id, self._loop.time())
        waiting.log = self._log_of(waiting.request.service)
        self.is_stored(waiting.request, accepted.seq)
        if waiting.check_key is not None and accepted.duplicate:
            self._send(waiting)  # whoever asked before may have had the answer long ago

    def _ask_to_end(self, waiting: Waiting) -> None:
        """Ask its owner to end it, unless it has begun. No answer within POLITE_S means to give up."""
        if waiting.refused is None and not waiting.is_cancelled:
            log.info("deadline_passed", **about(waiting.request))
        try:
            self._calls.cancel(waiting.request, member=waiting.member)
        except StoreError as error:
            log.debug("cancel_not_sent", **about(waiting.request), error=str(error))

    # --- giving up ----------------------------------------------------------------------------------------------
    def _give_up(self, call: Call) -> None:
        """Together with all that give up on this service. One task settles them: a second one would store its gates
        again.
        """
        service = call.place[0]
        if service not in self._giving_up:
            self._giving_up[service] = {}
            self._aside(self._settle_all(service))
        ends_s = max(self._loop.time(), call.deadline_s)  # what can't be stored gives up before
        self._giving_up[service][call.request_id] = ends_s + self._resolve_s

    async def _settle_all(self, service: str) -> None:
        """All that give up on the service at this moment, by one reading of its log. What comes while one is at it
        is taken by the next.

        What fails is tried again until `resolve_s` past each one's deadline: an end that is stored twice is one
        end.
        """
        giving_up, n = self._giving_up[service], 0
        try:
            while giving_up:
                ids = list(giving_up)
                why = await self._settle(service, ids)
                now_s = self._loop.time()
                for each in ids:
                    if why is None or not why.passes or now_s >= giving_up[each]:
                        del giving_up[each]
                        if why is not None and (waiting := self._waiting.get(each)) is not None:
                            waiting.tell_unknown(why.text)
                n = 0 if why is None else n + 1
                if n:
                    await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.25))
        finally:
            del self._giving_up[service]

    async def _settle(self, service: str, ids: Collection[str]) -> _NotSettled | None:
        """Tell each how its request ended, or say why nobody knows."""
        waiting = [self._waiting[each] for each in ids if each in self._waiting]
        try:
            if lost := self._directory.lost(service):
                return _NotSettled(f"{lost}: whether it took effect is known when that is accepted")
            found = await self._outcomes_of(service, waiting)
        except StoreError as error:
            passes = not isinstance(error, StoreForbidden)
            is_full = isinstance(error, StoreFull)
            what = (
                "there is no room to store its end"
                if is_full
                else "NATS could not be reached to end it"
            )
            return _NotSettled(f"{what}: {error}", passes=passes)
        except Exception as error:
            log.exception("not_settled", service=service)
            return _NotSettled(f"it could not be ended: {error!r}")
        for each in waiting:
            request = each.request
            each.deliver(found.get(request.request_id) or given_up(request))
        return None

    async def _outcomes_of(self, service: str, waiting: Sequence[Waiting]) -> dict[str, Outcome]:
        """The others never will have one. Raises: StoreError."""
        calls = [self._doubts.open[each.call_id] for each in waiting]
        if not calls:
            return {}
        return await self._last_word.settle(
            service,
            [each.request for each in waiting],
            open_s=self._loop.time() - min(call.sent_s for call in calls),
            stored=any(call.because is not None for call in calls),
        )
