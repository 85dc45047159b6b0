"""Clients of the workloads, in a process: `python -m bench.chaos.client JSON`.

Each client asks one operation after the other and writes down, before it asks and when it knows, what
it did; a client that is killed leaves operations without an end. It stops on SIGTERM, after its
operations in hand.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
import time
from pathlib import Path
from random import Random
from typing import IO, Any

import aegis_sdk
from aegis_sdk import Aegis, AegisError, NeverAccepted, OutcomeUnknown, Ticket
from pydantic import BaseModel

from bench.chaos.breaks import break_what_is_told
from bench.chaos.history import Operation, Status, end_line, invoke_line
from bench.chaos.workloads import WORKLOADS, Ask, Workload

CONNECT_WAIT_S = 60.0
SUBMIT_S = 60.0
"""How long an operation without a deadline is tried to be handed in, and then waited for."""
AGAIN_S = 0.2
KEYED_SHARE = 0.2
"""Of the operations, ask with an idempotency key: another path through the SDK."""


class Recorder:
    """Writes a client's records; flushed, so that a kill loses none that matter."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def invoke(self, operation: Operation) -> None:
        self._write(invoke_line(operation))

    def end(self, op: str, status: Status, *, result: Any = None, error: str = "") -> None:
        self._write(end_line(op, status, completed_s=time.monotonic(), result=result, error=error))

    def _write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()


class Client:
    """One sequence of operations: the next begins when the last has ended."""

    def __init__(
        self, name: str, workload: Workload, aegis: Aegis, recorder: Recorder, source: Random
    ) -> None:
        self._name = name
        self._workload = workload
        self._aegis = aegis
        self._recorder = recorder
        self._source = source
        self._asked = 0

    async def open(self) -> None:
        """Do to each resource what must be done first."""
        for resource in self._workload.resources:
            ask = self._workload.opening(self._next_op(), resource)
            if ask is not None:
                await self._perform(ask)

    async def run(self, stopping: asyncio.Event, pause_s: float) -> None:
        """Ask until `stopping`, with pauses of `pause_s` on average."""
        last: Any = None
        while not stopping.is_set():
            last = await self._perform(self._workload.draw(self._source, self._next_op(), last))
            await asyncio.sleep(self._source.expovariate(1 / pause_s))

    def _next_op(self) -> str:
        self._asked += 1
        return f"{self._name}-{self._asked}"

    async def _perform(self, ask: Ask) -> Any:
        op = ask.payload.op
        self._recorder.invoke(
            Operation(
                op=op,
                process=self._name,
                workload=self._workload.name,
                service=self._workload.service_name,
                resource=ask.resource or "",
                kind=ask.kind,
                args=ask.args,
                invoked_s=time.monotonic(),
            )
        )
        try:
            result = await self._answer(ask)
        except OutcomeUnknown as error:
            self._recorder.end(op, Status.UNKNOWN, error=type(error).__name__)
        except AegisError as error:
            # Every other error is definite: nothing was stored, or the outcome has no effect.
            self._recorder.end(op, Status.FAIL, error=type(error).__name__)
        else:
            self._recorder.end(op, Status.OK, result=result)
            return result
        return None

    async def _answer(self, ask: Ask) -> Any:
        if ask.timeout_s is None:
            return await self._settled(ask)
        if ask.at:
            seen: BaseModel = await self._aegis.read(
                ask.method,
                ask.payload,
                resource=ask.resource or "",
                at=ask.at,
                timeout_s=ask.timeout_s,
            )
            return seen.model_dump()
        return await self._aegis.request(
            ask.method,
            ask.payload,
            resource=ask.resource,
            timeout_s=ask.timeout_s,
            key=ask.payload.op if self._source.random() < KEYED_SHARE else None,
        )

    async def _settled(self, ask: Ask) -> Any:
        """Hand in until it is accepted, then wait until it has an outcome."""
        give_up_s, in_doubt = time.monotonic() + SUBMIT_S, False
        while True:
            try:
                ticket = await self._handed_in(ask, in_doubt=in_doubt)
                return await self._aegis.attach(
                    ticket.id, ask.method, timeout_s=max(1.0, give_up_s - time.monotonic())
                )
            except NeverAccepted:
                raise  # it was accepted: the checkers want to know why it is not any more
            except OutcomeUnknown:
                if time.monotonic() >= give_up_s:
                    raise
            in_doubt = True
            await asyncio.sleep(AGAIN_S)

    async def _handed_in(self, ask: Ask, *, in_doubt: bool) -> Ticket:
        """`in_doubt`: it may be accepted since an earlier try. That this one is refused says nothing of that."""
        try:
            return await self._aegis.submit(
                ask.method,
                ask.payload,
                resource=ask.resource,
                key=ask.payload.op,
                not_before=ask.not_before_s,
            )
        except OutcomeUnknown:
            raise
        except AegisError as error:
            if in_doubt:
                raise OutcomeUnknown(str(error), "") from error
            raise


def _open(path: str) -> IO[str]:
    return Path(path).open("w", encoding="utf-8")


async def run(options: dict[str, Any]) -> None:
    """`url`, `name`, `seed`, `workloads`, `each` (clients a workload), `pause_s`, `file`, `opens`."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    with _open(options["file"]) as file:
        async with aegis_sdk.connect(options["url"], wait_s=CONNECT_WAIT_S) as aegis:
            crowds = [
                [
                    Client(
                        f"{options['name']}.{name}{n}",
                        WORKLOADS[name],
                        aegis,
                        Recorder(file),
                        Random(f"{options['seed']}/{options['name']}/{name}/{n}"),
                    )
                    for n in range(options["each"] * WORKLOADS[name].crowd)
                ]
                for name in options["workloads"]
            ]
            if options["opens"]:
                await asyncio.gather(*(crowd[0].open() for crowd in crowds))
            print("ready", flush=True)
            pause_s = options["pause_s"]
            clients = itertools.chain.from_iterable(crowds)
            await asyncio.gather(*(client.run(stopping, pause_s) for client in clients))


if __name__ == "__main__":
    aegis_sdk.configure_logs(level="WARNING")
    break_what_is_told()
    asyncio.run(run(json.loads(sys.argv[1])))
