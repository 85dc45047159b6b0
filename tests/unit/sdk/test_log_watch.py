"""The watch of a service's logs: what is not where it was is told, and what only went is not."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import pytest
from aegis_sdk.application.ports import Connected, StoreMissing, StoreUnreachable
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.infrastructure.log_watch import IDENTITY, PASSED_MAX, LogWatch

TIME = "2026-01-01T00:00:00Z"
TIME_S = 1767225600.0


class Logs:
    """A journal and a request stream after a new connection: what is there, by place."""

    def __init__(self) -> None:
        self.connected = Connected("s1")
        self.journal = {5: "out.a", 6: "out.b"}
        self.requests = {7: "c.1"}
        self.ends = {"JOURNAL": 9, "REQ": 9}
        self.first_request = 1

    def reconnect(self) -> None:
        """The connection ended, and there is another one."""
        self.connected.losses += 1
        self.connected.session = f"s{self.connected.losses + 1}"

    async def api(self, call: str, body: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        which = "JOURNAL" if "JOURNAL" in call else "REQ"
        if call.startswith("STREAM.INFO"):
            state = {"first_seq": self.first_request, "last_seq": self.ends[which]}
            return {"config": {"metadata": {IDENTITY: f"{which}-1"}}, "state": state}
        held = self.journal if which == "JOURNAL" else self.requests
        if body["seq"] not in held:
            raise StoreMissing("no message found")
        headers = f"NATS/1.0\r\nNats-Msg-Id: {held[body['seq']]}\r\n\r\n".encode()
        return {
            "message": {
                "subject": held[body["seq"]],
                "seq": body["seq"],
                "hdrs": base64.b64encode(headers).decode(),
                "time": TIME,
            }
        }


@pytest.fixture
def logs() -> Logs:
    return Logs()


def new_watch(logs: Logs) -> tuple[LogWatch, list[str]]:
    """It knows nothing yet; and what it tells."""
    link: Any = logs
    watch = LogWatch(link, Subjects(), "ledger", "JOURNAL-1", "REQ-1")
    lost: list[str] = []
    watch.on_lost = lost.append
    return watch, lost


def watching(logs: Logs) -> tuple[LogWatch, list[str]]:
    watch, lost = new_watch(logs)
    watch.on_lost = lambda reason: lost.append(f"journal: {reason}")
    watch.on_requests_lost = lambda reason: lost.append(f"requests: {reason}")
    watch.passed(6, "out.b", TIME_S, "out")
    watch.given(7, "c.1")
    logs.reconnect()
    return watch, lost


async def test_what_is_where_it_was_is_no_loss(logs: Logs) -> None:
    watch, lost = watching(logs)
    assert not watch.is_sure
    await watch.make_sure()
    assert watch.is_sure
    assert lost == []


@pytest.mark.parametrize(
    ("which", "at", "what", "told"),
    [
        ("journal", 6, "gate", "journal: at 6 is another gate than was read there"),
        ("requests", 7, "c.2", "requests: at 7 is c.2, and c.1 was stored there"),
        ("requests", 7, None, "requests: at 7 is nothing, and c.1 was stored there"),
    ],
)
async def test_another_thing_in_its_place_is_a_loss(
    logs: Logs, which: str, at: int, what: str | None, told: str
) -> None:
    """G3, G6: others have written on in an older copy, and it is as long as the log was."""
    held: dict[int, str] = getattr(logs, which)
    held.pop(at)
    if what is not None:
        held[at] = what
    watch, lost = watching(logs)
    with pytest.raises(StoreUnreachable):
        await watch.make_sure()
    assert lost == [told]
    assert watch.is_lost


async def test_who_asks_before_the_watch_is_told_of_the_connection_gets_the_same_answer(
    logs: Logs,
) -> None:
    """G3, G6: several are told of it, one after the other, and each may be held up."""
    watch, lost = new_watch(logs)
    watch.passed(10, "turn.a.1", TIME_S, "turn")
    logs.reconnect()
    with pytest.raises(StoreUnreachable):
        await watch.make_sure()
    assert lost == ["it ends at 9, and was read to 10"]


async def test_after_each_connection_it_is_not_sure_before_it_has_looked(logs: Logs) -> None:
    watch, _ = watching(logs)
    await watch.make_sure()
    assert watch.is_sure
    logs.reconnect()
    assert not watch.is_sure
    await watch.make_sure()
    assert watch.is_sure


async def test_a_request_that_is_done_and_forgotten_is_no_loss(logs: Logs) -> None:
    del logs.requests[7]
    logs.first_request = 8
    watch, lost = watching(logs)
    await watch.make_sure()
    assert lost == []


async def test_a_request_that_is_forgotten_just_now_is_no_loss(logs: Logs) -> None:
    """Between two questions to the server."""
    watch, lost = watching(logs)
    ask = logs.api

    async def then_forgotten(call: str, *more: Any, **most: Any) -> dict[str, Any]:
        answer = await ask(call, *more, **most)
        if "REQ" in call:
            logs.requests.clear()
            logs.first_request = 8
        return answer

    logs.api = then_forgotten  # type: ignore[method-assign]
    await watch.make_sure()
    assert lost == []


@pytest.mark.parametrize("kind", ["turn", "at"])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("there", "told"),
    [
        ({2: "turn.a.1", 8: "turn.b.2"}, ""),
        ({2: "turn.a.1"}, "at 8 is nothing, and turn.b.2 was stored there"),
        ({2: "turn.a.1", 3: "gate.A"}, "at 8 is nothing, and turn.b.2 was stored there"),
        ({}, ""),
        ({3: "gate.A"}, ""),
        ({3: "gate.B"}, "at 3 is another gate.B than was read there"),
    ],
)
async def test_a_turn_that_is_gone_is_lost_if_an_older_one_is_there(
    logs: Logs, there: dict[int, str], told: str, own: bool, kind: str
) -> None:
    """G1: an older copy was put back, and what was stored in the turn's place was replaced since. Singles likewise.

    The trim takes each kind from the oldest on; and nobody may have read this process' own last turn yet.
    """
    told = told.replace("turn", kind)
    logs.journal = {seq: subject.replace("turn", kind) for seq, subject in there.items()}
    watch, lost = new_watch(logs)
    watch.passed(2, f"{kind}.a.1", TIME_S, kind)
    for _ in range(PASSED_MAX):
        watch.passed(3, "gate.A", TIME_S, "gate")
    if own:
        watch.stored(8, f"{kind}.b.2", kind)
    else:
        watch.passed(8, f"{kind}.b.2", TIME_S, kind)
    logs.reconnect()
    with pytest.raises(StoreUnreachable) if told else contextlib.nullcontext():
        await watch.make_sure()
    assert lost == ([told] if told else [])


async def test_a_turn_that_was_trimmed_before_an_older_single_is_no_loss(logs: Logs) -> None:
    """The trim takes one kind after the other."""
    logs.journal = {2: "at.R.out.x"}
    watch, _ = new_watch(logs)
    watch.passed(2, "at.R.out.x", TIME_S, "at")
    watch.passed(3, "turn.a.1", TIME_S, "turn")
    logs.reconnect()
    await watch.make_sure()


@pytest.mark.parametrize("kind", ["claim", "any", "at", "turn"])
async def test_another_entry_in_the_place_of_an_own_one_is_a_loss(logs: Logs, kind: str) -> None:
    """G1: of whatever kind; others stored in an older copy before this one looked."""
    watch, _ = new_watch(logs)
    logs.journal = {8: "claim.other.1", 9: "claim.mine.2"}
    watch.stored(8, f"{kind}.mine.1", kind)
    logs.reconnect()
    with pytest.raises(StoreUnreachable):
        await watch.make_sure()


async def test_what_was_stored_by_a_connection_that_ended_unproved_must_be_there_too(
    logs: Logs,
) -> None:
    """G1: a turn waited to be sent, went to an older copy by the new connection, and was acknowledged there."""
    watch, lost = new_watch(logs)
    watch.passed(6, "out.b", TIME_S, "out")
    logs.reconnect()
    watch.stored(8, "turn.a.2", "turn")
    logs.reconnect()
    logs.journal |= {8: "gate.other", 9: "out.c"}
    watch.passed(9, "out.c", TIME_S, "out")  # what is there hides nothing of what was before
    with pytest.raises(StoreUnreachable):
        await watch.make_sure()
    assert lost == ["at 8 is another gate.other than was read there"]


@pytest.mark.parametrize("how", ["read", "stored", "given"])
async def test_what_comes_by_a_new_connection_hides_nothing_of_what_was_before_it(
    logs: Logs, how: str
) -> None:
    """G3, G6: it is there, of course; whether the log is the same is told by what was known before."""
    watch, lost = watching(logs)
    if how == "given":
        watch.given(9, "c.3")
        logs.requests = {7: "c.2", 9: "c.3"}
        told = "requests: at 7 is c.2, and c.1 was stored there"
    else:
        logs.journal = {6: "gate.other", 9: "out.c"}
        told = "journal: at 6 is another gate.other than was read there"
    if how == "read":
        watch.passed(9, "out.c", TIME_S, "out")
    if how == "stored":
        watch.stored(9, "out.c", "out")
    with pytest.raises(StoreUnreachable):
        await watch.make_sure()
    assert lost == [told]


async def test_a_look_that_outlives_its_connection_proves_nothing(logs: Logs) -> None:
    watch, lost = new_watch(logs)
    watch.passed(6, "out.b", TIME_S, "out")
    logs.reconnect()
    ask = logs.api

    async def and_lost(call: str, *more: Any, **most: Any) -> dict[str, Any]:
        answer = await ask(call, *more, **most)
        watch.passed(9, "out.c", TIME_S, "out")
        logs.reconnect()
        logs.api = ask  # type: ignore[method-assign]
        return answer

    logs.api = and_lost  # type: ignore[method-assign]
    await watch.make_sure()
    assert not watch.is_sure
    logs.journal = {6: "gate.other", 9: "out.c"}
    with pytest.raises(StoreUnreachable):
        await watch.make_sure()
    assert lost == ["at 6 is another gate.other than was read there"]


async def test_an_outcome_that_was_trimmed_is_no_loss(logs: Logs) -> None:
    del logs.journal[6]
    watch, lost = watching(logs)
    await watch.make_sure()
    assert lost == []


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ({8: "gate.A"}, ""),
        ({8: "gate.A", 4: "out.x"}, ""),
        ({}, ""),
        ({8: "out.c"}, "at 8 is another out.c than was read there"),
        ({4: "out.x"}, "at 4 is another out.x than was read there"),
        ({4: "state.A", 0: "end"}, "it ends at 7, and was read to 8"),
    ],
)
async def test_what_was_read_last_is_where_it_was_whatever_its_kind(
    logs: Logs, there: dict[int, str], told: str
) -> None:
    """G6: who goes on reading behind a gate at 8 would never read an outcome that others wrote there in an older copy."""
    logs.journal.update(there)
    logs.ends["JOURNAL"] = 7 if 0 in there else 9
    watch, lost = new_watch(logs)
    watch.passed(4, "state.A", TIME_S, "state")
    watch.passed(8, "gate.A", TIME_S, "gate")
    logs.reconnect()
    with pytest.raises(StoreUnreachable) if told else contextlib.nullcontext():
        await watch.make_sure()
    assert lost == ([told] if told else [])


async def test_the_same_subject_at_the_same_place_counts_only_from_the_same_moment(
    logs: Logs,
) -> None:
    """G6: an older copy has its own gate there."""
    logs.journal[8] = "gate.A"
    watch, _ = new_watch(logs)
    watch.passed(8, "gate.A", TIME_S - 2, "gate")
    logs.reconnect()
    with pytest.raises(StoreUnreachable, match=r"at 8 is another gate\.A"):
        await watch.make_sure()
