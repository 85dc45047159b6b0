"""Histories by hand: a right one in a few words, which each test makes wrong in one way."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

from bench.chaos.history import (
    Accepted,
    Fault,
    Final,
    History,
    Operation,
    OutcomeEntry,
    Run,
    Status,
)


class Story:
    """Tells a history in order; each operation takes 0.01 s, 0.1 s after the one before."""

    def __init__(self, *, workload: str, service: str, resource: str = "r") -> None:
        self.workload = workload
        self.service = service
        self.resource = resource
        self.run = Run(ok_per_workload_min=1)
        self.operations: list[Operation] = []
        self.accepted: list[Accepted] = []
        self.outcomes: list[OutcomeEntry] = []
        self.faults: list[Fault] = []
        self.finals: list[Final] = []
        self._ids = count(1)
        self._seqs = count(1)

    def ask(
        self,
        kind: str,
        *,
        status: Status = Status.OK,
        result: Any = None,
        error: str = "",
        process: str = "p1",
        resource: str | None = None,
        at_s: float | None = None,
        took_s: float = 0.01,
        **args: Any,
    ) -> Operation:
        """An operation of a client, without any journal entry."""
        n = next(self._ids)
        begin = n / 10 if at_s is None else at_s
        operation = Operation(
            op=f"{process}.{n}",
            process=process,
            workload=self.workload,
            service=self.service,
            resource=resource or self.resource,
            kind=kind,
            args=args,
            invoked_s=begin,
            status=status,
            completed_s=begin + took_s,
            result=result,
            error=error,
        )
        self.operations.append(operation)
        return operation

    def store(
        self, operation: Operation, *, outcome: str = "executed", epoch: int = 1, **more: Any
    ) -> OutcomeEntry:
        """The outcome of an operation, at the journal's end."""
        seq = next(self._seqs)
        values: dict[str, Any] = {
            "service": operation.service,
            "resource": operation.resource,
            "op": operation.op,
            "reply": operation.result,
        }
        entry = OutcomeEntry(seq=seq, outcome=outcome, epoch=epoch, **{**values, **more})
        self.outcomes.append(entry)
        return entry

    def do(self, kind: str, **args: Any) -> Operation:
        """An operation that took effect and was answered."""
        operation = self.ask(kind, **args)
        self.store(operation)
        return operation

    def fault(self, began_s: float, healed_s: float, kind: str = "kill") -> None:
        self.faults.append(Fault(kind=kind, target="t", began_s=began_s, healed_s=healed_s))

    def final(self, value: Any, resource: str | None = None) -> None:
        self.finals.append(
            Final(
                workload=self.workload,
                service=self.service,
                resource=resource or self.resource,
                value=value,
            )
        )

    def history(self, **limits: Any) -> History:
        return History(
            run=replace(self.run, **limits),
            operations=self.operations,
            accepted=self.accepted,
            outcomes=self.outcomes,
            faults=self.faults,
            finals=self.finals,
        )
