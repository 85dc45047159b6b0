"""An instance in the second form that is a member of its service: control knows it, and says what it is to serve.

It registers and sends heartbeats as an instance of the first form does. What it owns it reads in the log, so control tells
it nothing about that. For the second form's tests and the bench so far.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from aegis_sdk.application.membership import Membership, obey
from aegis_sdk.contract.control import (
    Ack,
    Command,
    CommandKind,
    Heartbeat,
    Registration,
    RegistrationReply,
    Role,
)
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.infrastructure.control_client import NatsControl
from aegis_sdk.infrastructure.pulse import Pulse
from aegis_sdk.infrastructure.turns.assembly import TurnClient, TurnInstance
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server
from aegis_sdk.service import Service

CONTROL_WAIT_S: Final = 30.0
PAUSE_TIMEOUT_S: Final = 1.0
LEAVE_TIMEOUT_S: Final = 5.0


class TurnMember:
    """`on_moved` is told what it serves from now on, and what no longer; `on_ended`, why it must not go on."""

    def __init__(
        self,
        link: Link,
        server: Server,
        subjects: Subjects,
        service: Service,
        *,
        instance_id: str,
        resources: Mapping[str, Role],
        on_moved: Callable[[list[str], list[str]], None] = lambda serving, left: None,
        on_ended: Callable[[str], None] = lambda why: None,
    ) -> None:
        incarnation = secrets.token_hex(4)
        self._link = link
        self._server = server
        self._subjects = subjects
        self._service = service
        self._on_moved = on_moved
        self._on_ended = on_ended
        self._client = TurnClient(link, subjects)
        self.instance: TurnInstance
        """Made when control has said which log it reads."""
        self._control = NatsControl(link, subjects)
        self._registration = Registration(
            service=service.name,
            instance_id=instance_id,
            incarnation=incarnation,
            host=socket.gethostname(),
            pid=os.getpid(),
            methods=service.specs(),
            resources=dict(resources),
        )
        self._membership = Membership(self._control, self._registration)
        self._membership.on_evicted = on_ended
        self._membership.on_drain = self._drain
        self._draining: asyncio.Task[None] | None = None
        self._pulse: Pulse | None = None

    @classmethod
    async def start(
        cls, server: Server, subjects: Subjects, service: Service, *, instance_id: str, **more: Any
    ) -> TurnMember:
        """Returns when it has read the log; what it owns it may serve already."""
        name = subjects.client_name(service.name, instance_id, "main")
        link = await Link.open(server, name=name)
        member = cls(link, server, subjects, service, instance_id=instance_id, **more)
        await member._start()
        return member

    async def _start(self) -> None:
        await self._control.listen(self._registration.instance_id, self._on_command)
        reply = await self._membership.register(wait_s=CONTROL_WAIT_S)
        self.instance = self._make_instance(reply)
        self._pulse = Pulse(
            self._server,
            self._subjects,
            name=self._connection_name,
            interval_s=reply.heartbeat_interval_s,
            gather=self._heartbeat,
            on_lag=lambda late_s: None,
        )
        self._pulse.start()
        await self._client.start()
        await self.instance.start()

    def _make_instance(self, reply: RegistrationReply) -> TurnInstance:
        r = self._registration
        made = TurnInstance(
            self._link,
            self._subjects,
            self._service,
            instance_id=r.instance_id,
            incarnation=r.incarnation,
            resources=r.resources,
            asks=self._client.requester,
            outcomes_kept_s=reply.outcome_ttl_s,
            log_id=reply.journal_id,
            on_stopped=self._on_ended,
        )
        made.host.on_moved = self._on_moved
        return made

    async def leave(self) -> None:
        """Finish what has begun, hand everything over, end."""
        await self._leave("left")

    async def stop(self) -> None:
        self._membership.stop()
        if self._pulse is not None:
            await self._pulse.stop()
        await self.instance.stop()
        await self._client.close()
        await self._link.close()

    def _drain(self, reason: str) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self._leave(reason))

    async def _leave(self, reason: str) -> None:
        host = self.instance.host
        await host.pause(list(host.serving), lease_s=LEAVE_TIMEOUT_S)
        await self._membership.leave(reason, timeout_s=LEAVE_TIMEOUT_S)
        await self.stop()
        self._on_ended(reason)

    async def _on_command(self, command: Command) -> Ack:
        done = obey(
            command, membership=self._membership, incarnation=self._registration.incarnation
        )
        if done is not None:
            return done
        host = self.instance.host
        if command.kind is CommandKind.PAUSE:
            try:
                async with asyncio.timeout(PAUSE_TIMEOUT_S):
                    await host.pause(command.resources, lease_s=command.lease_s)
            except TimeoutError:
                return Ack(ok=False, message="a request is still running")
        elif command.kind is CommandKind.RESUME:
            host.resume(command.resources)
        elif command.kind is CommandKind.HALT:
            self._on_ended(command.reason)
        return Ack(ok=True)

    def _connection_name(self, kind: str) -> str:
        r = self._registration
        return self._subjects.client_name(r.service, r.instance_id, kind)

    def _heartbeat(self, n: int, loop_lag_s: float) -> Heartbeat:
        """From another thread: it only reads numbers."""
        r, host = self._registration, self.instance.host
        active = len(host.serving)
        return Heartbeat(
            service=r.service,
            instance_id=r.instance_id,
            incarnation=r.incarnation,
            session=self._link.connected.session,
            n=n,
            loop_lag_s=round(loop_lag_s, 4),
            journal_id=self.instance.log_id,
            journal_seq=self.instance.position,
            requests_done=host.requests_done,
            lag_entries=self.instance.lag_entries,
            active=active,
            standby=len(r.resources) - active,
            paused=len(host.paused),
            draining=self._draining is not None,
            wall_s=time.time(),
        )
