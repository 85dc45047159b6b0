"""The control service as an instance reaches it: requests on core NATS, commands on its own subject.

All of it may be lost and may be done twice, so nothing here may depend on being done once. A registration without an answer
may have been taken; the instance registers again, and of two offers the later one counts (docs/protocol.md, Resources that
come and go). A command may come again, too, since control may not have heard that it was obeyed.

An answer that can't be read is of another version, and never taken for a "yes".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from pydantic import ValidationError

from aegis_sdk.application.ports import StoreError, StoreMissing
from aegis_sdk.contract.control import (
    Ack,
    Command,
    Leave,
    Registration,
    RegistrationReply,
    ResourcesChange,
)
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.values import field_errors
from aegis_sdk.errors import PayloadTooLarge, Unavailable
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.wire import Message
from aegis_sdk.telemetry import log

RECORD_BYTES: Final = 4096
"""What control adds to a registration when it stores it, headers included, and more."""
R = TypeVar("R", RegistrationReply, Ack)


class NatsControl:
    """Control (application/ports.py), of one instance. Which replica of control answers, and that there are several, is not
    seen.
    """

    def __init__(self, link: Link, subjects: Subjects) -> None:
        self._link = link
        self._subjects = subjects

    async def register(self, registration: Registration, *, timeout_s: float) -> RegistrationReply:
        data = self._encoded(registration)
        return _read(RegistrationReply, await self._ask(self._subjects.register, data, timeout_s))

    async def change(
        self, change: ResourcesChange, registration: Registration, *, timeout_s: float
    ) -> RegistrationReply:
        self._encoded(registration)
        data = change.model_dump_json().encode()
        return _read(RegistrationReply, await self._ask(self._subjects.resources, data, timeout_s))

    def _encoded(self, registration: Registration) -> bytes:
        """A change is checked by the whole registration that it leads to: that is what control stores. Raises:
        PayloadTooLarge.
        """
        data = registration.model_dump_json().encode()
        self._check_size(data, len(registration.resources))
        return data

    def _check_size(self, data: bytes, resources: int) -> None:
        """Control stores what an instance offers as one record. Raises: PayloadTooLarge."""
        limit = self._link.payload_bytes_max - RECORD_BYTES
        if len(data) > limit:
            fit = max(1, resources * limit // len(data))
            raise PayloadTooLarge(
                f"a registration of {resources} resources has {len(data)} bytes, and the server's max_payload"
                f" leaves {limit}: offer at most about {fit} by each instance, or raise max_payload"
            )

    async def leave(self, leave: Leave, *, timeout_s: float) -> Ack:
        data = await self._ask(self._subjects.leave, leave.model_dump_json().encode(), timeout_s)
        return _read(Ack, data)

    async def listen(
        self, instance_id: str, on_command: Callable[[Command], Awaitable[Ack]]
    ) -> None:
        """Answer control's commands to this instance, for as long as the link lives. Raises: StoreUnreachable.

        Each is obeyed in a task of its own, since a drain takes seconds: so a later command may overtake it. One that this
        version does not know is refused with a word, so that control need not wait for its timeout.
        """

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
        except StoreMissing as error:
            raise Unavailable(
                f"no control service answers ({error}): start one with `aegis-control serve`"
            ) from error
        except StoreError as error:
            raise Unavailable(f"control did not answer on {subject}: {error}") from error


def _read(kind: type[R], data: bytes) -> R:
    """Raises: Unavailable."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise Unavailable(
            f"control's answer can't be read ({'; '.join(field_errors(error))}): it is of another version"
        ) from error
