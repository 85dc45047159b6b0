"""A control replica in this process, and instances that do what the protocol asks and no more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import nats
from aegis_control.bootstrap import Control
from aegis_control.settings import Settings, load
from aegis_sdk.contract.control import (
    Ack,
    AdminReply,
    Command,
    Heartbeat,
    LeaseRecord,
    LeaseState,
    Leave,
    MethodSpec,
    Registration,
    RegistrationReply,
    Role,
)
from aegis_sdk.contract.names import session_name
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.entries import Moves
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.contract.turns.writers import run_of
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

SERVICE = "accounts"
DEADLINE_S = 15.0


async def until(
    condition: Callable[[], Awaitable[bool]], what: str, *, deadline_s: float = DEADLINE_S
) -> None:
    """Look again and again until `condition` holds. Raises: AssertionError past the deadline."""
    try:
        async with asyncio.timeout(deadline_s):
            while not await condition():  # noqa: ASYNC110 - the broker has no event for it
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {deadline_s} s") from None


def settings(url: str, prefix: str, **changes: Any) -> Settings:
    """Unless a test is about spreading, the first instance is the active of all its resources."""
    given = {"url": url, "prefix": prefix, "http_port": 0, "spread": False}
    return load(given | changes).settings


@contextlib.asynccontextmanager
async def control(url: str, prefix: str, **changes: Any) -> AsyncIterator[Control]:
    """A replica that serves (not necessarily leads); stopped cleanly at the end."""
    replica = Control(settings(url, prefix, **changes))
    running = asyncio.create_task(replica.run())
    started = asyncio.create_task(replica.started.wait())
    await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if running.done():
            running.result()
        yield replica
    finally:
        started.cancel()
        replica.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await running


class Broker:
    """What a test sees of the buckets and journals under one prefix."""

    def __init__(self, client: Client, prefix: str) -> None:
        self.client = client
        self.subjects = Subjects(prefix)

    async def ask(self, subject: str, data: bytes, timeout_s: float = 10.0) -> bytes:
        """A request that waits for somebody to listen."""
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    return (await self.client.request(subject, data, timeout=timeout_s)).data
                except NoRespondersError:
                    await asyncio.sleep(0.02)

    async def admin(self, verb: str, **argument: Any) -> AdminReply:
        data = await self.ask(self.subjects.admin(verb), json.dumps(argument).encode())
        return AdminReply.model_validate_json(data)

    async def api(self, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = json.dumps(body).encode() if body is not None else b""
        message = await self.client.request(f"$JS.API.{name}", data, timeout=5.0)
        answer: dict[str, Any] = json.loads(message.data)
        return answer

    async def last(self, stream: str, subject: str) -> bytes | None:
        try:
            found = await self.client.jetstream().get_last_msg(stream, subject)
        except nats.js.errors.NotFoundError:
            return None
        return found.data or b""

    async def lease(self, resource: str = "R1") -> LeaseRecord | None:
        bucket = self.subjects.leases_bucket
        key = self.subjects.lease_key(SERVICE, resource)
        data = await self.last(f"KV_{bucket}", f"$KV.{bucket}.{key}")
        return LeaseRecord.model_validate_json(data) if data else None

    async def told(self, resource: str = "R1") -> tuple[str, str] | None:
        """The owner and its run, as the ownership entry has them that the lease names; empty for nobody."""
        lease, names = await self.lease(resource), LogSubjects(self.subjects, SERVICE)
        data = await self.last(names.stream, names.own(lease.epoch)) if lease else None
        return None if data is None else run_of(Moves.decode(data).moves[resource])

    async def owner(self, resource: str = "R1") -> str:
        """`b 2 held`, when the log and the lease agree; else what differs."""
        lease, told = await self.lease(resource), await self.told(resource)
        if lease is None or told is None:
            return "nobody"
        words = f"{lease.owner} {lease.epoch} {lease.state.value}"
        owner = "" if lease.state is LeaseState.VACANT else lease.owner
        return words if told[0] == owner else f"{words}, the log says {told[0]}"

    async def until_owner(self, expected: str, resource: str = "R1") -> None:
        async def reached() -> bool:
            return await self.owner(resource) == expected

        await until(reached, f"{resource} owned as {expected}")


class Instance:
    """An instance without handlers: two connections, heartbeats, commands that it acknowledges."""

    def __init__(self, url: str, prefix: str, name: str) -> None:
        self.name = name
        self.incarnation = secrets.token_hex(4)
        self.commands: list[Command] = []
        self._url = url
        self._subjects = Subjects(prefix)
        self._main: Client | None = None
        self._pulse: Client | None = None
        self._beating: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        self._main, self._pulse = [
            await nats.connect(
                self._url.split(","),
                name=self._subjects.client_name(SERVICE, self.name, kind),
                reconnect_time_wait=0.1,
                max_reconnect_attempts=-1,
            )
            for kind in ("main", "pulse")
        ]
        await self.main.subscribe(self._subjects.command(self.name), cb=self._on_command)

    @property
    def main(self) -> Client:
        assert self._main is not None
        return self._main

    async def register(
        self,
        role: Role = Role.AUTO,
        resources: Sequence[str] = ("R1",),
        *,
        returning: bool = False,
    ) -> RegistrationReply:
        registration = Registration(
            service=SERVICE,
            instance_id=self.name,
            incarnation=self.incarnation,
            methods=[MethodSpec(name="book", targeted=True)],
            resources=dict.fromkeys(resources, role),
            returning=returning,
        )
        broker = Broker(self.main, self._subjects.prefix)
        data = await broker.ask(self._subjects.register, registration.model_dump_json().encode())
        reply = RegistrationReply.model_validate_json(data)
        if reply.ok:
            self.resume()
        return reply

    async def leave(self) -> Ack:
        leave = Leave(service=SERVICE, instance_id=self.name, incarnation=self.incarnation)
        message = await self.main.request(
            self._subjects.leave, leave.model_dump_json().encode(), timeout=5.0
        )
        return Ack.model_validate_json(message.data)

    def resume(self) -> None:
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat())

    def fall_silent(self) -> None:
        """No more heartbeats, as from a process that is paused."""
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None

    async def close(self) -> None:
        """Both connections go, as those of a killed process."""
        self.fall_silent()
        for client in (self._main, self._pulse):
            if client is not None:
                await client.close()

    async def _beat(self) -> None:
        assert self._pulse is not None
        n = 0
        while True:
            n += 1
            beat = Heartbeat(
                service=SERVICE,
                instance_id=self.name,
                incarnation=self.incarnation,
                session=_session(self.main),
                pulse=_session(self._pulse),
                n=n,
                loop_lag_s=0.0,
            )
            with contextlib.suppress(nats.errors.Error):
                subject = self._subjects.heartbeat(SERVICE, self.name)
                await self._pulse.publish(subject, beat.model_dump_json().encode())
            await asyncio.sleep(0.1)

    async def _on_command(self, message: Msg) -> None:
        self.commands.append(Command.model_validate_json(message.data))
        if message.reply:
            await message.respond(Ack(ok=True).model_dump_json().encode())


def _session(client: Client) -> str:
    return session_name(str(client._server_info["server_id"]), int(client.client_id or 0))
