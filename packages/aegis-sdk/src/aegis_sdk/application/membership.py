"""An instance's place in its service: registering, coming back, obeying control, leaving."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Final

from aegis_sdk.application.ports import Control
from aegis_sdk.contract.control import (
    Ack,
    Command,
    CommandKind,
    Leave,
    Registration,
    RegistrationReply,
    ResourceSeen,
)
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.errors import (
    AegisError,
    Evicted,
    InvalidName,
    LogLost,
    RegistrationRefused,
    SecondActive,
    Unavailable,
)
from aegis_sdk.telemetry import Waiting, log

ASK_TIMEOUT_S: Final = 5.0
RETURN_TRY_S: Final = 60.0
RETURN_WAIT_S: Final = 1.0
RESOURCES_A_S: Final = 500
"""Each is granted by two stored messages; a server that syncs each takes a thousand in a second."""
_REFUSED: Final[dict[str, type[AegisError]]] = {
    SecondActive.code: SecondActive,
    Evicted.code: Evicted,
    "invalid": InvalidName,
    LogLost.code: LogLost,
}
_ASK_AGAIN: Final = ("busy", LogLost.code)


class Membership:
    """Registers one instance and answers control's commands to it."""

    def __init__(self, control: Control, registration: Registration) -> None:
        self._control = control
        self._registration = registration
        self._again: asyncio.Task[None] | None = None
        self._left = False
        self.on_evicted: Callable[[str], None] = lambda reason: None
        self.on_drain: Callable[[str], None] = lambda reason: None
        self.on_returned: Callable[[RegistrationReply], None] = lambda reply: None

    async def register(self, *, wait_s: float) -> RegistrationReply:
        """Register, waiting up to `wait_s` for a control service that answers.

        Raises: SecondActive, Evicted, InvalidName, PayloadTooLarge, RegistrationRefused, Unavailable.
        """
        return await self._register(self._registration, time.monotonic() + wait_s)

    async def leave(self, reason: str, *, timeout_s: float) -> None:
        """Give the leases up for good; without control they move when the heartbeats are missed."""
        self._left = True
        self.stop()
        r = self._registration
        try:
            ack = await self._control.leave(
                Leave(
                    service=r.service,
                    instance_id=r.instance_id,
                    incarnation=r.incarnation,
                    reason=reason,
                ),
                timeout_s=timeout_s,
            )
        except Unavailable as error:
            log.warning("left_without_control", instance_id=r.instance_id, error=str(error))
            return
        if not ack.ok:
            log.warning("leave_refused", instance_id=r.instance_id, error=ack.message)

    def come_back(self) -> None:
        """Control doesn't know this instance any more: register again, with all roles `auto`.

        Not when it has left: a heartbeat that is slower than its leaving makes control ask for that.
        """
        if self._left:
            return
        if self._again is None or self._again.done():
            self._again = asyncio.create_task(self._come_back())

    async def return_when_allowed(
        self, **seen: str | int | Mapping[str, ResourceSeen]
    ) -> RegistrationReply:
        """Register again, however long control wants no instance of this service, or is away.

        `seen`: what this instance knows of the journal. Raises: Evicted.
        """
        self.stop()
        registration = self._registration.model_copy(update={"returning": True, **seen})
        while True:
            try:
                reply = await self._register(registration, time.monotonic() + RETURN_TRY_S)
                self._registration = self._registration.model_copy(update={"renews": ""})
                return reply
            except Evicted as error:
                self.on_evicted(str(error))
                raise
            except AegisError as error:
                log.debug("return_refused", error_code=error.code)
                await asyncio.sleep(RETURN_WAIT_S)

    def stand_back(self, resource: str) -> None:
        """Offer `resource` no more, in this run."""
        resources = dict(self._registration.resources)
        resources.pop(resource, None)
        self._registration = self._registration.model_copy(update={"resources": resources})
        self.come_back()

    def renew(self, incarnation: str) -> None:
        """From the next registration on it is another run of the instance, in the place of the one that was registered."""
        r = self._registration
        changes = {"incarnation": incarnation, "renews": r.renews or r.incarnation}
        self._registration = r.model_copy(update=changes)

    def stop(self) -> None:
        if self._again is not None:
            self._again.cancel()

    async def _come_back(self) -> None:
        registration = self._registration
        try:
            while True:
                again = registration.model_copy(update={"returning": True})
                reply = await self._register(again, time.monotonic() + 60.0)
                if registration is self._registration:
                    break
                registration = self._registration  # it offers less since
        except Evicted as error:
            self.on_evicted(str(error))
        except AegisError as error:
            log.warning(
                "return_refused", instance_id=registration.instance_id, error_code=error.code
            )
        else:
            log.info("registered_again", instance_id=registration.instance_id)
            self.on_returned(reply)

    async def _register(self, registration: Registration, give_up_s: float) -> RegistrationReply:
        waiting = Waiting(
            "waiting_for_control",
            service=registration.service,
            instance_id=registration.instance_id,
        )
        for n in itertools.count(1):
            wait_s = backoff_s(n, first_s=0.05, max_s=1.0)
            try:
                timeout_s = ASK_TIMEOUT_S + len(registration.resources) / RESOURCES_A_S
                reply = await self._control.register(registration, timeout_s=timeout_s)
            except Unavailable as error:
                if time.monotonic() >= give_up_s:
                    raise
                waiting.say(error=str(error))
            else:
                if reply.ok:
                    return reply
                if reply.code not in _ASK_AGAIN or time.monotonic() >= give_up_s:
                    raise _REFUSED.get(reply.code, RegistrationRefused)(reply.message)
                waiting.say(error=reply.message)
                wait_s = max(0.01, reply.retry_after_s)
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")


def obey(command: Command, *, membership: Membership, incarnation: str) -> Ack | None:
    """Carry out the commands that need no waiting; None for those about resources."""
    if command.incarnation not in ("", incarnation):
        return Ack(ok=False, message="meant for another run of this instance")
    match command.kind:
        case CommandKind.REGISTER:
            membership.come_back()
        case CommandKind.EVICT:
            membership.on_evicted(command.reason)
        case CommandKind.DRAIN:
            membership.on_drain(command.reason)
        case _:
            return None
    return Ack(ok=True)
