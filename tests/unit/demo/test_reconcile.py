"""The check must find fault: each test breaks a perfect session in one place (G2, G3, G6)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from aegis_demo.ledger import Ledger, Verdict, keep_ledger
from aegis_demo.market import GENERATED
from aegis_demo.orders import Order, generate
from aegis_demo.reconcile import (
    AcceptedBooking,
    Call,
    Evidence,
    Holding,
    JournalEntry,
    Reconciliation,
    entry_of,
    fold,
    reconcile,
)
from aegis_sdk.contract.envelope import Change, OutcomeKind

ORDERS = generate(400, seed=11)
LEDGER = keep_ledger(ORDERS, GENERATED)
CASH = GENERATED.opening_cash


def changes(upto: int) -> Change:
    """What the order at `upto` changed: its account's books after it."""
    order = ORDERS[upto]
    own = [each for each in ORDERS[: upto + 1] if each.account == order.account]
    books = keep_ledger(own, GENERATED)
    account = books.accounts[order.account]
    return Change(
        {
            "cash": str(account.cash),
            f"position/{order.symbol}": str(account.positions[order.symbol]),
            "version": account.bookings,
        }
    )


def perfect() -> Evidence:
    accepted, journal, calls = [], [], []
    for number, order in enumerate(ORDERS):
        verdict = LEDGER.verdicts[order.order_id]
        executed = verdict is Verdict.EXECUTED
        kind = OutcomeKind.EXECUTED if executed else OutcomeKind.REJECTED
        code = "" if executed else verdict.value
        request_id = f"caller.{number}"
        accepted.append(AcceptedBooking(request_id, order.order_id))
        change = changes(number) if executed else Change()
        journal.append(JournalEntry(request_id, order.account, kind.value, code, change))
        calls.append(Call(order.order_id, request_id, kind.value, code))
    statements = {
        name: Holding(account.cash, account.positions, account.bookings)
        for name, account in LEDGER.accounts.items()
    }
    return Evidence(accepted, journal, calls, statements)


PERFECT = perfect()
FIRST = ORDERS[0]


def judge(evidence: Evidence, ledger: Ledger = LEDGER) -> Reconciliation:
    return reconcile(ORDERS, ledger, evidence)


def first_executed() -> tuple[int, Order]:
    return next(
        (number, order)
        for number, order in enumerate(ORDERS)
        if LEDGER.verdicts[order.order_id] is Verdict.EXECUTED
    )


def test_a_perfect_session_reconciles() -> None:
    found = judge(PERFECT)
    assert found.reconciled
    assert found.mismatches == []
    assert (found.lost, found.duplicated) == (0, 0)
    assert found.executed + found.rejected == len(ORDERS)
    assert found.rejected > 0
    assert found.accounts_agreeing == found.accounts == 16


def test_an_accepted_request_without_an_outcome_is_lost() -> None:
    evidence = replace(PERFECT, journal=PERFECT.journal[1:])
    found = judge(evidence)
    assert found.lost == 1
    assert not found.reconciled
    assert FIRST.order_id in found.mismatches[0]


def test_an_order_that_its_caller_saw_executed_and_the_journal_lacks_is_lost() -> None:
    evidence = replace(PERFECT, journal=PERFECT.journal[1:], accepted=PERFECT.accepted[1:])
    assert judge(evidence).lost == 1


def test_an_order_without_an_answer_is_lost() -> None:
    assert judge(replace(PERFECT, calls=PERFECT.calls[1:])).lost == 1


def test_an_order_that_ended_in_doubt_is_lost() -> None:
    doubt = replace(PERFECT.calls[0], outcome="unknown")
    found = judge(replace(PERFECT, calls=[doubt, *PERFECT.calls[1:]]))
    assert found.lost == 1
    assert "unknown" in found.mismatches[0]


def test_an_answer_that_differs_from_the_journal_is_lost() -> None:
    number, order = first_executed()
    journal = list(PERFECT.journal)
    journal[number] = replace(journal[number], kind="cancelled")
    found = judge(replace(PERFECT, journal=journal))
    assert found.lost == 1
    assert order.order_id in found.mismatches[0]


def test_an_order_that_took_effect_under_two_request_ids_is_doubled() -> None:
    number, order = first_executed()
    again = AcceptedBooking("caller.again", order.order_id)
    entry = replace(PERFECT.journal[number], request_id="caller.again")
    evidence = replace(
        PERFECT, accepted=[*PERFECT.accepted, again], journal=[*PERFECT.journal, entry]
    )
    found = judge(evidence)
    assert found.duplicated == 1
    assert not found.reconciled
    assert any(f"{order.order_id}: took effect 2 times" in line for line in found.mismatches)


