"""The journal's watch: what commits that go on meanwhile store is not taken for another log."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
from aegis_sdk.application.ports import StoreMissing, StoreUnreachable
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.infrastructure.log_watch import IDENTITY, LogWatch

TIME = "2026-01-01T00:00:00Z"
TIME_S = 1767225600.0


class Server:
    """One journal. While it is asked, something more may be stored in it."""

    def __init__(self) -> None:
        self.connected = SimpleNamespace(session="s1")
        self.subjects: list[str] = []
        self.meanwhile: list[str] = []
        self.watch: LogWatch | None = None

    def store(self, subject: str) -> None:
        assert self.watch is not None
        self.subjects.append(subject)
        self.watch.stored(len(self.subjects), subject)

    async def api(self, call: str, body: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        if call.startswith("STREAM.INFO"):
            state = {"last_seq": len(self.subjects)}
            answer = {"config": {"metadata": {IDENTITY: "log-1"}}, "state": state}
        else:
            subject = self.subjects[body["seq"] - 1]
            answer = {"message": {"subject": subject, "seq": body["seq"], "time": TIME}}
        if self.meanwhile:
            self.store(self.meanwhile.pop())
        await asyncio.sleep(0)
        return answer


@pytest.fixture
def server() -> Server:
    made = Server()
    link: Any = made
    made.watch = LogWatch(link, Subjects(), "ledger", "log-1")
    made.store("a")
    return made


async def test_commits_that_go_on_while_the_log_is_looked_at_are_no_loss(server: Server) -> None:
    """G8: after a reconnect several commits look at once, and the first goes on before the last has its answers."""
    watch = server.watch
    assert watch is not None
    lost: list[str] = []
    watch.on_lost = lost.append
    server.meanwhile = ["c", "b"]
    await watch.make_sure()
    assert lost == []
    assert watch.is_sure


async def test_another_message_where_one_was_stored_is_a_loss(server: Server) -> None:
    """G6: it is told before the next commit."""
    watch = server.watch
    assert watch is not None
    server.subjects = ["x"]
    with pytest.raises(StoreUnreachable, match="at 1 is x, and a was stored there"):
        await watch.make_sure()


class Logs:
    """A journal and a request stream after a new connection: what is there, by place."""

    def __init__(self) -> None:
        self.connected = SimpleNamespace(session="s1")
        self.journal = {5: "out.a", 6: "out.b"}
        self.requests = {7: "c.1"}
        self.ends = {"JOURNAL": 9, "REQ": 9}

    async def api(self, call: str, body: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        which = "JOURNAL" if "JOURNAL" in call else "REQ"
        if call.startswith("STREAM.INFO"):
            state = {"first_seq": 1, "last_seq": self.ends[which]}
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


def watching(logs: Logs, *, kept_s: float = 60.0) -> tuple[LogWatch, list[str]]:
    link: Any = logs
    watch = LogWatch(link, Subjects(), "ledger", "JOURNAL-1", "REQ-1", kept_s=kept_s)
    lost: list[str] = []
    watch.on_lost = lambda reason: lost.append(f"journal: {reason}")
    watch.on_requests_lost = lambda reason: lost.append(f"requests: {reason}")
    watch.stored(5, "out.a")
    watch.read(6, "out.b")
    watch.given(7, "c.1")
    watch.reconnected()
    logs.connected.session = "s2"
    watch.read(9, "out.c")  # by the new connection, of whatever log
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
        ("journal", 5, "fence", "journal: at 5 is fence, and out.a was stored there"),
        ("journal", 6, None, "journal: at 6 is nothing, and out.b was stored there"),
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


async def test_an_outcome_that_may_be_trimmed_by_now_is_no_loss(logs: Logs) -> None:
    del logs.journal[5], logs.journal[6]
    watch, lost = watching(logs, kept_s=0.0)
    await watch.make_sure()
    assert lost == []


@pytest.mark.parametrize(("seq", "is_lost"), [(9, False), (8, True)])
async def test_what_is_new_comes_behind_all_that_was(logs: Logs, seq: int, is_lost: bool) -> None:
    """G5: a fence that is claimed in front of what was read would never be read."""
    watch, lost = watching(logs)
    watch.passed(8, "fence", TIME_S)
    watch.reconnected()
    watch.placed(seq)
    assert bool(lost) is is_lost


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ({8: "fence.A"}, ""),
        ({8: "fence.A", 4: "out.x"}, ""),
        ({}, ""),
        ({8: "out.c"}, "at 8 is another out.c than was read there"),
        ({4: "out.x"}, "at 4 is another out.x than was read there"),
        ({4: "state.A", 0: "end"}, "it ends at 7, and was read to 8"),
    ],
)
async def test_what_was_read_last_is_where_it_was_whatever_its_kind(
    logs: Logs, there: dict[int, str], told: str
) -> None:
    """G6: who goes on reading behind a fence at 8 would never read an outcome that others wrote there in an older copy."""
    logs.journal.update(there)
    logs.ends["JOURNAL"] = 7 if 0 in there else 9
    link: Any = logs
    watch = LogWatch(link, Subjects(), "ledger", "JOURNAL-1", "REQ-1")
    lost: list[str] = []
    watch.on_lost = lost.append
    watch.passed(4, "state.A", TIME_S)
    watch.passed(8, "fence.A", TIME_S)
    watch.reconnected()
    with pytest.raises(StoreUnreachable) if told else contextlib.nullcontext():
        await watch.make_sure()
    assert lost == ([told] if told else [])


async def test_the_same_subject_at_the_same_place_counts_only_from_the_same_moment(
    logs: Logs,
) -> None:
    """G6: an older copy has its own fence there."""
    logs.journal[8] = "fence.A"
    link: Any = logs
    watch = LogWatch(link, Subjects(), "ledger", "JOURNAL-1", "REQ-1")
    watch.passed(8, "fence.A", TIME_S - 2)
    watch.reconnected()
    with pytest.raises(StoreUnreachable, match=r"at 8 is another fence\.A"):
        await watch.make_sure()
