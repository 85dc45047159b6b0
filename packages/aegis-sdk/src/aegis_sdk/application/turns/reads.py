"""Answers reads at one instance: from its memory, when that is fresh enough (domain/turns/reads.py says when).

A read is answered in the step in which it comes, if it can be. Otherwise it waits, for a proof, for what is in flight or for
entries of the log; for no longer than its caller's word allows. One proof is on its way at a time, and answers all that wait.
Nothing of a read is stored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

from aegis_sdk.application.handlers import Runner
from aegis_sdk.application.ports import GateRefused, StoreError
from aegis_sdk.application.turns.aside import Aside
from aegis_sdk.application.turns.ports import WriterLog
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.turns.reads import Refusal, Wanted, position_text, read_position
from aegis_sdk.domain.recorder import Recorder
from aegis_sdk.domain.turns.reads import Freshness, is_followed, is_owned, is_settled
from aegis_sdk.domain.turns.work import Held
from aegis_sdk.domain.turns.writer import Writer
from aegis_sdk.service import Service
from aegis_sdk.telemetry import log

WAITING_MAX: Final = 10_000
"""Reads that wait at once; more are refused."""
LOOK_S: Final = 0.01
"""How often those that wait are looked at when nothing happens, and how soon what failed is tried again."""


class Asked:
    """A read at this instance."""

    __slots__ = ("at_standby", "came_s", "least", "log_id", "reply", "request", "wanted")

    def __init__(self, request: Request, wanted: Wanted, reply: str, *, at_standby: bool) -> None:
        self.request = request
        self.wanted = wanted
        self.reply = reply
        """Where the answer goes."""
        self.log_id, self.least = ("", 0) if not wanted.at_least else read_position(wanted.at_least)
        self.at_standby = at_standby
        self.came_s = time.monotonic()


class ReadsIn(Protocol):
    """Reads as they are sent to this instance."""

    on_read: Callable[[Asked], None]

    def serve(self, resources: Iterable[str], *, at_standby: bool) -> None:
        """Raises: StoreUnreachable, when the connection is closed."""

    def leave(self, resources: Iterable[str], *, at_standby: bool) -> None: ...

    def leave_all(self) -> None: ...

    def answer(self, asked: Asked, outcome: Outcome, position: str) -> None: ...

    def refuse(self, asked: Asked, why: Refusal, said: str) -> None: ...


class Reads:
    """Of one instance."""

    def __init__(
        self,
        writer: Writer,
        *,
        service: Service,
        runner: Runner,
        port: ReadsIn,
        log_: WriterLog,
        log_id: str,
        aside: Aside,
        recorder: Recorder,
        may_write: Callable[[], bool],
    ) -> None:
        """`may_write`: it has read the log up to its own claim, on the connection that it has now."""
        self._writer = writer
        self._service = service
        self._runner = runner
        self._port = port
        self._log = log_
        self._log_id = log_id
        self._aside = aside
        self._recorder = recorder
        self._may_write = may_write
        self.fresh = Freshness()
        self.lag_entries: Callable[[], int] = lambda: 0
        self.read_to_end: Callable[[], Awaitable[None]] | None = None
        """Returns when all is read that the log had when it was called. Raises: StoreError."""
        self._stored_to = 0
        self._waiting: list[Asked] = []
        self._followed: set[str] = set()
        self._proving = self._catching_up = False
        self._refused_gate = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        port.on_read = self._came

    @property
    def position(self) -> str:
        """All of what is served and followed here is known up to it."""
        return position_text(self._log_id, self._applied)

    @property
    def _applied(self) -> int:
        return max(self._writer.position, self._stored_to)

    def stored(self, begun_s: float, seq: int) -> None:
        """The log has taken an entry under this writer's gate, at that place."""
        self.fresh.proven(begun_s)
        self._stored_to = max(self._stored_to, seq)

    # --- who is asked -----------------------------------------------------------------------------------------
    def moved(self, serving: Iterable[str], left: Iterable[str]) -> None:
        if self._service.readers:
            self._port.leave(left, at_standby=False)
            self._port.serve(serving, at_standby=False)
            self.follow()

    def follow(self) -> None:
        """Standby reads are taken of what is followed, once the log is read."""
        if not self._service.readers:
            return
        held = self._writer.held.items() if self._may_write() else ()
        now = {name for name, each in held if is_followed(each)}
        self._port.leave(self._followed - now, at_standby=True)
        self._port.serve(sorted(now - self._followed), at_standby=True)
        self._followed = now

    def stop(self) -> None:
        self._stopped = True
        self._waiting.clear()
        self._port.leave_all()
        if self._timer is not None:
            self._timer.cancel()

    # --- reads ------------------------------------------------------------------------------------------------
    def _came(self, asked: Asked) -> None:
        if self._stopped:
            return
        if len(self._waiting) >= WAITING_MAX:
            self._port.refuse(asked, Refusal.BEHIND, f"{WAITING_MAX} reads wait here")
        elif not self._is_done_with(asked):
            self._waiting.append(asked)
            self._look_later()

    def go_on(self) -> None:
        """Something was read or stored: those that wait may be answered."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._waiting += [asked for asked in waiting if not self._is_done_with(asked)]

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        self.go_on()
        if self._waiting and not self._stopped:
            self._look_later()

    def _is_done_with(self, asked: Asked) -> bool:
        """Whether it was answered or refused, or is another instance's to answer."""
        held = self._writer.held.get(asked.request.resource or "")
        if held is None or held.unreadable or not (asked.at_standby or is_owned(held)):
            return True
        if asked.least and asked.log_id != self._log_id:
            said = f"{asked.wanted.at_least} is a position of another log than {self._log_id}"
            self._port.refuse(asked, Refusal.OTHER_LOG, said)
        elif self._has_read(asked) if asked.at_standby else self._is_sure(asked, held):
            self._answer(asked, held)
        else:
            return self._is_over(asked)
        return True

    def _is_sure(self, asked: Asked, held: Held) -> bool:
        if not (self._may_write() and is_settled(held)):
            return False
        if self.fresh.is_proven(asked.came_s, time.monotonic()):
            return True
        gate = self._writer.ownership.gates.get(self._writer.name, 0)
        if not self._proving and not self._writer.is_storing and gate > self._refused_gate:
            self._proving = True
            self._aside(self._prove(gate))
        return False

    def _has_read(self, asked: Asked) -> bool:
        lag_s_max = asked.wanted.lag_s_max
        if not self._may_write() or self._writer.position < asked.least:
            return False
        if lag_s_max is None or self.fresh.lacks_at_most(lag_s_max, asked.came_s):
            return True
        if not self._catching_up and self.read_to_end is not None:
            self._catching_up = True
            self._aside(self._catch_up())
        return False

    def _is_over(self, asked: Asked) -> bool:
        if time.monotonic() < asked.came_s + asked.wanted.wait_s:
            return False
        if asked.at_standby:
            said = (
                f"{self._runner.instance_id} has read up to {self.position}, and the log has"
                f" {self.lag_entries()} entries more"
            )
            self._port.refuse(asked, Refusal.BEHIND, said)
        else:
            said = f"{self._runner.instance_id} could not learn in time whether it is still active"
            self._port.refuse(asked, Refusal.UNSURE, said)
        return True

    def _answer(self, asked: Asked, held: Held) -> None:
        request, begun_s = asked.request, time.perf_counter()
        with self._runner.span(
            request, begun=1, epoch=self._writer.ownership.epoch(held.name)
        ) as span:
            outcome = self._runner.read(request, held.values)
            span.stored(outcome)
        self._recorder.read(request, outcome, time.perf_counter() - begun_s)
        known = self._writer.position if asked.at_standby else max(self._applied, asked.least)
        self._port.answer(asked, outcome, position_text(self._log_id, known))

    # --- the log, aside ---------------------------------------------------------------------------------------
    async def _prove(self, gate: int) -> None:
        begun_s = time.monotonic()
        try:
            await self._log.prove(gate)
            self.fresh.proven(begun_s)
        except GateRefused:
            self._refused_gate = gate  # the newer one is read before the next try
        except StoreError as error:
            log.debug("proof_not_stored", writer=self._writer.name, error=str(error))
        finally:
            self._proving = False
        self.go_on()

    async def _catch_up(self) -> None:
        asked_s = time.monotonic()
        assert self.read_to_end is not None
        try:
            await self.read_to_end()
            self.fresh.caught_up(asked_s)
        except StoreError as error:
            log.debug("end_not_read", writer=self._writer.name, error=str(error))
        finally:
            self._catching_up = False
        self.go_on()
