"""A call's way in the first form: the request is stored, and its outcome is republished by the server or read (G1, G4, G8).

It publishes, waits for the outcome that the server republishes, and covers every way to miss it: a
request that was not acknowledged is sent again under the same id, an outcome that did not arrive is
read from the journal, and at the deadline the caller writes `cancelled` itself. Whichever is stored
first is the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from dataclasses import dataclass, replace
from typing import Any, Final

from aegis_sdk.application.calls import Calls
from aegis_sdk.application.children import Children
from aegis_sdk.application.composing import CLOSED
from aegis_sdk.application.keys import is_same, key_reused
from aegis_sdk.application.outcomes import cancelled_at_deadline
from aegis_sdk.application.ports import (
    Accepted,
    AlreadyStored,
    Directory,
    Journal,
    Replies,
    RequestLog,
    StoreError,
    StoreForbidden,
    StoreFull,
    StoreUnreachable,
)
from aegis_sdk.application.routing import check_route
from aegis_sdk.application.storing import stored
from aegis_sdk.application.way import (
    HAND_IN_S,
    RESOLVE_S,
    BeforeSending,
    left_open,
    never_accepted,
    open_still,
)
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.ids import is_keyed
from aegis_sdk.contract.method import Method
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.errors import (
    AegisError,
    Draining,
    KeyReused,
    OutcomeUnknown,
    Overloaded,
    RefusedByNats,
    Unavailable,
)
from aegis_sdk.telemetry import about, log

RECHECK_S: Final = 0.25
"""First look at a request that is still open; doubles up to RECHECK_S_MAX."""
RECHECK_S_MAX: Final = 2.0
WATCH_S: Final = RECHECK_S / 2
"""How often open requests are looked at."""
RECHECKS_AT_ONCE_MAX: Final = 64


@dataclass(slots=True, eq=False)
class _Open:
    """A request without an answer so far."""

    request: Request
    method: Method[Any, Any]
    answer: asyncio.Future[Outcome | None]
    """The outcome, or None when the time was up."""
    recheck_s: float
    until_s: float = math.inf
    """When the time is up, by the loop's clock."""
    timer: asyncio.TimerHandle | None = None
    is_held: bool = False
    """It is not to be sent yet."""
    sent_again: int = 0
    accepted: Accepted | None = None
    refused: AegisError | None = None
    """The answer, if the request turns out to have no effect: why it was not stored."""
    log: str = ""
    """The identity of the log that has its service's requests, as it was first known; empty before."""
    is_sent: bool = False
    """It may be stored, now or soon; also when another process sent it."""

    def deliver(self, outcome: Outcome) -> None:
        if not self.answer.done():
            self.answer.set_result(outcome)

    async def wait(self, timeout_s: float) -> Outcome | None:
        """The outcome, or None after `timeout_s`; the entry stays open for a later one.

        The timer is set when it is near: most calls have ended long before.
        """
        loop = self.answer.get_loop()
        self.until_s = loop.time() + max(0.0, timeout_s)
        self.arm(loop.time())
        try:
            return await self.answer
        finally:
            if self.timer is not None:
                self.timer.cancel()

    def arm(self, now_s: float) -> None:
        if self.timer is None and self.until_s - now_s < 2 * WATCH_S:
            self.timer = self.answer.get_loop().call_at(self.until_s, self.time_out)

    def time_out(self) -> None:
        if not self.answer.done():
            waited, self.answer = self.answer, self.answer.get_loop().create_future()
            waited.set_result(None)

    def refuse(self, error: AegisError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # known, also when whoever asked is not waiting yet

    def close(self) -> None:
        """The client closes: no answer will be heard any more."""
        self.refuse(left_open(self.request) if self.is_sent else Draining(CLOSED))


class StoredWay:
    """Way (way.py)."""

    def __init__(
        self, *, log_: RequestLog, journal: Journal, replies: Replies, directory: Directory
    ) -> None:
        self._log = log_
        self._journal = journal
        self._replies = replies
        self._directory = directory
        self._children = Children(journal)
        self._open: set[_Open] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False
        self._is_gone = False
        """Closed, and no longer draining: whoever still tries is told so at once."""

    # --- attaching --------------------------------------------------------------------------------
    async def find(self, request_id: str, method: Method[Any, Any], *, timeout_s: float) -> Outcome:
        request = Request(request_id, method.service, method.name, None, b"")
        entry = self._begin(request, method)
        try:
            entry.accepted = Accepted(0, duplicate=True)  # never send: this is not our request
            entry.is_sent = True
            await self._expect(entry)
            try:
                outcome = await self._journal.outcome(request, anywhere=True)
            except StoreForbidden as error:
                raise RefusedByNats(f"{request_id} can't be looked up: {error}") from error
            except StoreError:
                outcome = None  # the watcher asks again
            if outcome is None:
                outcome = await entry.wait(timeout_s)
        finally:
            self._end(entry)
        if outcome is None:
            outcome = await self._late_outcome(request, timeout_s)
        return outcome

    async def _late_outcome(self, request: Request, waited_s: float) -> Outcome:
        """Say why there is none after so long. Raises: OutcomeUnknown."""
        request_id = request.request_id
        try:
            accepted = await self._log.holds(request.service, request_id, timeout_s=RESOLVE_S)
            outcome = await self._journal.outcome(request, anywhere=True)
            why = ""
        except StoreError as error:
            accepted, outcome, why = True, None, f" ({error})"  # as far as can be told now
        if outcome is not None:
            return outcome
        if not accepted:
            raise never_accepted(request.service, request_id)
        raise open_still(request_id, waited_s, why)

    # --- children ---------------------------------------------------------------------------------
    async def children(self, service: str, parent_token: str) -> list[str]:
        return await self._journal.children(service, parent_token)

    async def outcome(self, request: Request, *, anywhere: bool = False) -> Outcome | None:
        return await self._journal.outcome(request, anywhere=anywhere)

    async def hand_in(
        self, request: Request, method: Method[Any, Any], *, parent: Request, calls: Calls
    ) -> None:
        if parent.attempt > 1 and await self._read_outcome(request) is None:
            await self._children.unless_changed(request, calls)
        calls.sent(request)
        timeout_s = HAND_IN_S
        if parent.deadline_s is not None:
            timeout_s = max(0.1, parent.deadline_s - time.time())
        await self.store(request, method, timeout_s=timeout_s)

    # --- life -------------------------------------------------------------------------------------
    def recheck_all(self) -> None:
        """After a reconnect: whatever was in flight may have been missed."""
        now = time.monotonic()
        for entry in self._open:
            entry.recheck_s = now

    async def close(self, *, drain_s: float) -> None:
        """Refuse new requests, wait up to `drain_s` for open ones, and end those left: each is told what is known."""
        self._closed = True
        answers = [entry.answer for entry in self._open]
        if answers and drain_s > 0:
            await asyncio.wait(answers, timeout=drain_s)
        self._is_gone = True
        for entry in self._open:
            entry.close()
        if self._watcher is not None:
            self._watcher.cancel()

    # --- one request ------------------------------------------------------------------------------
    async def store(self, request: Request, method: Method[Any, Any], *, timeout_s: float) -> None:
        await self._check(request)
        if request.fingerprint and (known := await self._read_outcome(request)) is not None:
            await self._same_key(request, method, known)
        accepted = await stored(
            self._log, request, timeout_s=timeout_s, is_gone=lambda: self._is_gone
        )
        await self._check_key(request, method, accepted)

    async def settle(
        self,
        request: Request,
        method: Method[Any, Any],
        *,
        again: bool,
        before: BeforeSending | None = None,
    ) -> Outcome:
        assert request.deadline_s is not None
        # From here on by the monotonic clock: the other one may be set back by an hour.
        ends_s = time.monotonic() + request.deadline_s - time.time()
        if not again:
            await self._check(request)
        entry = self._begin(request, method)
        entry.is_held = again
        try:
            await self._expect(entry)
            if again:
                if (known := await self._read_outcome(request)) is not None:
                    return await self._same_key(request, method, known)
                await self._check(request)
            if before is not None:
                await before(request)
            entry.is_held = False
            if self._closed:
                raise Draining(CLOSED)
            entry.is_sent = True
            with contextlib.suppress(StoreUnreachable):  # sent again by the watcher
                self._log.post(request)
            outcome = await entry.wait(ends_s - time.monotonic())
            if outcome is None:
                outcome = await self._end_doubt(entry)
                if entry.refused is not None and outcome.kind is OutcomeKind.CANCELLED:
                    raise entry.refused
            if request.fingerprint:
                await self._same_key(request, method, outcome)
            return outcome
        finally:
            self._end(entry)

    async def _end_doubt(self, entry: _Open) -> Outcome:
        """The deadline passed: make `cancelled` the outcome, or return the one that was first (G4)."""
        request = entry.request
        cancelled = cancelled_at_deadline(request)
        log.info("deadline_passed", **about(request))
        give_up_s = time.monotonic() + RESOLVE_S
        for n in itertools.count(1):
            if entry.answer.done() and (late := entry.answer.result()) is not None:
                return late
            if lost := self._directory.lost(request.service):
                raise OutcomeUnknown(
                    f"{lost}: whether {request.request_id} took effect is known when that is accepted",
                    request.request_id,
                )
            try:
                await self._journal.commit(request, cancelled, fence_seq=None)
                return cancelled
            except AlreadyStored:
                if (known := await self._read_outcome(request)) is not None:
                    return known
            except StoreError as error:
                if self._is_gone:
                    raise left_open(request) from error
                if time.monotonic() >= give_up_s or isinstance(error, StoreForbidden):
                    why = "" if entry.refused is None else f"{entry.refused}; "
                    raise OutcomeUnknown(
                        f"NATS could not be reached to end {request.request_id} ({why}{error}):"
                        " attach to it later",
                        request.request_id,
                    ) from error
            await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.25))
        raise AssertionError("unreachable")

    async def _check(self, request: Request) -> None:
        await check_route(self._directory, request, is_gone=lambda: self._is_gone)

    async def _check_key(
        self, request: Request, method: Method[Any, Any], accepted: Accepted
    ) -> None:
        """An idempotency key that the stream saw before must belong to the same request."""
        if not (request.fingerprint and accepted.duplicate):
            return
        try:
            known = await self._log.read(request.service, accepted.seq)
        except StoreError:
            return  # the outcome carries the fingerprint too
        if known is not None and not is_same(request, method, known):
            raise key_reused(request)

    async def _same_key(
        self, request: Request, method: Method[Any, Any], outcome: Outcome
    ) -> Outcome:
        """The outcome, if it is this request's."""
        if not request.fingerprint or outcome.fingerprint in ("", request.fingerprint):
            return outcome
        if not outcome.request_seq:
            raise key_reused(request)
        try:
            known = await self._log.read(request.service, outcome.request_seq)
        except StoreError as error:
            raise OutcomeUnknown(
                f"{request.request_id} has an outcome, but the request that it belongs to could not be"
                f" looked up: {error}",
                request.request_id,
            ) from error
        if known is None or not is_same(request, method, known):
            raise key_reused(request)
        return outcome

    async def _read_outcome(self, request: Request) -> Outcome | None:
        try:
            anywhere = not request.payload or is_keyed(request.request_id)
            return await self._journal.outcome(request, anywhere=anywhere)
        except StoreError:
            return None  # the watcher asks again

    # --- open requests ------------------------------------------------------------------------------
    def _begin(self, request: Request, method: Method[Any, Any]) -> _Open:
        if self._is_gone:
            raise Draining(CLOSED)
        answer: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        entry = _Open(request, method, answer, time.monotonic() + RECHECK_S)
        self._open.add(entry)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch())
        return entry

    async def _expect(self, entry: _Open) -> None:
        try:
            await self._replies.expect(entry.request.request_id, entry.deliver)
        except StoreError as error:
            raise Unavailable(f"no answer could be heard: {error}") from error

    def _end(self, entry: _Open) -> None:
        self._open.discard(entry)
        self._replies.forget(entry.request.request_id, entry.deliver)
        entry.answer.cancel()

    async def _watch(self) -> None:
        """Keep the deadlines of what is open, and look after it. Ends when nothing is open."""
        rechecking: asyncio.Task[None] | None = None
        while self._open:
            await asyncio.sleep(WATCH_S)
            for entry in self._open:
                entry.arm(asyncio.get_running_loop().time())
            if (
                rechecking is None or rechecking.done()
            ):  # a slow store must not hold the deadlines up
                rechecking = asyncio.create_task(self._recheck_due())

    async def _recheck_due(self) -> None:
        """Send again what was not accepted, read what was not delivered."""
        now = time.monotonic()
        due = [e for e in self._open if e.recheck_s <= now and not e.is_held]
        for first in range(0, len(due), RECHECKS_AT_ONCE_MAX):
            batch = due[first : first + RECHECKS_AT_ONCE_MAX]
            await asyncio.gather(*(self._recheck(entry) for entry in batch))

    async def _recheck(self, entry: _Open) -> None:
        entry.sent_again += 1
        entry.recheck_s = time.monotonic() + backoff_s(
            entry.sent_again + 1, first_s=RECHECK_S, max_s=RECHECK_S_MAX
        )
        try:
            if self._began_again(entry):
                await self._look_for(entry)
            elif entry.accepted is None:
                again = replace(entry.request, attempt=entry.sent_again + 1)
                entry.accepted = await self._log.append(again, timeout_s=1.0)
                await self._check_key(entry.request, entry.method, entry.accepted)
            elif (outcome := await self._read_outcome(entry.request)) is not None:
                entry.deliver(outcome)
        except StoreFull as error:
            # The first try may be stored nevertheless: cancelling ends that doubt.
            entry.refused = Overloaded(f"{entry.request.service}: {error}")
            entry.time_out()
        except StoreForbidden as error:
            entry.refused = RefusedByNats(f"{entry.request.service}: {error}")
            entry.time_out()
        except KeyReused as error:
            entry.refuse(error)
        except StoreError:
            return  # not reachable now: the next round tries again
        except Exception as error:  # of one answer: the others are looked after
            log.error("recheck_failed", **about(entry.request), exc_info=error)

    def _began_again(self, entry: _Open) -> bool:
        """Whether its service's requests are in another log than it was accepted in."""
        service = entry.request.service
        log_id = self._directory.requests_log(service)
        entry.log = entry.log or log_id
        return log_id != entry.log and not self._directory.lost(service)

    async def _look_for(self, entry: _Open) -> None:
        """Send what is our own again; of another's, say that it is gone. Raises: StoreError."""
        request, log_id = entry.request, self._directory.requests_log(entry.request.service)
        if request.payload:
            entry.accepted = None
        elif not await self._log.holds(request.service, request.request_id, timeout_s=RESOLVE_S):
            outcome = await self._journal.outcome(request, anywhere=True)
            if outcome is None:
                entry.refuse(never_accepted(request.service, request.request_id))
            else:
                entry.deliver(outcome)
        entry.log = log_id
