"""Compares what must have happened with what did: pure, and fit to find fault.

Four witnesses are compared, none of which is taken from another:
- the ledger: computed from the orders alone;
- the request stream: the ids that were accepted, and for which order;
- the journal: the outcomes, one stored message each, and the state changes in them;
- the callers' records and the closing statements of the accounts.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from aegis_sdk.contract.envelope import Change, OutcomeKind

from aegis_demo.amounts import plain
from aegis_demo.contracts import CASH_KEY, POSITION_PREFIX, VERSION_KEY
from aegis_demo.ledger import Ledger, LedgerAccount, Verdict
from aegis_demo.orders import Order

MISMATCHES_SHOWN_MAX: Final = 20
FINAL: Final = (OutcomeKind.EXECUTED.value, OutcomeKind.REJECTED.value)


@dataclass(frozen=True, slots=True)
class AcceptedBooking:
    """A booking in the request stream."""

    request_id: str
    order_id: str


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """An outcome in the journal of `accounts`, in the order in which they were stored."""

    request_id: str
    account: str
    kind: str
    code: str = ""
    change: Change = field(default_factory=Change)


@dataclass(frozen=True, slots=True)
class Call:
    """What the gateway was told about an order. `request_id` is empty when no answer carried it."""

    order_id: str
    request_id: str
    outcome: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Holding:
    """An account as somebody reports it. Positions of zero may be named or not."""

    cash: Decimal
    positions: Mapping[str, Decimal]
    version: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was observed of a session."""

    accepted: Sequence[AcceptedBooking]
    journal: Sequence[JournalEntry]
    calls: Sequence[Call]
    statements: Mapping[str, Holding]


@dataclass(frozen=True, slots=True)
class Reconciliation:
    executed: int
    rejected: int
    lost: int
    duplicated: int
    accounts: int
    accounts_agreeing: int
    mismatches: list[str]

    @property
    def reconciled(self) -> bool:
        """True only when nothing was lost or doubled and every witness tells the same."""
        return not (self.lost or self.duplicated or self.mismatches)


def reconcile(orders: Sequence[Order], ledger: Ledger, evidence: Evidence) -> Reconciliation:
    """Judge a session. `orders` and `ledger` come from the input, `evidence` from the run."""
    lost = _lost(orders, evidence)
    duplicated, doubled = _duplicated(evidence)
    verdicts = _wrong_verdicts(orders, ledger, evidence, set(lost))
    journals = _by_account(evidence.journal)
    accounts = {
        account: _wrong_account(
            account, ledger, evidence.statements.get(account), journals[account]
        )
        for account in sorted(ledger.accounts)
    }
    wrong_accounts = [line for lines in accounts.values() for line in lines]
    kinds = Counter(call.outcome for call in evidence.calls)
    return Reconciliation(
        executed=kinds[OutcomeKind.EXECUTED.value],
        rejected=kinds[OutcomeKind.REJECTED.value],
        lost=len(lost),
        duplicated=duplicated,
        accounts=len(accounts),
        accounts_agreeing=sum(not lines for lines in accounts.values()),
        mismatches=[*lost.values(), *doubled, *verdicts, *wrong_accounts],
    )


def _lost(orders: Sequence[Order], evidence: Evidence) -> dict[str, str]:
    """By order id, why it counts as lost."""
    stored = {entry.request_id: entry.kind for entry in evidence.journal}
    accepted = {request.request_id for request in evidence.accepted}
    lost = {
        request.order_id: f"{request.order_id}: request {request.request_id} was accepted and has no outcome"
        for request in evidence.accepted
        if request.request_id not in stored
    }
    answered = {call.order_id: call for call in evidence.calls}
    for order in orders:
        call = answered.get(order.order_id)
        if call is None or call.outcome not in FINAL:
            told = "nothing" if call is None else f"{call.outcome} {call.code}".strip()
            lost.setdefault(order.order_id, f"{order.order_id}: the caller was told {told}")
        elif stored.get(call.request_id) != call.outcome or call.request_id not in accepted:
            kept = stored.get(call.request_id, "no outcome")
            lost.setdefault(
                order.order_id,
                f"{order.order_id}: the caller was told {call.outcome}, "
                f"the journal has {kept} for request {call.request_id or '(unknown)'}",
            )
    return lost


