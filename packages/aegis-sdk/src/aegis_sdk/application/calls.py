"""Which requests the runs of one handler make, so that a run after the first makes the same ones.

A child's id says what is asked: method, resource and payload, and the how many equal ones were made before it. So each
call of a later run finds its own reply, whatever the order: calls that are asked side by side come in any.
What no id can tell is a handler that asks something *else* the second time, since a clock or chance is in its
payload. Then what it asked before has its effect, and what it asks now would be a second one. Therefore a run
after the first holds a call that no earlier run is known to have made as long as calls of the same method
are known that took effect, or may, and that this run has not made so far (CallChanged in the end).

A retry must not be given its child's old failure for ever: the n-th retry goes through up to n further
*generations* of a child, each of which is asked only when the one before it has ended without effect. But a
failure that the handler has answered by another call, a fallback, is final once that one may have taken effect: both
would take effect otherwise. A run after a crash is the first run again, and meets the same outcomes in the same order.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request, fingerprint
from aegis_sdk.contract.ids import call_of, call_token
from aegis_sdk.errors import AegisError

HOLD_S_MAX: Final = 5.0
"""How long a call waits for those that an earlier run made: they wait for others, too."""
FINAL_CODES: Final = (b'"gave_up"', b'"outcome_too_large"')
"""To ask again would kill further processes, or end the same way."""


class Calls:
    """The calls of one run. `retry` counts the handler's retries before it in this process."""

    __slots__ = (
        "_after",
        "_counts",
        "_failures",
        "_harmless",
        "_made",
        "_more",
        "_sent",
        "before",
        "final",
        "handed_in",
        "has_past",
        "listed",
        "retry",
    )

    def __init__(
        self,
        *,
        has_past: bool = False,
        retry: int = 0,
        before: dict[str, Request] | None = None,
        final: dict[str, AegisError] | None = None,
    ) -> None:
        """`has_past`: a process may have died in an earlier run. `before`: what earlier runs in here made.
        `final`: calls of them whose failure stands.
        """
        self.has_past = has_past
        self.retry = retry
        self.before = before or {}
        self.final = final or {}
        self.listed: dict[str, list[str]] = {}
        """By service: ids of the children with an outcome, of runs that ended in death."""
        self.handed_in: list[Request] = []
        """Part of the outcome, in their order: they are sent once that is stored."""
        self._counts: dict[str, int] = {}
        self._made: set[str] = set()
        self._sent: dict[str, Request] = {}
        self._harmless: set[str] = set()
        self._failures: dict[str, AegisError] = {}
        """What this run was told, by call."""
        self._after: dict[str, list[str]] = {}
        """By call: the failures that were told before it was made, which it may be the answer to."""
        self._more: asyncio.Event | None = None

    def retried(self, *, retry: int) -> Calls:
        """Those of the next run."""
        final = dict(self.final)
        for call in self._made - self._harmless:
            final |= {failed: self._failures[failed] for failed in self._after[call]}
        before = self.before | self._sent
        return Calls(has_past=self.has_past, retry=retry, before=before, final=final)

    def next_token(self, service: str, method: str, resource: str | None, payload: bytes) -> str:
        """What names this call among the parent's: the same in each run."""
        name = fingerprint(f"{service}.{method}", resource, payload)
        self._counts[name] = count = self._counts.get(name, 0) + 1
        return call_token(method, name, count)

    def made(self, request: Request) -> None:
        """The handler asks for it."""
        self._made.add(request.request_id)
        self._after[request.request_id] = list(self._failures)
        if self._more is not None:
            self._more.set()

    def sent(self, request: Request) -> None:
        """From now on it may take effect."""
        self._sent[call_of(request.request_id)] = request

    def hand_in(self, request: Request) -> None:
        """To be sent once the outcome of this run is stored; if the run ends otherwise, never."""
        self.handed_in.append(request)

    def failed(self, call: str, error: AegisError) -> None:
        """The handler is told that it ended without effect."""
        self._harmless.add(call)
        self._failures[call] = error

    def is_new(self, request: Request) -> bool:
        """Whether no earlier run in this process sent it, nor this one an earlier generation of it."""
        own = call_of(request.request_id)
        return own == request.request_id and own not in self.before

    def others(self, request: Request) -> list[str]:
        """What earlier runs asked of the same method that this run has not, and that may have an effect."""
        mine = method_of(request.request_id)
        known = {call_of(child) for child in self.listed.get(request.service, ())}
        known.update(c for c, sent in self.before.items() if sent.service == request.service)
        return sorted(c for c in known - self._made - self._harmless if method_of(c) == mine)

    def last_of(self, child: str, service: str) -> str:
        """The newest generation of it that is known."""
        if child in self.before:
            return self.before[child].request_id
        # A later one is longer, or behind it in the alphabet.
        found = [id_ for id_ in self.listed[service] if call_of(id_) == child]
        return max(found, key=lambda id_: (len(id_), id_))

    def is_harmless(self, child: str) -> None:
        """It ended without effect."""
        self._harmless.add(child)

    async def more(self) -> None:
        """Wait until this run makes another call."""
        if self._more is None:
            self._more = asyncio.Event()
        self._more.clear()
        await self._more.wait()


def method_of(request_id: str) -> str:
    """The method in a child's id, which may be cut."""
    return request_id.rpartition(".")[2].rpartition("-")[0]


def may_be_asked_anew(outcome: Outcome) -> bool:
    """Whether a retry may ask a new generation of a child that ended so."""
    if outcome.kind in (OutcomeKind.EXECUTED, OutcomeKind.REJECTED, OutcomeKind.UNREADABLE):
        return False
    return not any(code in outcome.body for code in FINAL_CODES)
