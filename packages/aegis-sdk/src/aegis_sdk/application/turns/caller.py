"""A call's way: the request is sent, and stored in doubt (G1, G4, G8).

What is open is looked after by open_calls.py. This module knows what differs from a plain request. One with a key
may have an outcome already, from whomever, and is stored before it is sent: the stream tells the first of several
apart. A handler's own request may have one from an earlier run. What a handler hands in becomes part of its
outcome. Whoever attaches has made no request at all: it listens, and looks into the log.

Theory of operation. Four ways lead to an outcome, and each costs what it must:

- `settle`, of a client's own request: no lookup. Its id is new, so nobody can have made it before. A call that goes
  well is one message each way.
- `settle` with a name (a key, a child): listen under that id, then one read of the log where it may have an outcome
  already, then as above. It listens first, so an outcome that is stored between the read and the sending is heard.
- `store`, for a ticket: returns when the request is in the stream, and waits for no outcome.
- `find`, to attach: listen, then one reading of all headers, then one read of the outcome's own subject now and
  then. Each answer that is missed stands in the log. Before it says that there is none, it looks into the stream
  and the log once more, in this order: what leaves the stream in between has its outcome.

A deadline comes as Unix time and is counted by the loop's clock from there on: a wall clock that is set back would
keep a caller waiting. Nothing is kept here between two calls, so a crash leaves what open_calls.py says.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from aegis_sdk.application.calls import Calls
from aegis_sdk.application.composing import CLOSED
from aegis_sdk.application.keys import is_same, key_reused
from aegis_sdk.application.outcomes import never_accepted, open_still
from aegis_sdk.application.ports import (
    Accepted,
    Directory,
    RequestLog,
    StoreError,
    StoreForbidden,
)
from aegis_sdk.application.storing import stored
from aegis_sdk.application.turns.cancelling import Cancelling, waiting
from aegis_sdk.application.turns.open_calls import OpenCalls, Waiting
from aegis_sdk.application.turns.ports import CallsOut, LastWord, Outcomes
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.ids import is_keyed
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.turns.entries import Record
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.domain.recorder import NO_RECORDER, Recorder
from aegis_sdk.domain.turns.doubt import Because
from aegis_sdk.errors import (
    Draining,
    LogLost,
    NoRoute,
    OutcomeUnknown,
    RefusedByNats,
    Unavailable,
    UnknownService,
)

Found = TypeVar("Found")
BeforeSending = Callable[[Request], Awaitable[None]]
"""Is awaited before a handler's request may take effect. What it raises is raised to the handler, and nothing was
sent.
"""

RESOLVE_S: Final = 3.0
"""How long past its deadline a caller tries to end the doubt before it says OutcomeUnknown."""

LOOK_S: Final = 0.25
"""Who attached looks into the log so often, at first; the answer itself may have been missed."""
LOOK_S_MAX: Final = 2.0
"""Each look waits twice as long as the one before, up to this."""


class Caller:
    """Of one client, from its connection to `close`. Its requests are in `open`; it keeps nothing else."""

    def __init__(
        self,
        *,
        calls: CallsOut,
        requests: RequestLog,
        last_word: LastWord,
        outcomes: Outcomes,
        directory: Directory,
        recorder: Recorder = NO_RECORDER,
        resolve_s: float = RESOLVE_S,
    ) -> None:
        self._calls = calls
        self._requests = requests
        self._outcomes = outcomes
        self.directory = directory
        self._resolve_s = resolve_s
        self.open = OpenCalls(
            calls=calls,
            requests=requests,
            last_word=last_word,
            directory=directory,
            recorder=recorder,
            resolve_s=resolve_s,
        )

        self._cancelling = Cancelling(
            self.open,
            calls=calls,
            requests=requests,
            last_word=last_word,
            outcomes=outcomes,
            directory=directory,
        )

    @property
    def stored(self) -> int:
        """Requests that were stored, most of them in doubt."""
        return self.open.stored

    async def settle(
        self,
        request: Request,
        method: Method[Any, Any],
        *,
        again: bool,
        before: BeforeSending | None = None,
    ) -> Outcome:
        """Its one outcome, at its deadline or soon after.

        `again`: this id may have an outcome already. `before` is awaited before the request is sent, if it has none.

        Raises: NotExecuted, ContractError, Unavailable: certainly without effect; OutcomeUnknown; what `before` does.
        """
        assert request.deadline_s is not None
        # From here on by the loop's clock: the other one may be set back by an hour.
        ends_s = asyncio.get_running_loop().time() + request.deadline_s - time.time()
        if not again:
            await self._check(request)
        if again or before is not None:
            return await self._settle_named(request, method, ends_s, again=again, before=before)
        return await self.open.outcome_of(
            request, ends_s=ends_s, stored_as=_stored_as(request, method)
        )

    async def _settle_named(
        self,
        request: Request,
        method: Method[Any, Any],
        ends_s: float,
        *,
        again: bool,
        before: BeforeSending | None,
    ) -> Outcome:
        """One with a key, or of a handler: its answer comes under an id that is not this client's, so it listens
        for that id meanwhile.

        Raises: KeyReused, and what `settle` does.
        """
        await self._expect(request.request_id)
        try:
            if again:
                if (known := await self._known(request)) is not None:
                    return await self._same_key(request, method, known)
                await self._check(request)
            if before is not None:
                await before(request)
            outcome = await self.open.outcome_of(
                request,
                ends_s=ends_s,
                stored_as=_stored_as(request, method),
                check_key=(
                    partial(self._check_key, request, method) if request.fingerprint else None
                ),
            )
            return await self._same_key(request, method, outcome)
        finally:
            self._calls.forget(request.request_id)

    async def store(self, request: Request, method: Method[Any, Any], *, timeout_s: float) -> None:
        """Return when it is stored. Raises: as `settle`; OutcomeUnknown, when nobody says so within `timeout_s`: it
        may be stored, and its id can be attached to.

        A caller that is cancelled meanwhile has no ticket, so the request is ended.
        """
        await self._check(request)
        if request.fingerprint and (known := await self._known(request)) is not None:
            await self._same_key(request, method, known)
        try:
            accepted = await stored(
                self._requests, request, timeout_s=timeout_s, is_gone=lambda: self.open.is_gone
            )
        except asyncio.CancelledError:  # it may be stored by now, and nobody has its ticket
            self.open.end(request)
            raise
        if request.fingerprint and accepted.duplicate:
            await self._check_key(request, method, accepted)
        self.open.is_stored(request, accepted.seq)

    async def hand_in(
        self, request: Request, method: Method[Any, Any], *, parent: Request, calls: Calls
    ) -> None:
        """It becomes part of the outcome. An earlier run of the handler has no outcome, so it has handed in nothing.

        For a service that nobody has registered yet it waits.
        """
        with contextlib.suppress(NoRoute, LogLost, UnknownService, Unavailable):
            await self._check(request)
        calls.hand_in(request)

    def restored(self) -> None:
        """There is a new connection."""
        self.open.restored()

    async def close(self, *, drain_s: float) -> None:
        """Take nothing new, wait up to `drain_s` for what is open, and end what is left: each is told what is known."""
        await self.open.close(drain_s=drain_s)

    async def _check(self, request: Request) -> None:
        """Return when it can be sent. Raises: what `Directory.check` does, RefusedByNats, Unavailable, Draining."""
        service, method, resource = request.service, request.method, request.resource
        if self.directory.admits(service, method, resource):
            return
        try:
            await self.directory.check(service, method, resource)
        except StoreForbidden as error:
            raise RefusedByNats(f"the registry could not be read: {error}") from error
        except StoreError as error:
            if self.open.is_gone:
                raise Draining(CLOSED) from error
            raise Unavailable(f"the registry could not be read: {error}") from error

    async def _expect(self, request_id: str) -> None:
        """Hear answers under this id. Raises: Unavailable: nothing was sent."""
        try:
            await self._calls.expect(request_id)
        except StoreError as error:
            raise Unavailable(f"no answer could be heard: {error}") from error

    # --- attaching --------------------------------------------------------------------------------------------
    async def find(self, request_id: str, method: Method[Any, Any], *, timeout_s: float) -> Outcome:
        """The outcome of a request that anybody made, within `timeout_s` or soon after: the last look may take
        `resolve_s` for each stream. What nobody has accepted is told only then, for it may be on its way.

        Raises: OutcomeUnknown, NeverAccepted, RefusedByNats, Draining.
        """
        request = Request(request_id, method.service, method.name, None, b"")
        waiting = self.open.listen(request)
        try:
            await self._expect(request_id)
            waiting.log = self.directory.requests_log(request.service)
            looking = self._outcomes.anywhere(request, timeout_s=max(timeout_s, LOOK_S))
            try:
                outcome = await _unless_told(waiting, looking)
            except StoreForbidden as error:
                raise RefusedByNats(f"{request_id} can't be looked up: {error}") from error
            except StoreError:
                outcome = None  # looked for again
            if outcome is None:
                outcome = await self._heard(waiting, timeout_s)
            if outcome is None:
                outcome = await _unless_told(waiting, self._late(request, timeout_s))
        finally:
            self.open.leave(waiting)
            self._calls.forget(request_id)
        return outcome

    async def _heard(self, waiting: Waiting, timeout_s: float) -> Outcome | None:
        """What is answered, to whomever, or found in the log."""
        loop, request = asyncio.get_running_loop(), waiting.request
        ends_s = loop.time() + timeout_s
        for n in itertools.count(1):
            left_s = ends_s - loop.time()
            wait_s = min(left_s, backoff_s(n, first_s=LOOK_S, max_s=LOOK_S_MAX))
            await asyncio.wait({waiting.answer}, timeout=max(0.0, wait_s))
            if waiting.answer.done():
                return waiting.answer.result()
            if left_s <= 0:
                return None
            if self._began_again(waiting):
                return await _unless_told(waiting, self._late(request, timeout_s))
            if (known := await self._known(request)) is not None:
                return known.outcome
        raise AssertionError("unreachable")

    def _began_again(self, waiting: Waiting) -> bool:
        """Whether its service's requests are in another log than before."""
        service = waiting.request.service
        log_id = self.directory.requests_log(service)
        waiting.log = waiting.log or log_id
        return log_id != waiting.log and not self.directory.lost(service)

    async def _late(self, request: Request, waited_s: float) -> Outcome:
        """Say why there is none after so long. Raises: OutcomeUnknown."""
        service, request_id = request.service, request.request_id
        waits: Request | Outcome | None = None
        try:
            kept = await self._requests.find(service, request_id, timeout_s=self._resolve_s)
            outcome = await self._outcomes.anywhere(request, timeout_s=self._resolve_s)
            if outcome is None:
                waits = await waiting(self._outcomes, request)
        except StoreError as error:
            raise open_still(request_id, waited_s, f" ({error})") from error
        if isinstance(waits, Outcome):
            return waits
        if outcome is not None:
            return outcome
        if kept is None and waits is None:
            raise never_accepted(service, request_id)
        raise open_still(request_id, waited_s, " (it waits for its time)" if waits else "")

    # --- cancelling -------------------------------------------------------------------------------------------
    async def cancel(
        self,
        request_id: str,
        method: Method[Any, Any] | None,
        resource: str | None,
        *,
        timeout_s: float,
    ) -> Outcome:
        """End it, whoever made it, unless it has ended; how it did. One that is open in this client ends as at its
        deadline, and takes as long as that does: `timeout_s` bounds only what has to be searched for.

        Raises: OutcomeUnknown, NeverAccepted, RefusedByNats, Draining.
        """
        if self.open.is_gone:
            raise Draining(CLOSED)
        if (waiting := self.open.end_now(request_id)) is not None:
            return await waiting.told()
        return await self._cancelling.end(request_id, method, resource, timeout_s=timeout_s)

    # --- what the log has -------------------------------------------------------------------------------------
    async def children(self, service: str, parent_token: str) -> list[str]:
        """Ids of the requests with an outcome that one handler made to `service`. Raises: StoreError."""
        return await self._outcomes.children(service, parent_token)

    async def outcome(self, request: Request, *, anywhere: bool = False) -> Outcome | None:
        """What stands under the request's own name, by one read; None: nothing does. Raises: StoreError."""
        found = await self._outcomes.named(request, anywhere=anywhere)
        return None if found is None else found.outcome

    async def _known(self, request: Request) -> Record | None:
        """The outcome that it has already, with its request, as far as can be told now. Without a resource to look
        at (a key's id, or whoever attaches), any resource's counts.
        """
        anywhere = not request.payload or is_keyed(request.request_id)
        try:
            return await self._outcomes.named(request, anywhere=anywhere)
        except StoreError:
            return None  # whoever serves it looks too

    async def _check_key(
        self, request: Request, method: Method[Any, Any], accepted: Accepted
    ) -> None:
        """The stream had this id before: is it the same request? Raises: KeyReused."""
        try:
            known = await self._requests.read(request.service, accepted.seq)
        except StoreError:
            return  # the outcome has the fingerprint too
        if known is not None and not is_same(request, method, known):
            raise key_reused(request)

    async def _same_key(
        self, request: Request, method: Method[Any, Any], found: Outcome | Record
    ) -> Outcome:
        """The outcome, if it is this request's. Two versions of a type give one request two fingerprints: then the
        request that stands beside the outcome is read as this version reads it. Raises: KeyReused, OutcomeUnknown.
        """
        outcome = found.outcome if isinstance(found, Record) else found
        if not request.fingerprint or outcome.fingerprint in ("", request.fingerprint):
            return outcome
        try:
            record = await self._outcomes.named(request, anywhere=True)
        except StoreError as error:
            raise OutcomeUnknown(
                f"{request.request_id} has an outcome, but the request that it belongs to could not be"
                f" looked up: {error}",
                request.request_id,
            ) from error
        if record is None or not is_same(request, method, _request_of(record, request.service)):
            raise key_reused(request)
        return outcome


async def _unless_told(waiting: Waiting, looking: Coroutine[Any, Any, Found]) -> Found | Outcome:
    """What `looking` finds, unless the answer comes first. Raises: what `looking` does, Draining, OutcomeUnknown."""
    task = asyncio.create_task(looking)
    try:
        first: set[asyncio.Future[Any]] = {task, waiting.answer}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        return waiting.answer.result() if waiting.answer.done() else task.result()
    finally:
        if not task.cancel() and not task.cancelled():
            task.exception()  # known, whoever was first


def _request_of(record: Record, service: str) -> Request:
    """As the log has it. A payload that was too large for the log is missing, and equals no other."""
    fingerprint = record.outcome.fingerprint
    return Request(
        *(record.request_id, service, record.method, record.resource, record.payload),
        fingerprint=fingerprint,
    )


def _stored_as(request: Request, method: Method[Any, Any]) -> Because | None:
    """Why it is stored before anybody has it; None: it is sent first."""
    if request.fingerprint:
        return Because.KEYED
    return Because.ALWAYS if method.stored else None
