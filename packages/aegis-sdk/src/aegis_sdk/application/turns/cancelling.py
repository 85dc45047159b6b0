"""Ends a request that this client has not open, on purpose, and says how it ended (G4).

Theory of operation. A request that can still take effect is in one of three places: in its service's stream, in the hands of an
owner it was sent to, or in its outcome. So the stream is searched first, and then the log; a request that ends in between is
found there. One that the stream has is ended as at its caller's deadline: its owner is asked politely, then the end
is stored, by `LastWord`. One that was only sent is in no stream. It can be ended where it is known what it asks, and of which
resource: its end goes to that resource's log.

What must stay true: nobody is told `cancelled` before the end is stored and the log is read up to it, or the owner has stored the outcome.
An id that only streams can hold (a ticket's, a key's, a handler's) and that none holds was never accepted. For any other id that
would be a guess, so it isn't said.

All steps can be repeated. What fails, since NATS is away or a stream changes its leader, is tried again until the time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from aegis_sdk.application.outcomes import given_up, never_accepted
from aegis_sdk.application.ports import (
    Directory,
    RequestLog,
    StoreError,
    StoreForbidden,
    StoreMissing,
)
from aegis_sdk.application.turns.open_calls import OpenCalls
from aegis_sdk.application.turns.ports import CallsOut, LastWord, Outcomes
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.ids import KEY_PREFIX, is_keyed, waiting_id
from aegis_sdk.contract.method import Method
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.domain.turns.doubt import POLITE_S
from aegis_sdk.domain.turns.sessions import is_single
from aegis_sdk.errors import (
    AegisError,
    NoRoute,
    OutcomeUnknown,
    RefusedByNats,
    UnknownService,
)

SEARCH_S: Final = 2.0
"""At least so long a stream is read, however little time is left."""
LOOK_BACK_S: Final = 2.0
"""More than the log was read up to, so that what was stored meanwhile is read in any case."""


async def waiting(outcomes: Outcomes, request: Request) -> Request | Outcome | None:
    """The request of that id, if it was made a timer until its time; or that it was refused. Raises: StoreError."""
    if not is_single(request.request_id):
        return None
    asked = Request(waiting_id(request.request_id), request.service, "", None, b"")
    record = await outcomes.named(asked, anywhere=True)
    if record is None or record.outcome.kind is not OutcomeKind.EXECUTED:
        return None if record is None else record.outcome
    return replace(request, method=record.method, resource=record.resource)


class Cancelling:
    def __init__(
        self,
        open_calls: OpenCalls,
        *,
        calls: CallsOut,
        requests: RequestLog,
        last_word: LastWord,
        outcomes: Outcomes,
        directory: Directory,
    ) -> None:
        self._open = open_calls
        self._calls = calls
        self._requests = requests
        self._last_word = last_word
        self._outcomes = outcomes
        self._directory = directory
        self._loop = asyncio.get_running_loop()

    async def end(
        self,
        request_id: str,
        method: Method[Any, Any] | None,
        resource: str | None,
        *,
        timeout_s: float,
    ) -> Outcome:
        """Raises: OutcomeUnknown, NeverAccepted, RefusedByNats, ContractError, UnknownService, Draining."""
        ends_s = self._loop.time() + timeout_s
        for n in itertools.count(1):
            try:
                return await self._end(request_id, method, resource, ends_s)
            except StoreForbidden as error:
                raise RefusedByNats(f"{request_id} can't be cancelled: {error}") from error
            except StoreError as error:
                wait_s = backoff_s(n, first_s=0.02, max_s=0.5)
                if self._loop.time() + wait_s >= ends_s:
                    raise OutcomeUnknown(
                        f"{request_id} could not be cancelled: {error}; cancel it again", request_id
                    ) from error
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    async def _end(
        self, request_id: str, method: Method[Any, Any] | None, resource: str | None, ends_s: float
    ) -> Outcome:
        """By one try. Raises: StoreError, too."""
        began_s = self._loop.time()
        refusal = None if method is None else await self._refusal(method, resource)
        services = await self._services(request_id, method)
        for service in services:
            with contextlib.suppress(StoreMissing):  # it has no streams yet, or no more
                found = await self._found(service, request_id, max(SEARCH_S, ends_s - began_s))
                if isinstance(found, Outcome):
                    return found
                if found is not None:
                    return await self._settle(found, began_s)
        if is_single(request_id):
            raise never_accepted(", ".join(services) or "any service", request_id)
        if method is None:
            raise OutcomeUnknown(
                f"{request_id} is in no stream and has no outcome. It may have been sent only, and take effect until its"
                " deadline: name its method and resource to end it",
                request_id,
            )
        if refusal is not None:
            raise refusal
        sent = Request(request_id, method.service, method.name, resource, b"")
        return await self._settle(sent, began_s)

    async def _refusal(self, method: Method[Any, Any], resource: str | None) -> AegisError | None:
        """Why nothing can be sent there. That nobody serves it now is no reason: whoever had it may be gone.

        Raises: UnknownService, StoreError.
        """
        try:
            await self._directory.check(method.service, method.name, resource)
        except UnknownService:
            raise
        except NoRoute:
            return None
        except AegisError as error:
            return error
        return None

    async def _services(self, request_id: str, method: Method[Any, Any] | None) -> Sequence[str]:
        if method is not None:
            return [method.service]
        services = await self._requests.services()
        if is_keyed(request_id):
            return [each for each in services if request_id.startswith(f"{KEY_PREFIX}{each}.")]
        return services

    async def _found(
        self, service: str, request_id: str, timeout_s: float
    ) -> Request | Outcome | None:
        """The stream first: what leaves it in between has its outcome, or waits for its time. Raises: StoreError."""
        kept = await self._requests.find(service, request_id, timeout_s=timeout_s)
        wanted = Request(request_id, service, "", None, b"")
        outcome = await self._outcomes.anywhere(wanted, timeout_s=timeout_s)
        waits = None if outcome else await waiting(self._outcomes, wanted)
        return outcome or (waits if isinstance(waits, Outcome) else kept or waits)

    async def _settle(self, request: Request, began_s: float) -> Outcome:
        """Raises: StoreError, OutcomeUnknown, Draining."""
        if lost := self._directory.lost(request.service):
            raise OutcomeUnknown(
                f"{lost}: it can be cancelled when that is accepted", request.request_id
            )
        if (outcome := await self._asked_politely(request)) is not None:
            return outcome
        found = await self._last_word.settle(
            request.service,
            [request],
            open_s=self._loop.time() - began_s + LOOK_BACK_S,
            stored=True,
        )
        return found.get(request.request_id) or given_up(request)

    async def _asked_politely(self, request: Request) -> Outcome | None:
        """Of its owner, which answers when it has stored how it ended. The group has none. Raises: StoreError, Draining."""
        if request.resource is None:
            return None
        waiting = self._open.listen(request)
        try:
            await self._calls.expect(request.request_id)
            self._calls.cancel(request, member="")
            await asyncio.wait({waiting.answer}, timeout=POLITE_S)
            return waiting.answer.result() if waiting.answer.done() else None
        finally:
            self._open.leave(waiting)
            self._calls.forget(request.request_id)
