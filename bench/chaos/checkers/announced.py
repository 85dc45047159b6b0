"""What control announced as lost is no broken promise: the history in which that is not known any more.

When a journal is lost, and that was accepted, outcomes in it are gone, and so are their effects. What their callers
were told is void: the request has no effect, or it was still kept and was run again, or ended because its deadline had
passed by then. So the client no longer knows
which, and all that came after must agree with one of the two. An answer whose outcome is still in the journal (an older
copy holds some) is judged as always, and so is what was asked later. When requests were lost, those that were asked before
need no outcome; each answer's outcome is in the journal all the same.

What is gone without an announcement is a violation, whether or not anybody was told of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from bench.chaos.history import (
    PUT_BACK,
    Fault,
    History,
    Loss,
    Operation,
    OutcomeEntry,
    Status,
    Violation,
)

ENDS = frozenset(
    {"Rejected", "HandlerFailed", "Cancelled", "Expired"}
    | {"Overloaded", "PayloadTooLarge", "RefusedByNats"}  # of what was sent before, and cancelled
)
"""Errors that tell of a stored outcome."""
ON_ITS_WAY_S = 1.0
"""An instance that stood still for a moment answers with what was stored before the loss; its caller hears it afterwards."""
NOT_RUN = frozenset({"expired", "cancelled"})
"""How a request that is still kept ends when it comes again behind its deadline."""


def check(history: History) -> list[Violation]:
    """Outcomes go, and accepted requests are never known again, by announced losses alone."""
    until_s = last_losses(history, of_journal=True)
    anew = {(entry.service, entry.op) for entry in history.outcomes}
    """Whoever stored it heard nothing of that, and stored it again; an answer that differs is another checker's."""
    found = [
        f"the outcome of {gone.op} (entry {gone.seq} of {gone.service}) is gone"
        for gone in history.gone
        if gone.stored_s > until_s(gone.service)
        and (gone.service, gone.op) not in anew
        and not was_put_back(history, gone.stored_s)
    ]
    until_s = last_losses(history, of_journal=False)
    found += [
        f"{op.op} was accepted by {op.service}, and is not known there"
        for op in history.operations
        if op.error == "NeverAccepted"
        and op.invoked_s > until_s(op.service)
        and not _is_put_back(history, op.invoked_s)  # its caller alone knew of it, and is told
    ]
    return [Violation("announced", f"{what}, and no loss of it was told", "G1") for what in found]


def without_announced(history: History) -> History:
    """The history whose clients don't know what was announced as lost, and have read nothing of it."""
    if not history.losses and all(fault.kind != PUT_BACK for fault in history.faults):
        return history
    history = replace(history, outcomes=_kept_outcomes(history))
    void = voided(history)
    executed = {entry.op for entry in history.outcomes if entry.executed}
    until_s = last_losses(history, of_journal=True)

    def unknown(operation: Operation) -> Operation:
        known = operation.completed_s is not None and operation.op not in executed
        end_s = max(until_s(operation.service), operation.completed_s or math.inf)
        return replace(
            operation,
            status=Status.UNKNOWN,
            result=None,
            error="",
            until_s=end_s if known else math.inf,
        )

    operations = [unknown(op) if op.op in void else op for op in history.operations]
    ended = void | {gone.op for gone in history.gone}
    until_s = last_losses(history, of_journal=False)
    ended |= {op.op for op in history.operations if op.invoked_s <= until_s(op.service)}
    accepted = [entry for entry in history.accepted if entry.op not in ended]
    return replace(history, operations=operations, looks=(), accepted=accepted)


def _kept_outcomes(history: History) -> list[OutcomeEntry]:
    """Without what a writer stored in an emptied journal before that was accepted.

    It did not know yet, and nobody who reads the log from there on knows it as an owner. In an older copy its readers do.
    """
    losses = [loss for loss in history.losses if loss.of_journal and loss.emptied]
    return [
        entry
        for entry in history.outcomes
        if not any(
            loss.service == entry.service
            and loss.last_seq < entry.seq
            and entry.stored_s < loss.accepted_s
            for loss in losses
        )
    ]


def voided(history: History) -> set[str]:
    """The operations whose answers came from outcomes that were lost, as was told."""
    until_s = last_losses(history, of_journal=True)
    stored = {entry.op for entry in history.outcomes}
    ran = {entry.op for entry in history.outcomes if entry.outcome not in NOT_RUN}
    gone = {entry.op for entry in history.gone}
    journals = [loss for loss in history.losses if loss.of_journal]
    last_seqs = {entry.op: entry.seq for entry in history.outcomes}
    results = {op.op: op.result for op in history.operations}
    told_as_stored = {e.op for e in history.outcomes if e.reply == results.get(e.op)}

    def ran_again(operation: Operation) -> bool:
        """It was answered before the log went on, and its outcome stands behind that."""
        sent_s = operation.completed_s or math.inf
        if operation.op not in told_as_stored:
            sent_s -= ON_ITS_WAY_S
        return any(
            sent_s < loss.accepted_s and last_seqs.get(operation.op, 0) > loss.last_seq > 0
            for loss in journals
            if loss.service == operation.service
        )

    def is_void(operation: Operation) -> bool:
        told = operation.status is Status.OK or operation.error in ENDS
        ended_s = operation.completed_s
        if told and ended_s is not None and _is_put_back(history, ended_s):
            # What is stored just before NATS ends may be known to its caller alone; of its cancel nobody is told.
            return operation.error == "Cancelled" or was_put_back(history, ended_s)
        there = ran if operation.status is Status.OK else stored
        lost = operation.op in gone or operation.op not in there or ran_again(operation)
        return told and lost and operation.invoked_s <= until_s(operation.service)

    return {operation.op for operation in history.operations if is_void(operation)}


def was_put_back(history: History, at_s: float) -> bool:
    """Whether all that was stored at that moment was replaced by an older copy, as was told of some stream.

    A request that nobody but its caller had seen by then goes without a word about its own stream.
    """
    put_back = [
        fault for fault in history.faults if fault.kind == PUT_BACK and _covers(fault, at_s)
    ]
    return any(fault.began_s < loss.accepted_s for fault in put_back for loss in history.losses)


def _is_put_back(history: History, at_s: float) -> bool:
    return any(fault.kind == PUT_BACK and _covers(fault, at_s) for fault in history.faults)


def _covers(fault: Fault, at_s: float) -> bool:
    return fault.began_s <= at_s <= fault.healed_s


def last_losses(history: History, *, of_journal: bool) -> Callable[[str], float]:
    """service: until when what was asked of it may be lost; -inf when nothing was."""
    last: dict[str, Loss] = {}
    for loss in sorted(history.losses, key=lambda loss: loss.accepted_s):
        if loss.of_journal is of_journal:
            last[loss.service] = loss
    return lambda service: last[service].accepted_s if service in last else float("-inf")
