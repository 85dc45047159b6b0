"""What control knows that `doctor` can't find out by itself."""

from __future__ import annotations

from aegis_sdk.contract.control import CheckupView, LonelyView, LossView

from aegis_control.application.operators.views import paused_of, unfollowed
from aegis_control.application.state import ControlState, ServiceTable
from aegis_control.application.world import World

_EXAMPLES_MAX = 5
_UNREADABLE_MAX = 20


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
            unreadable=self._state.unreadables.some(_UNREADABLE_MAX),
            unreadable_values=len(self._state.unreadables),
            paused=[view for table in tables for view in paused_of(table)],
            losses=[LossView(service=t.name, what=t.lost) for t in tables if t.lost],
        )


def _lonely(table: ServiceTable) -> LonelyView:
    alone = sorted(unfollowed(table))
    return LonelyView(service=table.name, resources=len(alone), examples=alone[:_EXAMPLES_MAX])
