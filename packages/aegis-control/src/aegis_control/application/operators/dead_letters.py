"""Sending dead letters again, or forgetting them, on an operator's word."""

from __future__ import annotations

from aegis_sdk.contract.control import DeadLetterFate, DeadLetterMoved, DeadLetterOrder
from aegis_sdk.contract.dead_letter import PAYLOAD_LEFT_OUT, DeadLetter
from aegis_sdk.contract.envelope import OutcomeKind, Request
from aegis_sdk.contract.ids import check_request_id, redriven_id
from aegis_sdk.contract.trace import new_traceparent
from aegis_sdk.errors import InvalidName

from aegis_control.application.ports import RequestsFull
from aegis_control.application.refusal import Refused
from aegis_control.application.state import ControlState
from aegis_control.application.world import World


class DeadLetters:
    """The verbs `dlq-redrive` and `dlq-drop`. Both raise Refused, Unavailable."""

    def __init__(self, state: ControlState, world: World) -> None:
        self._state = state
        self._letters = world.letters

    async def redrive(self, data: bytes) -> DeadLetterMoved:
        """Send the request again under the id derived from its own, then forget the letter.

        In this order: a control that dies between the two leaves a letter whose redrive is done
        again, and the derived id makes both one effect (G3).
        """
        order = _order(data)
        letter = await self._letters.find(order.request_id)
        if letter is None:
            return await self._redriven_before(order)
        if letter.error_code == PAYLOAD_LEFT_OUT:
            raise Refused(
                "refused",
                f"the dead letter of {order.request_id} has no payload: {letter.error}; drop it, and let its caller"
                " ask again",
            )
        again = letter.redriven(new_traceparent(letter.request.traceparent))
        await self._check_not_executed(letter)
        fate = DeadLetterFate.REDRIVEN
        if await self._letters.outcome(again.service, again.request_id) is not None:
            fate = DeadLetterFate.ALREADY_REDRIVEN
        if not order.dry_run:
            if fate is DeadLetterFate.REDRIVEN:
                await self._send(again)
            await self._letters.drop(again.service, order.request_id)
        return DeadLetterMoved(
            request_id=order.request_id,
            service=again.service,
            fate=fate,
            new_request_id=again.request_id,
            dry_run=order.dry_run,
        )

    async def drop(self, data: bytes) -> DeadLetterMoved:
        """Forget the letter; its request keeps the outcome that it has."""
        order = _order(data)
        letter = await self._letters.find(order.request_id)
        if letter is None:
            raise _not_there(order.request_id)
        if not order.dry_run:
            await self._letters.drop(letter.request.service, order.request_id)
        return DeadLetterMoved(
            request_id=order.request_id,
            service=letter.request.service,
            fate=DeadLetterFate.DROPPED,
            dry_run=order.dry_run,
        )

    async def _send(self, request: Request) -> None:
        try:
            await self._letters.send(request)
        except RequestsFull as error:
            raise Refused("refused", f"{error}: the dead letter stays where it is") from error

    async def _check_not_executed(self, letter: DeadLetter) -> None:
        """The copy is made before the outcome; an outcome that was first may be another one."""
        request = letter.request
        outcome = await self._letters.outcome(request.service, request.request_id)
        if outcome is not None and outcome.kind is OutcomeKind.EXECUTED:
            raise Refused(
                "refused", f"request {request.request_id} was executed in the end: drop the letter"
            )

    async def _redriven_before(self, order: DeadLetterOrder) -> DeadLetterMoved:
        """An order that comes again finds no letter, but the new request's outcome, once it has one."""
        new_id = redriven_id(order.request_id)
        for service in list(self._state.services):
            if await self._letters.outcome(service, new_id) is not None:
                return DeadLetterMoved(
                    request_id=order.request_id,
                    service=service,
                    fate=DeadLetterFate.ALREADY_REDRIVEN,
                    new_request_id=new_id,
                    dry_run=order.dry_run,
                )
        raise _not_there(order.request_id)


def _order(data: bytes) -> DeadLetterOrder:
    order = DeadLetterOrder.model_validate_json(data)
    try:
        check_request_id(order.request_id)
    except InvalidName as error:
        raise Refused("invalid", str(error)) from error
    return order


def _not_there(request_id: str) -> Refused:
    return Refused(
        "not_found",
        f"no dead letter of request {request_id!r}: it was redriven or dropped, or never was one",
    )
