"""An instance's place in its service: registering, coming back, changing what it offers, obeying control, leaving.

What it offers has a number, its *offer*, that rises with each change. Its heartbeats say it, and control's record of the
instance has it. A change takes effect when control has answered. One without an answer may have been carried out
or not: it is given up by a newer offer, without it. Control then finds that its record is older than the heartbeats,
and asks the instance to register again, which tells all that it offers.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Final

from aegis_sdk.application.ports import Control
from aegis_sdk.contract.control import (
    NOT_REGISTERED,
    PROTOCOL,
    PROTOCOL_MIN,
    Ack,
    Command,
    CommandKind,
    Leave,
    Registration,
    RegistrationReply,
    ResourcesChange,
    ResourceSeen,
    Role,
)
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.errors import (
    AegisError,
    Draining,
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
    Draining.code: Draining,
}
_ASK_AGAIN: Final = ("busy", LogLost.code)
_CHANGE_AGAIN: Final = ("busy", NOT_REGISTERED)
"""A change does not wait for an operator."""


class Membership:
    """Registers one instance and answers control's commands to it."""

    def __init__(self, control: Control, registration: Registration) -> None:
        self._control = control
        self._registration = registration
        self._again: asyncio.Task[None] | None = None
        self._left = False
        self._asking = asyncio.Lock()
        """Registrations and changes go to control one after the other, each with what is so then."""
        self.on_evicted: Callable[[str], None] = lambda reason: None
        self.on_drain: Callable[[str], None] = lambda reason: None
        self.on_returned: Callable[[RegistrationReply], None] = lambda reply: None

    async def register(self, *, wait_s: float) -> RegistrationReply:
        """Register, waiting up to `wait_s` for a control service that answers.

        Raises: SecondActive, Evicted, InvalidName, PayloadTooLarge, RegistrationRefused, Unavailable.
        """
        return await self._register(time.monotonic() + wait_s)

    @property
    def resources(self) -> Mapping[str, Role]:
        """What it offers."""
        return self._registration.resources

    @property
    def registration(self) -> Registration:
        """With what it is registered, as far as control has answered."""
        return self._registration

    async def change(
        self,
        *,
        add: Mapping[str, Role],
        remove: Collection[str],
        wait_s: float,
        rests: bool = False,
    ) -> RegistrationReply:
        """Offer more, or less, waiting up to `wait_s` for control. What it raises leaves the offer as it was.
        `rests`: what is removed was idle.

        Raises: SecondActive, Evicted, Draining, InvalidName, PayloadTooLarge, LogLost, RegistrationRefused, Unavailable.
        """
        async with self._asking:
            before = self._registration
            after = _changed(before, add=add, remove=remove, by=1)
            try:
                reply = await self._until_answered(
                    lambda: self._try_to_change(before, after, add, remove, rests=rests),
                    time.monotonic() + wait_s,
                    again=_CHANGE_AGAIN,
                )
            except BaseException:  # an earlier try may have been carried out, without an answer
                self._registration = _changed(self._registration, by=2)
                raise
            if self._registration is before:
                self._registration = after
            else:  # it stood back from one meanwhile
                self._registration = _changed(self._registration, add=add, remove=remove, by=2)
            return reply

    async def _try_to_change(
        self,
        before: Registration,
        after: Registration,
        add: Mapping[str, Role],
        remove: Collection[str],
        *,
        rests: bool,
    ) -> RegistrationReply:
        if self._left:
            raise Draining(f"instance {after.instance_id} has left: add it to another one")
        change = ResourcesChange(
            service=after.service,
            instance_id=after.instance_id,
            incarnation=after.incarnation,
            offer=after.offer,
            add=dict(add),
            remove=list(remove),
            rests=rests,
        )
        timeout_s = _timeout_s(len(add) + len(remove))
        reply = await self._control.change(change, after, timeout_s=timeout_s)
        if reply.code == NOT_REGISTERED and not self._left:
            returning = before.model_copy(update={"returning": True})
            timeout_s = _timeout_s(len(before.resources))
            await self._control.register(returning, timeout_s=timeout_s)
        return reply

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
        while True:
            try:
                reply = await self._register(
                    time.monotonic() + RETURN_TRY_S, returning=True, **seen
                )
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
        self._registration = _changed(self._registration, remove=(resource,), by=1)
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
                reply = await self._register(time.monotonic() + 60.0, returning=True)
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

    async def _register(self, give_up_s: float, **more: Any) -> RegistrationReply:
        async def ask() -> RegistrationReply:
            async with self._asking:
                registration = self._registration.model_copy(update=more)
                timeout_s = _timeout_s(len(registration.resources))
                return await self._control.register(registration, timeout_s=timeout_s)

        return await self._until_answered(ask, give_up_s)

    async def _until_answered(
        self,
        ask: Callable[[], Awaitable[RegistrationReply]],
        give_up_s: float,
        *,
        again: Collection[str] = _ASK_AGAIN,
    ) -> RegistrationReply:
        """What control says at last. Raises: what `_REFUSED` says, RegistrationRefused, Unavailable."""
        r = self._registration
        waiting = Waiting("waiting_for_control", service=r.service, instance_id=r.instance_id)
        for n in itertools.count(1):
            wait_s = backoff_s(n, first_s=0.05, max_s=1.0)
            try:
                reply = await ask()
            except Unavailable as error:
                if time.monotonic() >= give_up_s:
                    raise
                waiting.say(error=str(error))
            else:
                if reply.ok:
                    _check_protocol(reply)
                    return reply
                if reply.code not in again or time.monotonic() >= give_up_s:
                    raise _REFUSED.get(reply.code, RegistrationRefused)(reply.message)
                waiting.say(error=reply.message)
                wait_s = max(0.01, reply.retry_after_s)
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")


def _timeout_s(resources: int) -> float:
    return ASK_TIMEOUT_S + resources / RESOURCES_A_S


def _changed(
    registration: Registration,
    *,
    add: Mapping[str, Role] = MappingProxyType({}),
    remove: Collection[str] = (),
    by: int,
) -> Registration:
    """As offer number `by` from this one on."""
    gone = frozenset(remove)
    kept = {name: role for name, role in registration.resources.items() if name not in gone}
    changes = {"resources": kept | dict(add), "offer": registration.offer + by}
    return registration.model_copy(update=changes)


def _check_protocol(reply: RegistrationReply) -> None:
    """A control that is too old to judge it lets a newer instance in. Raises: RegistrationRefused."""
    if reply.protocol < PROTOCOL_MIN:
        raise RegistrationRefused(
            f"control speaks protocol {reply.protocol}, and this instance {PROTOCOL_MIN} to {PROTOCOL}:"
            " upgrade control first"
        )


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
