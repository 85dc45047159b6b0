"""The ports of reads (application/turns/reads.py, application/reading.py) on the bus.

A read at the active reaches everybody who serves the resource, as a subject without a queue does. So an old active that
does not know that it was replaced gets it as well, and a test can see that its proof no longer holds. A read at a standby
reaches one. The first answer counts. What is lost on the way is not answered at all, and the caller's time limit ends it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace

from aegis_sdk.application.ports import StoreMissing, StoreUnreachable
from aegis_sdk.application.turns.reads import Asked
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.turns.reads import Answered, Refusal, Wanted
from aegis_sdk.testing.connection import MemoryConnection
from aegis_sdk.testing.faults import Fault, Flow, Op


class MemoryReadsIn:
    """ReadsIn: the reads that are sent to what is served and followed here.

    `_answers` has, by the reply's name, whom each read that was given is to be answered to: once.
    """

    def __init__(self, link: MemoryConnection, service: str) -> None:
        self._link = link
        self._service = service
        self._places: set[tuple[str, bool]] = set()
        self._answers: dict[str, Callable[[Answered], None]] = {}
        self._waiting: list[Callable[[], None]] = []
        self.on_read: Callable[[Asked], None] = lambda asked: None
        link.bus.readers.setdefault(service, []).append(self)
        link.add_pump(Flow.DELIVERIES, self._pump)

    def takes(self, resource: str, *, at_standby: bool) -> bool:
        return self._link.reachable and (resource, at_standby) in self._places

    def serve(self, resources: Iterable[str], *, at_standby: bool) -> None:
        self._places |= {(name, at_standby) for name in resources}

    def leave(self, resources: Iterable[str], *, at_standby: bool) -> None:
        self._places -= {(name, at_standby) for name in resources}

    def leave_all(self) -> None:
        self._places.clear()

    def arrive(self, asked: Asked, answer: Callable[[Answered], None]) -> None:
        def give() -> None:
            self._answers[asked.reply] = answer
            self.on_read(asked)

        self._waiting.append(give)
        self._pump()

    def _pump(self) -> None:
        while self._waiting and self._link.lets(Flow.DELIVERIES):
            self._waiting.pop(0)()

    def answer(self, asked: Asked, outcome: Outcome, position: str) -> None:
        self._say(asked, Answered(replace(outcome), position))

    def refuse(self, asked: Asked, why: Refusal, said: str) -> None:
        self._say(asked, Answered(None, refusal=why, said=said))

    def _say(self, asked: Asked, answered: Answered) -> None:
        answer = self._answers.pop(asked.reply)
        if self._link.reachable:
            self._link.bus.soon(lambda: answer(answered))


class MemoryReadsOut:
    """ReadsOut."""

    def __init__(self, link: MemoryConnection) -> None:
        self._link = link
        self._numbers = itertools.count(1)

    async def ask(
        self, request: Request, wanted: Wanted, *, at_standby: bool, timeout_s: float
    ) -> Answered:
        answered: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        reply = f"{self._link.name} {next(self._numbers)}"

        def hear(answer: Answered) -> None:
            if self._link.lets(Flow.REPLIES) and not answered.done():
                answered.set_result(answer)

        def arrive() -> None:
            if not self._link.reachable or self._link.bus.faults.draw(Op.SEND) is Fault.LOST:
                return
            readers = self._link.bus.readers.get(request.service, [])
            those = [
                each
                for each in readers
                if each.takes(request.resource or "", at_standby=at_standby)
            ]
            if not those and not answered.done():
                answered.set_exception(StoreMissing("nobody answers reads there"))
            for each in those[:1] if at_standby else those:
                asked = Asked(request, wanted, f"{reply} {id(each)}", at_standby=at_standby)
                each.arrive(asked, hear)

        self._link.bus.soon(arrive)
        try:
            async with asyncio.timeout(timeout_s):
                return await answered
        except TimeoutError:
            raise StoreUnreachable(f"link {self._link.name}: no answer in time") from None
