"""Transfers keep the total, and each is complete: one debit, one credit of the same amount.

A transfer is a request to the paying account, whose handler asks the receiving account to take a credit. The value of
an account is its balance; the `open` operation gave it the first one.

The accounts' journal may be lost, as was told, while a transfer is open. Then the transfer is decided anew on what is
left: it may be refused, though its credit was taken.

So may a transfer be gone whose own request was lost, as was told, while its handler ran: its credit
stands alone. And so may one be given up that three owners in a row have begun and lost: its credit committed by itself.
"""

from __future__ import annotations

from bench.chaos.checkers.announced import last_losses
from bench.chaos.history import History, Operation, OutcomeEntry, Place, Violation, nested

WORKLOAD = "transfers"


def check(history: History) -> list[Violation]:
    """Total, balances and pairs, once everything has settled."""
    balances = {final.place: final.value for final in history.finals if final.workload == WORKLOAD}
    operations = history.of(WORKLOAD)
    if not operations:
        return []
    executed = {entry.op for entry in history.outcomes if entry.executed}
    expected = _expected(operations, executed)
    until_s = last_losses(history, of_journal=True)
    whole = [op for op in operations if op.invoked_s > until_s(op.service)]
    given_up = {entry.op for entry in history.outcomes if _is_given_up(entry)}
    given_up |= _lost_while_running(history, operations)
    whole = [op for op in whole if op.op not in given_up]
    return _pairs(whole, executed) + _total(balances, expected) + _balances(balances, expected)


def _expected(operations: list[Operation], executed: set[str]) -> dict[Place, int]:
    """The balances that the journal's executed operations make."""
    expected: dict[Place, int] = {}
    for operation in operations:
        if operation.kind == "transfer" and nested(operation.op) in executed:
            other = (operation.service, operation.args["to"])
            expected[other] = expected.get(other, 0) + operation.args["amount"]
        if operation.op not in executed:
            continue
        if operation.kind == "open":
            expected[operation.place] = expected.get(operation.place, 0) + operation.args["amount"]
        elif operation.kind == "transfer":
            expected[operation.place] = expected.get(operation.place, 0) - operation.args["amount"]
    return expected


def _lost_while_running(history: History, operations: list[Operation]) -> set[str]:
    until_s = last_losses(history, of_journal=False)
    ended = {entry.op for entry in history.outcomes}
    return {
        op.op for op in operations if op.op not in ended and op.invoked_s <= until_s(op.service)
    }


def _is_given_up(entry: OutcomeEntry) -> bool:
    return isinstance(entry.reply, dict) and entry.reply.get("code") == "gave_up"


def _pairs(operations: list[Operation], executed: set[str]) -> list[Violation]:
    found = []
    for operation in operations:
        if operation.kind != "transfer":
            continue
        debited = operation.op in executed
        credited = nested(operation.op) in executed
        if debited and not credited:
            found.append(_violation(f"transfer {operation.op} was debited but not credited"))
        if credited and not debited:
            found.append(_violation(f"transfer {operation.op} was credited but not debited"))
    return found


def _total(balances: dict[Place, int], expected: dict[Place, int]) -> list[Violation]:
    total, opened = sum(balances.values()), sum(expected.values())
    if total == opened:
        return []
    return [_violation(f"the balances sum up to {total}, the accounts were opened with {opened}")]


def _balances(balances: dict[Place, int], expected: dict[Place, int]) -> list[Violation]:
    found = []
    for place in sorted(balances.keys() | expected.keys()):
        balance = balances.get(place)
        if balance != expected.get(place, 0):
            found.append(
                _violation(
                    f"{'/'.join(place)} has {balance}, its journal makes {expected.get(place, 0)}"
                )
            )
        elif balance < 0:
            found.append(_violation(f"{'/'.join(place)} is overdrawn: {balance}"))
    return found


def _violation(message: str) -> Violation:
    return Violation("totals", message, "G3")
