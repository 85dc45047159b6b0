"""A leader's parts over a world of ports: put together here alone, for the service and for its tests."""

from __future__ import annotations

from dataclasses import dataclass

from aegis_control.application.leading.change import ChangeResources
from aegis_control.application.leading.event_streams import EventStreams
from aegis_control.application.leading.fail_over import FailOver
from aegis_control.application.leading.hand_over import HandOver
from aegis_control.application.leading.leave import LeaveService
from aegis_control.application.leading.logs import LogKeeper
from aegis_control.application.leading.on_demand import PlaceOnDemand
from aegis_control.application.leading.own import Leases
from aegis_control.application.leading.reconcile import Reconcile
from aegis_control.application.leading.register import Register
from aegis_control.application.leading.roster import Roster
from aegis_control.application.leading.spread import Spread
from aegis_control.application.leading.trim import Trim
from aegis_control.application.leading.watch import Watch
from aegis_control.application.operators.admin import Admin
from aegis_control.application.state import ControlState
from aegis_control.application.world import Spawn, World


@dataclass(frozen=True, slots=True)
class Parts:
    """All that know `state`, and nothing of each other but what they were given."""

    state: ControlState
    roster: Roster
    leases: Leases
    fail_over: FailOver
    watch: Watch
    register: Register
    change: ChangeResources
    leave: LeaveService
    reconcile: Reconcile
    logs: LogKeeper
    spread: Spread
    place: PlaceOnDemand
    trim: Trim
    admin: Admin


def assemble(world: World, *, spawn: Spawn, state: ControlState | None = None) -> Parts:
    """The parts of one term. `spawn` runs what the watch begins; a term knows nothing yet, unless it is given `state`."""
    state = state or ControlState()
    roster = Roster(state, world, spawn=spawn)
    leases = Leases(state, world, spawn=spawn)
    fail_over = FailOver(world, leases, roster)
    logs = LogKeeper(state, world, roster, leases)
    hand_over = HandOver(world, fail_over)
    spread = Spread(world, hand_over)
    trim = Trim(state, world)
    event_streams = EventStreams(world, spawn=spawn)
    register = Register(state, world, roster, leases, fail_over, logs, event_streams)
    return Parts(
        state=state,
        roster=roster,
        leases=leases,
        fail_over=fail_over,
        watch=Watch(state, world, roster, leases, fail_over, event_streams, spawn=spawn),
        register=register,
        change=ChangeResources(state, world, roster, leases, fail_over, register),
        leave=LeaveService(state, fail_over),
        reconcile=Reconcile(state, world, roster, leases, fail_over),
        logs=logs,
        spread=spread,
        place=PlaceOnDemand(state, world, leases, spawn=spawn),
        trim=trim,
        admin=Admin(state, world, roster, fail_over, hand_over, spread, logs, leases, trim),
    )