def test_a_request_that_has_two_outcomes_is_told_even_if_one_has_no_effect() -> None:
    number, _ = first_executed()
    second = replace(PERFECT.journal[number], kind="cancelled", change=Change())
    found = judge(replace(PERFECT, journal=[second, *PERFECT.journal]))
    assert not found.reconciled
    assert any("has 2 outcomes" in line for line in found.mismatches)


def test_an_effect_that_the_journal_does_not_show_is_doubled() -> None:
    """An account applied a booking twice and told the journal once: its version gives it away."""
    statement = PERFECT.statements["ACC-01"]
    broken = {**PERFECT.statements, "ACC-01": replace(statement, version=statement.version + 1)}
    found = judge(replace(PERFECT, statements=broken))
    assert found.duplicated == 1
    assert found.accounts_agreeing == 15


def test_a_retry_of_what_certainly_had_no_effect_is_neither_lost_nor_doubled() -> None:
    retried = AcceptedBooking("caller.before", FIRST.order_id)
    cancelled = JournalEntry("caller.before", FIRST.account, "cancelled", "cancelled")
    evidence = replace(
        PERFECT, accepted=[retried, *PERFECT.accepted], journal=[cancelled, *PERFECT.journal]
    )
    assert judge(evidence).reconciled


def test_a_hundred_millionth_of_wrong_cash_in_a_statement_is_found() -> None:
    statement = PERFECT.statements["ACC-01"]
    cash = statement.cash + Decimal("0.00000001")
    broken = {**PERFECT.statements, "ACC-01": replace(statement, cash=cash)}
    found = judge(replace(PERFECT, statements=broken))
    assert not found.reconciled
    assert found.accounts_agreeing == 15
    (line,) = found.mismatches
    assert line == (f"ACC-01: cash is {cash:,f} in the statement, expected {statement.cash:,f}")


def test_a_share_too_many_is_found_also_in_a_symbol_that_nobody_traded() -> None:
    statement = PERFECT.statements["ACC-01"]
    broken = replace(statement, positions={**statement.positions, "GHOST": Decimal(1)})
    found = judge(replace(PERFECT, statements={**PERFECT.statements, "ACC-01": broken}))
    assert found.mismatches == ["ACC-01: position GHOST is 1 in the statement, expected 0"]


def test_a_journal_whose_changes_do_not_add_up_is_found() -> None:
    _number, order = first_executed()
    late = max(n for n, each in enumerate(ORDERS) if each.account == order.account)
    while LEDGER.verdicts[ORDERS[late].order_id] is not Verdict.EXECUTED or (
        ORDERS[late].account != order.account
    ):
        late -= 1
    journal = list(PERFECT.journal)
    journal[late] = replace(journal[late], change=Change({"cash": "1"}))
    found = judge(replace(PERFECT, journal=journal))
    assert not found.reconciled
    assert any("cash is 1 in the journal" in line for line in found.mismatches)


def test_an_account_without_a_statement_is_found() -> None:
    statements = {k: v for k, v in PERFECT.statements.items() if k != "ACC-01"}
    found = judge(replace(PERFECT, statements=statements))
    assert found.mismatches == ["ACC-01: gave no closing statement"]


def test_a_rejection_that_the_rules_do_not_give_is_found() -> None:
    """All witnesses agree on a wrong decision: only the ledger knows better."""
    number, order = first_executed()
    calls, journal = list(PERFECT.calls), list(PERFECT.journal)
    calls[number] = replace(calls[number], outcome="rejected", code="position_limit")
    journal[number] = replace(journal[number], kind="rejected", change=Change())
    found = judge(replace(PERFECT, calls=calls, journal=journal))
    assert not found.reconciled
    assert f"{order.order_id}: expected executed, got position_limit" in found.mismatches


def test_a_booking_that_is_no_order_of_the_input_is_found() -> None:
    stranger = AcceptedBooking("caller.x", "ORD-999999")
    entry = JournalEntry("caller.x", "ACC-01", "rejected", "position_limit")
    evidence = replace(
        PERFECT, accepted=[*PERFECT.accepted, stranger], journal=[*PERFECT.journal, entry]
    )
    assert judge(evidence).mismatches == ["ORD-999999: was booked and is no order of the input"]


def test_a_fold_takes_changes_in_their_order_and_deletions_too() -> None:
    entries = [
        JournalEntry("a.1", "A", "executed", change=Change({"cash": "5", "position/X": "1"})),
        JournalEntry("a.2", "A", "executed", change=Change({"version": 2}, ("position/X",))),
    ]
    assert fold(entries, CASH) == Holding(Decimal(5), {}, 2)


def test_an_entry_is_read_from_its_stored_parts() -> None:
    executed = entry_of("a.1", "A", "executed", b"{}", Change({"version": 1}).encode())
    refused = entry_of("a.2", "A", "rejected", b'{"code":"position_limit"}', b"")
    assert executed.change.set == {"version": 1}
    assert (refused.code, bool(refused.change)) == ("position_limit", False)