def _duplicated(evidence: Evidence) -> tuple[int, list[str]]:
    """How many effects there are beyond one an order, counted in journal and statements."""
    order_of = {request.request_id: request.order_id for request in evidence.accepted}
    effects: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    versions: Counter[str] = Counter()
    for entry in evidence.journal:
        if entry.request_id not in order_of:
            continue
        outcomes[entry.request_id] += 1
        if entry.kind == OutcomeKind.EXECUTED:
            effects[order_of[entry.request_id]] += 1
            versions[entry.account] += 1
    lines = [f"{order}: took effect {n} times" for order, n in effects.items() if n > 1]
    count = sum(n - 1 for n in effects.values() if n > 1)
    lines += [f"request {id_}: has {n} outcomes" for id_, n in outcomes.items() if n > 1]
    for account, statement in sorted(evidence.statements.items()):
        beyond = statement.version - versions[account]
        if beyond > 0:
            count += beyond
            lines.append(f"{account}: {beyond} bookings took effect beyond those in the journal")
    return count, lines


def _wrong_verdicts(
    orders: Sequence[Order], ledger: Ledger, evidence: Evidence, lost: set[str]
) -> list[str]:
    """Orders that ended otherwise than the rules say. Lost ones are reported already."""
    told = {call.order_id: call for call in evidence.calls}
    wrong = []
    for order in orders:
        if order.order_id in lost:
            continue
        expected = ledger.verdicts[order.order_id]
        call = told[order.order_id]
        got = call.outcome if call.outcome == Verdict.EXECUTED else call.code
        if got != expected:
            wrong.append(f"{order.order_id}: expected {expected.value}, got {got}")
    known = {order.order_id for order in orders}
    wrong += [
        f"{request.order_id}: was booked and is no order of the input"
        for request in evidence.accepted
        if request.order_id not in known
    ]
    return wrong


def _by_account(journal: Iterable[JournalEntry]) -> Mapping[str, list[JournalEntry]]:
    entries: dict[str, list[JournalEntry]] = defaultdict(list)
    for entry in journal:
        entries[entry.account].append(entry)
    return entries


def _wrong_account(
    account: str, ledger: Ledger, statement: Holding | None, entries: Sequence[JournalEntry]
) -> list[str]:
    """Both the account's own statement and the journal's sum must be what the ledger says."""
    if statement is None:
        return [f"{account}: gave no closing statement"]
    journal = fold(entries, ledger.opening_cash)
    expected = ledger.accounts[account]
    return [
        *_differences(account, "statement", expected, statement),
        *_differences(account, "journal", expected, journal),
    ]


def fold(entries: Iterable[JournalEntry], opening_cash: Decimal) -> Holding:
    """One account's state as the sum of its state changes."""
    state: dict[str, Any] = {CASH_KEY: str(opening_cash), VERSION_KEY: 0}
    for entry in entries:
        state.update(entry.change.set)
        for key in entry.change.delete:
            state.pop(key, None)
    positions = {
        key.removeprefix(POSITION_PREFIX): Decimal(value)
        for key, value in state.items()
        if key.startswith(POSITION_PREFIX)
    }
    return Holding(Decimal(state[CASH_KEY]), positions, state[VERSION_KEY])


def _differences(account: str, who: str, expected: LedgerAccount, got: Holding) -> list[str]:
    lines = []
    if got.cash != expected.cash:
        lines.append(_line(account, who, "cash", expected.cash, got.cash))
    if got.version != expected.bookings:
        lines.append(_line(account, who, "bookings", expected.bookings, got.version))
    for symbol in sorted(set(expected.positions) | set(got.positions)):
        wanted = expected.positions.get(symbol, Decimal(0))
        held = got.positions.get(symbol, Decimal(0))
        if held != wanted:
            lines.append(_line(account, who, f"position {symbol}", wanted, held))
    return lines


def _line(account: str, who: str, what: str, expected: Decimal | int, got: Decimal | int) -> str:
    return f"{account}: {what} is {plain(Decimal(got))} in the {who}, expected {plain(Decimal(expected))}"


def entry_of(request_id: str, account: str, kind: str, body: bytes, change: bytes) -> JournalEntry:
    """A journal entry from its stored parts. Raises: ValueError when they can't be read."""
    code = "" if kind == OutcomeKind.EXECUTED else str(json.loads(body).get("code", ""))
    return JournalEntry(request_id, account, kind, code, Change.decode(change))
