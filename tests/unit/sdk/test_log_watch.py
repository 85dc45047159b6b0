"""The journal's watch: what commits that go on meanwhile store is not taken for another log."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aegis_sdk.application.ports import StoreUnreachable
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.infrastructure.log_watch import IDENTITY, LogWatch


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
            answer = {"message": {"subject": self.subjects[body["seq"] - 1]}}
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
