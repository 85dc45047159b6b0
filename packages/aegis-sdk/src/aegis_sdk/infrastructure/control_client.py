"""The control service as an instance reaches it: requests on core NATS, commands on its own subject."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import ValidationError

from aegis_sdk.application.ports import StoreError
from aegis_sdk.contract.control import Ack, Command, Leave, Registration, RegistrationReply
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.values import field_errors
from aegis_sdk.errors import Unavailable
from aegis_sdk.infrastructure.link import Link
from aegis_sdk.infrastructure.wire import Message
from aegis_sdk.telemetry import log

R = TypeVar("R", RegistrationReply, Ack)


class NatsControl:
    """Control (application/ports.py)."""

    def __init__(self, link: Link, subjects: Subjects) -> None:
        self._link = link
        self._subjects = subjects

    @property
    def session(self) -> str:
        return self._link.connected.session

    async def register(self, registration: Registration, *, timeout_s: float) -> RegistrationReply:
        data = await self._ask(
            self._subjects.register, registration.model_dump_json().encode(), timeout_s
        )
        return _read(RegistrationReply, data)

    async def leave(self, leave: Leave, *, timeout_s: float) -> Ack:
        data = await self._ask(self._subjects.leave, leave.model_dump_json().encode(), timeout_s)
        return _read(Ack, data)

    async def listen(
        self, instance_id: str, on_command: Callable[[Command], Awaitable[Ack]]
    ) -> None:
        """Answer control's commands to this instance."""

        async def obey(message: Message) -> None:
            try:
                ack = await on_command(Command.model_validate_json(message.data))
            except ValidationError as error:
                log.warning("command_unreadable", error=str(error))
                ack = Ack(ok=False, message=str(error))
            if message.reply:
                self._link.publish(message.reply, ack.model_dump_json().encode())

        def receive(message: Message) -> None:
            self._link.aside(obey(message))

        await self._link.subscribe(self._subjects.command(instance_id), receive)

    async def _ask(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        try:
            return await self._link.request(subject, payload, timeout_s=timeout_s)
        except StoreError as error:
            raise Unavailable(
                f"no control service answers ({error}): start one with `aegis-control serve`"
            ) from error


def _read(kind: type[R], data: bytes) -> R:
    """Raises: Unavailable."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise Unavailable(
            f"control's answer can't be read ({'; '.join(field_errors(error))}): it is of another version"
        ) from error
