"""When each step of a failover happened, by what passes through NATS; all on this process's clock.

A watcher hears a message when the server sends it on, a fraction of a millisecond after its sender did.
Steps whose message names a time of its own (control's events) use that time.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import nats
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.subjects import LogSubjects
from nats.aio.msg import Msg

from bench.failover.fleet import SERVICE
from bench.failover.gap import Span, Window

Callback = Callable[[Msg], Awaitable[None]]

SUBJECTS: Final = Subjects()
STEPS: Final = {
    "the server reports the closed connection": "disconnect",
    "control decides": "begun",
    "the ownership entry is stored": "own",
    "the last gate is stored": "gate",
    "the last lease is written": "lease",
}
"""In the words of the report: the kind of message, of which the last (the first for `begun`) counts."""
PROMOTED: Final = "the standby has read the last gate"
REPLIED: Final = "the first reply of the new active"
OVER: Final = "the last waiting caller has its reply"
_FIRST_COUNTS: Final = frozenset({"begun"})


@dataclass(frozen=True, slots=True)
class Heard:
    """A message that passed: its kind, when, and whom it is about, if that is known."""

    kind: str
    at_s: float
    about: str = ""


class Trace:
    """What was heard since it was last taken."""

    def __init__(self) -> None:
        self._heard: list[Heard] = []

    def note(self, heard: Heard) -> None:
        self._heard.append(heard)

    def take(self) -> list[Heard]:
        heard, self._heard = self._heard, []
        return heard


def steps_s(
    heard: Sequence[Heard],
    window: Window,
    *,
    struck: str,
    promoted_s: float,
    waited: Sequence[Span],
) -> dict[str, float]:
    """Seconds from the strike to each step that was heard in the window. Pure.

    `struck` is the instance that went, `waited` are the calls that overlap the window.
    """
    found = {PROMOTED: promoted_s}
    for step, kind in STEPS.items():
        times = [
            each.at_s
            for each in heard
            if each.kind == kind and window.began_s <= each.at_s <= window.ended_s
            if kind != "disconnect" or f"/{struck}/" in each.about
        ]
        if times:
            found[step] = min(times) if kind in _FIRST_COUNTS else max(times)
    if after := [ended_s for _, ended_s in waited if ended_s > promoted_s]:
        found[REPLIED] = min(after)
    if before := [ended_s for began_s, ended_s in waited if began_s <= promoted_s]:
        found[OVER] = max(before)
    return {step: at_s - window.began_s for step, at_s in found.items()}


@asynccontextmanager
async def watching(url: str, system_url: str) -> AsyncIterator[Trace]:
    """Hear what a failover sends; without a system URL closed connections are not heard of."""
    trace = Trace()
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(await nats.connect(url.split(",")))
        for kind, subject in _subjects().items():
            await app.subscribe(subject, cb=_noting(trace, kind))
        await app.subscribe(SUBJECTS.event("failover_begun"), cb=_noting_event(trace))
        await app.flush()
        system = await stack.enter_async_context(await nats.connect(system_url.split(",")))
        await system.subscribe("$SYS.ACCOUNT.*.DISCONNECT", cb=_noting(trace, "disconnect"))
        await system.flush()
        yield trace


def _subjects() -> dict[str, str]:
    log = LogSubjects(SUBJECTS, SERVICE)
    return {
        "own": log.own_anywhere,
        "gate": log.gate("*"),
        "lease": f"$KV.{SUBJECTS.leases_bucket}.>",
    }


def _noting(trace: Trace, kind: str) -> Callback:
    async def note(message: Msg) -> None:
        what = ""
        if kind == "disconnect":
            what = str(json.loads(message.data).get("client", {}).get("name", ""))
        trace.note(Heard(kind, time.monotonic(), what))

    return note


def _noting_event(trace: Trace) -> Callback:
    async def note(message: Msg) -> None:
        emitted_s = float(json.loads(message.data)["time"])
        trace.note(Heard("begun", emitted_s - time.time() + time.monotonic()))

    return note
