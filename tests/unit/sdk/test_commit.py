"""Storing an outcome until the answer is definite."""

from __future__ import annotations

import asyncio

import pytest
from aegis_sdk.application.commit import commit, give_up, note_attempt
from aegis_sdk.application.ports import FenceRefused, StoreFull
from aegis_sdk.contract.bodies import ErrorBody
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.testing import Fault, Faults, MemoryBus, Op

from tests.unit.sdk.support import SERVICE, WAIT_S, add_request, fence, kinds, settle, stored, until

EXECUTED = Outcome(OutcomeKind.EXECUTED, b"1", request_seq=5, epoch=1, traceparent="t")
REQUEST = add_request("c.1", fingerprint="f" * 16)


def _bus(**faults: float) -> MemoryBus:
    bus = MemoryBus(faults=Faults(**faults))  # type: ignore[arg-type]
    bus.provision(SERVICE)
    return bus


async def test_the_sequence_and_the_own_outcome_come_back() -> None:
    bus = _bus()
    seq = fence(bus, "i-1", 1)
    assert await commit(bus.link().journal, REQUEST, EXECUTED, fence_seq=seq) == (seq + 1, EXECUTED)


async def test_whoever_was_first_is_the_outcome() -> None:
    """G2: the one who comes later is given the stored one."""
    bus = _bus()
    first = Outcome.error(OutcomeKind.CANCELLED, "cancelled")
    await bus.link().journal.commit(REQUEST, first, fence_seq=None)
    assert await commit(bus.link().journal, REQUEST, EXECUTED, fence_seq=None) == (0, first)
    assert stored(bus, "c.1") == first


async def test_an_unknown_answer_is_asked_for_until_it_is_known() -> None:
    """G3: stored, but the answer was lost: the second try finds the first."""
    bus = _bus()
    bus.faults.once(Op.COMMIT, Fault.LOST_ANSWER)
    assert await commit(bus.link().journal, REQUEST, EXECUTED, fence_seq=None) == (0, EXECUTED)
    assert bus.journal(SERVICE).last_seq == 1


async def test_a_lost_commit_is_sent_again() -> None:
    bus = _bus()
    bus.faults.once(Op.COMMIT, Fault.LOST, times=2)
    bus.faults.once(Op.READ, Fault.LOST, times=2)
    assert await commit(bus.link().journal, REQUEST, EXECUTED, fence_seq=None) == (1, EXECUTED)


async def test_it_outlasts_an_outage_and_a_full_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = _bus()
    link = bus.link()
    store, refusals = link.journal.commit, 0

    async def refused(request: Request, outcome: Outcome, *, fence_seq: int | None) -> int:
        nonlocal refusals
        try:
            return await store(request, outcome, fence_seq=fence_seq)
        except StoreFull:
            refusals += 1
            raise

    monkeypatch.setattr(link.journal, "commit", refused)
    link.cut()
    bus.limits.journal_max = 0
    task = asyncio.create_task(commit(link.journal, REQUEST, EXECUTED, fence_seq=None))
    await settle()
    link.restore()
    await until(lambda: refusals >= 3)
    assert not task.done()
    bus.limits.journal_max = None
    async with asyncio.timeout(WAIT_S):
        assert await task == (1, EXECUTED)


async def test_a_newer_fence_ends_it() -> None:
    """G5: it is not tried again, since it can never be stored."""
    bus = _bus()
    old = fence(bus, "i-1", 1)
    fence(bus, "i-2", 2)
    with pytest.raises(FenceRefused):
        await commit(bus.link().journal, REQUEST, EXECUTED, fence_seq=old)
    assert stored(bus, "c.1") is None


async def test_an_outcome_over_the_bound_becomes_a_failure_in_its_place() -> None:
    """G2, G6: the failure says which request it ends, or a standby would not know that it is done."""
    bus = _bus()
    bus.limits.payload_bytes_max = 400
    large = Outcome(OutcomeKind.EXECUTED, b"1" * 600, b"c", 5, 1, "i-1", "f" * 16, "trace")
    await commit(bus.link().journal, REQUEST, large, fence_seq=None)
    outcome = stored(bus, "c.1")
    assert outcome is not None
    assert (outcome.kind, outcome.change) == (OutcomeKind.FAILED, b"")
    assert ErrorBody.model_validate_json(outcome.body).code == "outcome_too_large"
    assert (outcome.request_seq, outcome.epoch, outcome.instance_id) == (5, 1, "i-1")
    assert (outcome.fingerprint, outcome.traceparent) == ("f" * 16, "trace")


async def test_a_request_given_up_is_kept_with_its_reason() -> None:
    bus = _bus()
    bus.faults.once(Op.DEAD_LETTER, Fault.LOST_ANSWER)
    await give_up(bus.link().journal, REQUEST, 3, fence_seq=None, request_seq=5, epoch=2)
    assert kinds(bus) == {"c.1": OutcomeKind.FAILED}
    request, outcome = bus.dead_letters["c.1"]
    assert request == REQUEST
    assert (outcome.request_seq, outcome.epoch) == (5, 2)
    assert ErrorBody.model_validate_json(outcome.body).code == "gave_up"


async def test_an_attempt_is_noted_until_it_is_stored() -> None:
    bus = _bus()
    bus.faults.once(Op.ATTEMPT, Fault.LOST)
    bus.faults.once(Op.ATTEMPT, Fault.LOST_ANSWER)
    await note_attempt(bus.link().journal, REQUEST, 2, fence_seq=None)
    assert await bus.link().journal.attempts(REQUEST) == 2


async def test_a_newer_fence_refuses_an_attempt() -> None:
    """G5: an instance that was replaced begins nothing."""
    bus = _bus()
    old = fence(bus, "i-1", 1)
    fence(bus, "i-2", 2)
    with pytest.raises(FenceRefused):
        await note_attempt(bus.link().journal, REQUEST, 1, fence_seq=old)
