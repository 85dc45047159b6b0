"""What control knows that `doctor` can't find out by itself."""

from __future__ import annotations

from aegis_sdk.contract.control import CheckupView, InstanceState, LeaseState, LonelyView

from aegis_control.application.state import ControlState, ServiceTable
from aegis_control.application.world import World

_EXAMPLES_MAX = 5


class CheckUp:
    """The verb `checkup`. Raises: Unavailable."""

    def __init__(self, state: ControlState, world: World) -> None:
        self._state = state
        self._world = world

    async def __call__(self, _: bytes) -> CheckupView:
        tables = sorted(self._state.services.values(), key=lambda table: table.name)
        checkup = self._world.checkup
        return CheckupView(
            leader=self._world.leader_id,
            replicas=checkup.replicas,
            servers=await checkup.servers(),
            drift=await checkup.drift([table.name for table in tables if table.record]),
            lonely=[view for table in tables if (view := _lonely(table)).resources],
        )


def _lonely(table: ServiceTable) -> LonelyView:
    followed = {
        (resource, name)
        for name, member in table.members.items()
        if member.record.state is InstanceState.LIVE
        for resource in member.record.resources
    }
    alone = sorted(
        resource
        for resource, lease in table.leases.items()
        if lease.record.state is LeaseState.HELD
        and not any(
            (resource, name) in followed for name in table.members if name != lease.record.owner
        )
    )
    return LonelyView(service=table.name, resources=len(alone), examples=alone[:_EXAMPLES_MAX])
