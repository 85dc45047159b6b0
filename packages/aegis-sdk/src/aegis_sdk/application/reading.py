"""What a caller reads: one answer, of the resource's active or of a standby, within its time. Nothing is stored.

A read changes nothing, so it is simply asked again: when nobody is there (a failover), when no answer comes (its
instance died, or sleeps), when whoever had it could not tell in time. Each try waits twice as long as the one
before.

A client knows the newest position of each service whose replies it has had, of calls and of reads. A read names it,
unless another is given. So what a client has once seen it sees again, whichever instance it asks.

What each failure of a try means:

| the try ended with | what follows |
| --- | --- |
| nobody is subscribed | again; of a standby, `NoRoute` after NOBODY_S |
| no answer in time | again: its instance died, or could not prove in time that it is active |
| behind, unsure | again; the caller is told the last such word |
| another log | again without a position; a position that the caller gave is refused (`ContractError`) |
| NATS refuses it, or it is too large | raised: no try would end otherwise |

No error of a read says anything about requests, and a crash leaves nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, Protocol, TypeVar

from aegis_sdk.application.composing import Composer
from aegis_sdk.application.outcomes import result_of
from aegis_sdk.application.ports import (
    Directory,
    StoreError,
    StoreForbidden,
    StoreMissing,
    StoreTooLarge,
    StoreUnreachable,
)
from aegis_sdk.application.tracing import Tracer
from aegis_sdk.application.turns.positions import Positions
from aegis_sdk.contract import arguments
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.metrics import Answer
from aegis_sdk.contract.turns.reads import Answered, Refusal, Wanted, read_position
from aegis_sdk.domain.recorder import Recorder
from aegis_sdk.errors import (
    AegisError,
    ContractError,
    Expired,
    InvalidArgument,
    NoRoute,
    PayloadTooLarge,
    RefusedByNats,
    TooFarBehind,
    Unavailable,
)
from aegis_sdk.words import said

Rep = TypeVar("Rep")
Req = TypeVar("Req")

FIRST_TRY_S: Final = 0.1
"""Room for a proof, which is one store, also on three nodes."""
TRY_S_MAX: Final = 2.0
"""Each try is twice as long as the one before, up to this."""
PAUSE_S: Final = 0.02
"""Between two tries: where nobody is subscribed, the server says so in no time."""
WAIT_SHARE: Final = 0.8
"""Of a try: whoever has the read may wait so long, and says then why it can't answer."""
NOBODY_S: Final = 0.5
"""Without a standby so long, there is none: a failover takes one from them, and another may follow."""
_PLACES: Final = ("active", "standby")
"""What `at` may be."""


class ReadsOut(Protocol):
    """A caller's reads on their way out."""

    async def ask(
        self, request: Request, wanted: Wanted, *, at_standby: bool, timeout_s: float
    ) -> Answered:
        """Raises: StoreMissing: nobody is there; StoreForbidden, StoreTooLarge; StoreUnreachable: no answer came."""


