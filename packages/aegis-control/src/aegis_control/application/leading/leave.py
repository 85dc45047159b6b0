"""An instance has finished what it began and goes: its leases move, its record is deleted."""

from __future__ import annotations

import pydantic
from aegis_sdk.contract.control import Ack, Leave
from aegis_sdk.contract.values import field_errors
from aegis_sdk.errors import Unavailable

from aegis_control.application.leading.fail_over import FailOver
from aegis_control.application.state import ControlState


class LeaveService:
    """Answers Leave requests once the leases have moved; leaving twice is fine."""

    def __init__(self, state: ControlState, fail_over: FailOver) -> None:
        self._state = state
        self._fail_over = fail_over

    async def __call__(self, data: bytes) -> Ack:
        try:
            leave = Leave.model_validate_json(data)
        except pydantic.ValidationError as error:
            return Ack(ok=False, message="; ".join(field_errors(error)))
        table = self._state.services.get(leave.service)
        member = table.members.get(leave.instance_id) if table else None
        if table is None or member is None or member.record.incarnation != leave.incarnation:
            return Ack(ok=True, message="this instance is not registered")
        reason = f"left: {leave.reason}" if leave.reason else "left"
        try:
            moved = await self._fail_over.leave(table, member, reason=reason)
        except Unavailable as error:
            return Ack(ok=False, message=f"NATS did not answer control: {error}")
        return Ack(ok=True, message=f"{len(moved.moved)} moved, {len(moved.vacant)} vacant")
