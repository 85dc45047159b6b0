"""What clients draw is what the checkers can judge, and only the seed decides it."""

from __future__ import annotations

from random import Random

import pytest

from bench.chaos.checkers import CHECKERS
from bench.chaos.checkers.kept import COLLECTIONS
from bench.chaos.checkers.totals import WORKLOAD as TRANSFERS
from bench.chaos.history import History, Operation, Status
from bench.chaos.workloads import WORKLOADS, Ask, Workload


def drawn(workload: Workload, seed: int = 1, n: int = 300) -> list[Ask]:
    source = Random(seed)
    return [workload.draw(source, f"c-{at}", None) for at in range(n)]


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS.keys())
class TestEachWorkload:
    def test_its_service_handles_what_its_clients_ask(self, workload: Workload) -> None:
        service = workload.service()
        assert service.name == workload.service_name
        asks = [ask for ask in drawn(workload) if not ask.at]
        assert {ask.method.name for ask in drawn(workload) if ask.at} <= service.readers.keys()
        assert {ask.method.name for ask in asks} | {workload.read.name} <= service.handlers.keys()
        for ask in asks:
            assert service.handlers[ask.method.name].targeted is (ask.resource is not None)

    def test_the_seed_decides_what_is_asked(self, workload: Workload) -> None:
        def told(seed: int) -> list[object]:
            return [
                (ask.kind, ask.resource, ask.args, ask.timeout_s) for ask in drawn(workload, seed)
            ]

        assert told(1) == told(1)
        assert told(1) != told(2)

    def test_payloads_fit_their_methods_and_name_their_operation(self, workload: Workload) -> None:
        for at, ask in enumerate(drawn(workload)):
            assert ask.method.request.decode(ask.method.request.encode(ask.payload)) == ask.payload
            assert ask.payload.op == f"c-{at}"
            assert ask.resource is None or ask.resource in workload.resources

    def test_checkers_understand_its_operations(self, workload: Workload) -> None:
        asks = drawn(workload, n=30)
        operations = [
            Operation(
                op=ask.payload.op,
                process="c",
                workload=workload.name,
                service=workload.service_name,
                resource=ask.resource or "",
                kind=ask.kind,
                args=ask.args,
                invoked_s=float(at),
                status=Status.UNKNOWN,
            )
            for at, ask in enumerate(asks)
        ]
        for checker in CHECKERS.values():
            checker(History(operations=operations))
        if (kind := COLLECTIONS.get(workload.name)) is not None:
            assert all(ask.kind == kind and "element" in ask.args for ask in asks)


def test_transfers_have_no_deadline_and_go_one_way() -> None:
    """A nested request commits by itself: a transfer cancelled behind its credit would make money."""
    asks = drawn(WORKLOADS[TRANSFERS])
    assert all(ask.timeout_s is None for ask in asks)
    assert not {ask.resource for ask in asks} & {ask.args["to"] for ask in asks}
