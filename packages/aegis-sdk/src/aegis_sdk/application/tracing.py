"""The hops of a request's way, told to whoever records them: the log, and OpenTelemetry where it is installed.

A caller tells of sending, an instance of serving; neither knows who listens. Invariant: what listens never
changes how a request ends, and costs next to nothing when it does not listen.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self

from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.errors import AegisError
from aegis_sdk.telemetry import about, is_debugging, log


class Span:
    """One hop, entered when it begins; this one tells nobody. Whatever is raised in it leaves it unchanged."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return

    def stored(self, outcome: Outcome) -> None:
        """The request has this outcome."""

    def retried(self, error: BaseException, *, attempt: int) -> None:
        """The handler failed and will be run again, as its `attempt`-th."""


class Tracer(Protocol):
    """Makes the spans of one connection."""

    def sending(self, request: Request, *, parent: str = "") -> Span:
        """A caller is about to send `request`; what travels as its trace headers may be written into it.

        `parent` is the traceparent of the request that it is made for, if any.
        """

    def serving(self, request: Request, *, attempt: int, epoch: int, instance_id: str) -> Span:
        """An instance is about to run the handler; `epoch` is 0 for group requests."""


class LoggedSpan(Span):
    """A hop in the log: a line when it begins, and one when it ends."""

    __slots__ = ("_begun_s", "_ended", "_keys", "_level", "_words")

    def __init__(
        self, words: tuple[str, str], level: str, request: Request, **more: object
    ) -> None:
        """`words` are the events of the beginning and of the end."""
        self._words = words
        self._level = level
        self._keys = {**about(request), **more}
        self._begun_s = time.perf_counter()
        self._ended = False

    def __enter__(self) -> Self:
        self._say(self._words[0])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and not self._ended:
            self._say("request_ended_without_outcome", error_code=code_of(error), **self._lasted())

    def stored(self, outcome: Outcome) -> None:
        self._ended = True
        self._say(self._words[1], outcome=outcome.kind.value, **self._lasted())

    def _lasted(self) -> dict[str, float]:
        return {"duration_s": round(time.perf_counter() - self._begun_s, 6)}

    def _say(self, event: str, **more: object) -> None:
        (log.info if self._level == "info" else log.debug)(event, **self._keys, **more)


class LogTracer:
    """Tells the log: every hop at level debug, and at info what is begun again after a failure."""

    def sending(self, request: Request, *, parent: str = "") -> Span:
        if not is_debugging():
            return NO_SPAN
        return LoggedSpan(("request_sent", "request_answered"), "debug", request)

    def serving(self, request: Request, *, attempt: int, epoch: int, instance_id: str) -> Span:
        if attempt == 1 and not is_debugging():
            return NO_SPAN
        return LoggedSpan(
            ("request_begun", "request_stored"),
            "debug" if attempt == 1 else "info",
            request,
            instance_id=instance_id,
            attempt=attempt,
            epoch=epoch,
        )


NO_SPAN = Span()
"""Without state, so one is enough."""
LOG_TRACER = LogTracer()


def code_of(error: BaseException) -> str:
    """What went wrong, as a word: our errors have one, others their type's name."""
    return error.code if isinstance(error, AegisError) else type(error).__name__