class Reading:
    """The reads of one client. `positions` is shared with its calls: what a call showed, a read shows again."""

    def __init__(
        self,
        port: ReadsOut,
        composer: Composer,
        directory: Directory,
        positions: Positions,
        *,
        recorder: Recorder,
        tracer: Tracer,
    ) -> None:
        self._port = port
        self._composer = composer
        self._directory = directory
        self._positions = positions
        self._recorder = recorder
        self._tracer = tracer

    def position(self, method: Any) -> str:
        arguments.instance_of(method, Method, "method")
        return self._positions.newest(method.service)

    async def read(
        self,
        method: Method[Req, Rep],
        query: Req,
        *,
        resource: Any,
        at: Any,
        at_least: Any,
        lag_s_max: Any,
        timeout_s: Any,
        traceparent: str = "",
    ) -> Rep:
        resource = arguments.text(resource, "resource")
        at_standby = _is_standby(at)
        least = _position(at_least)
        lag_s_max = arguments.optional_duration_s(lag_s_max, "lag_s_max")
        timeout_s = arguments.duration_s(timeout_s, "timeout_s")
        request = self._composer.read(
            method,
            query,
            resource=resource,
            deadline_s=time.time() + timeout_s,
            traceparent=traceparent,
        )
        one = _Read(request, at_standby, least, lag_s_max, timeout_s)
        outcome = await self._outcome_of(one, traceparent)
        return result_of(outcome, method, request.request_id)

    async def _outcome_of(self, one: _Read, parent: str) -> Outcome:
        request, begun_s = one.request, time.perf_counter()
        try:
            with self._tracer.sending(request, parent=parent) as span:
                await self._check(request, one.ends_s)
                outcome = await self._answer_to(one)
                span.stored(outcome)
        except AegisError:
            self._recorder.unanswered(request, Answer.REFUSED, time.perf_counter() - begun_s)
            raise
        self._recorder.answered(request, outcome, time.perf_counter() - begun_s)
        return outcome

    async def _check(self, request: Request, ends_s: float) -> None:
        """Return when there is such a reader, as far as the registry says; no round trip once that is known.
        Raises: AegisError.
        """
        service, method, resource = request.service, request.method, request.resource
        if self._directory.admits(service, method, resource, is_read=True):
            return
        try:
            async with asyncio.timeout_at(ends_s):
                await self._directory.check(service, method, resource, is_read=True)
        except TimeoutError:
            raise Unavailable(f"who serves {service} could not be read in time") from None
        except StoreForbidden as error:
            raise RefusedByNats(str(error)) from error
        except StoreError as error:
            raise Unavailable(f"who serves {service} could not be read: {error}") from error

    async def _answer_to(self, one: _Read) -> Outcome:
        """Tries until there is an answer, or its time is over. Raises: why the last try had none."""
        loop, try_s = asyncio.get_running_loop(), FIRST_TRY_S
        while (left_s := one.ends_s - loop.time()) > 0:
            outcome = await self._try(one, min(try_s, left_s))
            if outcome is not None:
                return outcome
            if self._composer.is_closed:
                break
            await asyncio.sleep(PAUSE_S)
            try_s = min(2 * try_s, TRY_S_MAX)
        raise one.why()

    async def _try(self, one: _Read, try_s: float) -> Outcome | None:
        """The answer, or None: it may be asked again. Raises: AegisError: there is no use in that."""
        service = one.request.service
        seen = "" if one.least else self._positions.newest(service)
        wanted = Wanted(WAIT_SHARE * try_s, one.least or seen, one.lag_s_max)
        try:
            answered = await self._port.ask(
                one.request, wanted, at_standby=one.at_standby, timeout_s=try_s
            )
        except StoreMissing:
            one.found_nobody(asyncio.get_running_loop().time())
            return None
        except StoreForbidden as error:
            raise RefusedByNats(str(error)) from error
        except StoreTooLarge as error:
            raise PayloadTooLarge(str(error)) from error
        except StoreUnreachable as error:
            one.found_nothing(error)
            return None
        if answered.outcome is not None:
            self._positions.saw(service, answered.position)
        elif answered.refusal is Refusal.OTHER_LOG:
            if one.least:
                raise ContractError(
                    f"at_least: {answered.said}; the service's log was begun anew since"
                )
            self._positions.forget(service)
        else:
            one.was_refused(answered)
        return answered.outcome


class _Read:
    """One read, and why it has no answer so far. Times are the loop's."""

    def __init__(
        self,
        request: Request,
        at_standby: bool,
        least: str,
        lag_s_max: float | None,
        timeout_s: float,
    ) -> None:
        self.request = request
        self.at_standby = at_standby
        self.least = least
        self.lag_s_max = lag_s_max
        self.timeout_s = timeout_s
        self.ends_s = asyncio.get_running_loop().time() + timeout_s
        self._since_nobody_s: float | None = None
        self._why: AegisError | None = None

    def found_nobody(self, now_s: float) -> None:
        """Raises: NoRoute, when that is no failover any more."""
        request, who = self.request, "standby" if self.at_standby else "active"
        error = NoRoute(
            f"no {who} of {request.resource!r} of service {request.service!r} answers reads"
        )
        self._since_nobody_s = now_s if self._since_nobody_s is None else self._since_nobody_s
        if self.at_standby and now_s - self._since_nobody_s >= NOBODY_S:
            raise error
        self._why = error

    def found_nothing(self, error: StoreUnreachable) -> None:
        """No answer came. That a standby was behind says more than this, and stays."""
        self._since_nobody_s = None
        if not isinstance(self._why, TooFarBehind):
            self._why = Expired(f"{self._name}: no answer within {self.timeout_s:g} s ({error})")

    def was_refused(self, answered: Answered) -> None:
        """Somebody is there and can't tell."""
        self._since_nobody_s = None
        if answered.refusal is Refusal.BEHIND:
            self._why = TooFarBehind(f"{self._name}: {answered.said}")
        else:
            self._why = Expired(f"{self._name}: {answered.said}")

    def why(self) -> AegisError:
        """What its caller is told when the time is over."""
        return self._why or Expired(f"{self._name}: no answer within {self.timeout_s:g} s")

    @property
    def _name(self) -> str:
        return f"{self.request.service}.{self.request.method} of {self.request.resource!r}"


def _is_standby(at: object) -> bool:
    """Raises: InvalidArgument."""
    if at not in _PLACES:
        raise InvalidArgument(
            f"at must be one of {', '.join(_PLACES)}, and is {said(at, chars_max=40)!r}"
        )
    return at == "standby"


def _position(given: object) -> str:
    """Raises: InvalidArgument."""
    if given is None or given == "":
        return ""
    text = arguments.text(given, "at_least", error=InvalidArgument)
    try:
        read_position(text)
    except ValueError as error:
        raise InvalidArgument(f"at_least must be what position() returned: {error}") from None
    return text
