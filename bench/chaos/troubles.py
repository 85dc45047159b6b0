"""Troubles that the rules of writers and gates are for: anybody may bump a gate, give up, or be moved, at any moment.

Each goes on until it is healed: gates of random writers are bumped, resources change hands as an operator's word says, and
crowds of callers give up a moment after they ask. All of it is allowed, so nothing of it may be noticed but time.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any, Final

import aegis_sdk
import nats
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.errors import AegisError
from aegis_sdk.nats.codes import ROLLUP
from nats.aio.client import Client
from nats.errors import Error as NatsError

from bench.chaos.history import Gate, Pause
from bench.chaos.nemesis import Kind
from bench.chaos.workloads import WORKLOADS
from bench.chaos.workloads.api import Named, Workload

SUBJECTS = Subjects()
BUMP_S: Final = 0.02
MOVE_S: Final = 0.1
SEIZE_S: Final = 0.2
CANCEL_AGAIN_S: Final = 0.5
PAUSED_S: Final = 0.5
RESUMED_S: Final = 0.3
BEFORE_S: Final = 0.1
ASKED_MAX: Final = 10
CROWD: Final = 300
CROWD_TIMEOUT_S: Final = 0.02
CROWD_PAUSE_S: Final = 0.3


class Troubles:
    """Those that are under way, by their kinds."""

    def __init__(
        self, urls: Callable[[], Sequence[str]], workloads: Sequence[str], seed: int
    ) -> None:
        self._urls = urls
        self._workloads = [WORKLOADS[name] for name in workloads]
        self._source = Random(f"{seed}/troubles")
        self._tasks: dict[Kind, asyncio.Task[None]] = {}
        self.gates: list[Gate] = []
        """Those that were stored here."""
        self.pauses: list[Pause] = []
        """Those of which control said that nothing of it begins any more."""
        self._paused: tuple[str, str] | None = None
        """What may be paused just now."""
        self._asked = 0
        """By crowds: each request has a name of its own."""

    def begin(self, kind: Kind) -> str:
        """Its name."""
        makers: dict[Kind, Callable[[], Coroutine[Any, Any, None]]] = {
            Kind.BUMP_GATES: self._bump_gates,
            Kind.MOVE_OWNERSHIP: self._move_ownership,
            Kind.SEIZE: self._seize,
            Kind.GIVE_UP: self._give_up,
            Kind.PAUSE_TRAFFIC: self._pause_traffic,
        }
        self._tasks[kind] = asyncio.create_task(makers[kind]())
        return kind.value

    async def end(self, kind: Kind) -> None:
        """If it is one of ours, and under way."""
        task = self._tasks.pop(kind, None)
        while task is not None and not task.done():
            task.cancel()  # before Python 3.12 a wait of the NATS client can swallow it
            await asyncio.wait([task], timeout=CANCEL_AGAIN_S)

        if kind is Kind.PAUSE_TRAFFIC:
            async with _connected(self._urls()) as client:
                await self._resume(client)

    async def end_all(self) -> None:
        for kind in list(self._tasks):
            await self.end(kind)

    async def _bump_gates(self) -> None:
        """New gates of writers that there are."""
        async with _connected(self._urls()) as client:
            while True:
                with contextlib.suppress(NatsError, TimeoutError, KeyError):
                    names = LogSubjects(SUBJECTS, self._source.choice(self._workloads).service_name)
                    gates = await _subjects_of(client, names.stream, names.gate("*"))
                    await self._store_gates(client, gates)
                await asyncio.sleep(BUMP_S)

    async def _store_gates(self, client: Client, gates: Sequence[str]) -> None:
        """All on their way at once. Raises: NatsError, TimeoutError."""
        stream = client.jetstream(timeout=2.0)
        asked = (stream.publish(gate, b"", headers={ROLLUP: "sub"}) for gate in gates)
        stored = await asyncio.gather(*asked)
        self.gates += [
            Gate(
                service=SUBJECTS.service_of_stream(each.stream),
                writer=gate.rpartition(".")[2],
                seq=each.seq,
                stored_s=time.monotonic(),
            )
            for gate, each in zip(gates, stored, strict=True)
        ]

    async def _move_ownership(self) -> None:
        """Resources change hands while their turns are under way."""
        async with _connected(self._urls()) as client:
            while True:
                workload = self._source.choice(self._workloads)
                if workload.resources:
                    order = {
                        "resources": [self._source.choice(workload.resources)],
                        "service": workload.service_name,
                        "by": "chaos",
                    }
                    with contextlib.suppress(NatsError, TimeoutError):
                        subject = SUBJECTS.admin("failover")
                        await client.request(subject, json.dumps(order).encode(), timeout=2.0)
                await asyncio.sleep(MOVE_S)

    async def _seize(self) -> None:
        """The ownership entry and the gates that it needs come together, while turns are on their way."""
        async with _connected(self._urls()) as client:
            while True:
                workload = self._source.choice(self._workloads)
                if workload.resources:
                    names = LogSubjects(SUBJECTS, workload.service_name)
                    with contextlib.suppress(NatsError, TimeoutError, KeyError):
                        gates = await _subjects_of(client, names.stream, names.gate("*"))
                        entry = await _last_of(client, names.stream, names.own_anywhere)
                        number = int(entry["subject"].rsplit(".", 1)[1]) + 1
                        owner = self._source.choice(sorted(gates)).rsplit(".", 1)[1]
                        moves = json.loads(base64.b64decode(entry["data"]))
                        moves["to"] = {owner: [self._source.choice(workload.resources)]}
                        await client.publish(names.own(number), json.dumps(moves).encode())
                        await self._store_gates(client, gates)
                await asyncio.sleep(SEIZE_S)

    async def _pause_traffic(self) -> None:
        """One resource after the other, so that the others go on."""
        async with _connected(self._urls()) as client:
            while True:
                workload = self._source.choice(self._workloads)
                if workload.resources:
                    self._paused = workload.service_name, self._source.choice(workload.resources)
                    with contextlib.suppress(NatsError, TimeoutError, KeyError, TypeError):
                        await self._pause(client, *self._paused)
                    await self._resume(client)
                await asyncio.sleep(RESUMED_S)

    async def _pause(self, client: Client, service: str, resource: str) -> None:
        """Raises: NatsError, TimeoutError; KeyError, TypeError for an answer that says no."""
        began_s, stream = time.monotonic(), SUBJECTS.journal_stream(service)
        for _ in range(ASKED_MAX):
            done = await _asked(client, "pause", service, resource)
            if not (done["unconfirmed"] or done["asleep"] or done["running"]):
                break
        else:
            return  # what has begun may end
        await asyncio.sleep(BEFORE_S)  # outcomes that were on their way
        from_seq = await _end_of(client, stream)
        await asyncio.sleep(PAUSED_S)
        to_seq = await _end_of(client, stream)
        self.pauses.append(
            Pause(
                service=service,
                resource=resource,
                from_seq=from_seq,
                to_seq=to_seq,
                began_s=began_s,
            )
        )

    async def _resume(self, client: Client) -> None:
        """Until control says so."""
        while self._paused is not None:
            with contextlib.suppress(NatsError, TimeoutError, KeyError, TypeError):
                await _asked(client, "resume", *self._paused)
                self._paused = None
                return
            await asyncio.sleep(CANCEL_AGAIN_S)

    async def _give_up(self) -> None:
        """Crowds that ask for a value, and give up at the same moment."""
        async with aegis_sdk.connect(",".join(self._urls())) as aegis:
            while True:
                workload = self._source.choice(self._workloads)
                if workload.resources:
                    self._asked += CROWD
                    asking = (_ask(aegis, workload, self._asked + n) for n in range(CROWD))
                    await asyncio.gather(*asking)
                await asyncio.sleep(CROWD_PAUSE_S)


async def _ask(aegis: aegis_sdk.Aegis, workload: Workload, n: int) -> None:
    resource = workload.resources[n % len(workload.resources)]
    with contextlib.suppress(AegisError):
        await aegis.request(
            workload.read,
            Named(op=f"crowd-{n}"),
            resource=resource,
            timeout_s=CROWD_TIMEOUT_S,
        )


async def _asked(client: Client, verb: str, service: str, resource: str) -> dict[str, Any]:
    """Control's answer. Raises: NatsError, TimeoutError; KeyError, TypeError when it says no."""
    order = {"target": resource, "service": service, "by": "chaos", "reason": "to see"}
    message = await client.request(SUBJECTS.admin(verb), json.dumps(order).encode(), timeout=6.0)
    found: dict[str, Any] = json.loads(message.data)["data"]
    found["pause"]  # a refusal has none
    return found


async def _end_of(client: Client, stream: str) -> int:
    message = await client.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=2.0)
    return int(json.loads(message.data)["state"]["last_seq"])


async def _subjects_of(client: Client, stream: str, subject: str) -> list[str]:
    body = json.dumps({"subjects_filter": subject}).encode()
    message = await client.request(f"$JS.API.STREAM.INFO.{stream}", body, timeout=2.0)
    state = json.loads(message.data)["state"]
    return list(state.get("subjects") or {})


async def _last_of(client: Client, stream: str, subject: str) -> dict[str, Any]:
    body = json.dumps({"last_by_subj": subject}).encode()
    message = await client.request(f"$JS.API.STREAM.MSG.GET.{stream}", body, timeout=2.0)
    found: dict[str, Any] = json.loads(message.data)["message"]
    return found


@contextlib.asynccontextmanager
async def _connected(urls: Sequence[str]) -> Any:
    client = await nats.connect(
        list(urls), max_reconnect_attempts=-1, reconnect_time_wait=0.2, error_cb=_ignore
    )
    try:
        yield client
    finally:
        with contextlib.suppress(NatsError, OSError):
            await client.close()


async def _ignore(_: Exception) -> None:
    """The faults are ours."""
