"""`pause` and `resume`: a kill switch for a resource, a method or a service.

Theory of operation. The service's log says what is paused: an ownership entry, behind which stands a new gate of every writer
that is concerned. From then on no turn that begins something paused is stored by a writer that has not read the entry. What
handlers do elsewhere no gate holds back, nor what the group does. So the answer waits until each instance has said, by a
heartbeat, that it has read the entry. One that says nothing sleeps, or is gone: when it wakes, it reads all that
came meanwhile before it begins anything (`SLEPT_S`), and the answer waits until it has slept for so long.

What must stay true: an answer without `unconfirmed` means that nothing of it begins any more. What would break: an answer at
the gate alone lets a handler with outside effects begin on an instance that reads a moment later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aegis_sdk.contract.control import InstanceState, PauseTraffic, TrafficPaused
from aegis_sdk.contract.turns.holds import (
    HOLDS_MAX,
    REASON_CHARS_MAX,
    SERVICE,
    Hold,
    of_method,
    of_resource,
)

from aegis_control.application.leading.logs import LogKeeper
from aegis_control.application.leading.own import Leases
from aegis_control.application.operators.views import pause_view
from aegis_control.application.refusal import Refused
from aegis_control.application.state import ControlState, Member, ServiceTable
from aegis_control.application.world import World
from aegis_control.domain import events

ASLEEP_S: Final = 2.5
"""An event loop that was away for so long doubts by itself (the instance's SLEPT_S), and half a second more."""
CONFIRM_S: Final = 3.5
"""How long the answer waits for instances that run: below an operator's timeout."""
LOOK_S: Final = 0.05

FindResource = Callable[[str, str | None], ServiceTable]


@dataclass(frozen=True, slots=True)
class _Target:
    table: ServiceTable
    what: str

    @property
    def resource(self) -> str | None:
        return self.what[1:] if self.what.startswith("@") else None


class Pausing:
    """Both verbs. `find`: the one service that knows a resource."""

    def __init__(
        self, state: ControlState, world: World, leases: Leases, logs: LogKeeper, find: FindResource
    ) -> None:
        self._state = state
        self._world = world
        self._leases = leases
        self._logs = logs
        self._find = find

    async def pause(self, data: bytes) -> TrafficPaused:
        """Raises: Refused, Unavailable."""
        order = PauseTraffic.model_validate_json(data)
        target = self._target(order)
        table = target.table
        async with table.lock:
            await self._may_change(table)
            holds = dict(table.holds)
            was_so = target.what in holds
            if not was_so and len(holds) >= HOLDS_MAX:
                raise Refused(
                    "refused",
                    f"{len(holds)} things of {table.name} are paused: pause {table.name} itself",
                )
            now_s = self._world.clock.wall()
            hold = holds.setdefault(
                target.what, Hold(now_s, order.by, order.reason[:REASON_CHARS_MAX])
            )
            view = pause_view(table, target.what, hold)
            if order.dry_run:
                return TrafficPaused(pause=view, was_so=was_so, dry_run=True)
            number = await self._leases.hold(table, holds, target.resource)
            await self._logs.keep_holds(table)
        if not was_so:
            self._world.events.emit(
                events.TrafficPaused(
                    service=table.name, target=view.what, by=order.by, reason=order.reason
                )
            )
        asleep, unconfirmed = await self._confirmed(table, number)
        running, waiting = _counts(table)
        return TrafficPaused(
            pause=view,
            was_so=was_so,
            asleep=asleep,
            unconfirmed=unconfirmed,
            running=running,
            waiting=waiting,
        )

    async def resume(self, data: bytes) -> TrafficPaused:
        """Raises: Refused, Unavailable."""
        order = PauseTraffic.model_validate_json(data)
        target = self._target(order)
        table = target.table
        async with table.lock:
            await self._may_change(table)
            holds = dict(table.holds)
            hold = holds.pop(target.what, None)
            now_s = self._world.clock.wall()
            view = pause_view(table, target.what, hold or Hold(now_s))
            if not order.dry_run:
                await self._leases.hold(table, holds, target.resource)
                await self._logs.keep_holds(table)
        done = TrafficPaused(pause=view, was_so=hold is None, dry_run=order.dry_run)
        if hold is not None and not order.dry_run:
            self._world.events.emit(
                events.TrafficResumed(
                    service=table.name,
                    target=view.what,
                    by=order.by,
                    reason=order.reason,
                    duration_s=round(max(0.0, now_s - hold.since_s), 3),
                )
            )
        return done

    async def _may_change(self, table: ServiceTable) -> None:
        """With what others have changed. Raises: Refused, Unavailable."""
        if table.lost:
            raise Refused(
                "refused",
                f"{table.lost}: nothing of {table.name} is served, and an operator has to accept that first",
            )
        await self._leases.restore(table)

    # --- what is meant --------------------------------------------------------------------------------
    def _target(self, order: PauseTraffic) -> _Target:
        """Raises: Refused."""
        name, slash, method = order.target.partition("/")
        service = self._state.services.get(name)
        is_service = service is not None and service.is_known and order.service is None
        if slash and service is not None and is_service and not self._is_resource(order.target):
            return _Target(service, of_method(self._known_method(service, method)))
        if service is not None and is_service and not slash:
            if self._is_resource(name):
                raise Refused(
                    "invalid",
                    f"{name!r} is a service and a resource: say --service for the resource,"
                    f" or pause the methods of {name} one by one",
                )
            return _Target(service, SERVICE)
        return _Target(self._table_of(order), of_resource(order.target))

    def _table_of(self, order: PauseTraffic) -> ServiceTable:
        try:
            return self._find(order.target, order.service)
        except Refused as error:
            if error.code != "not_found":
                raise
            known = ", ".join(sorted(t.name for t in self._state.known())[:5]) or "none yet"
            raise Refused(
                "not_found",
                f"{order.target!r} is no resource that ever had an active, and no service: give RESOURCE, SERVICE"
                f" or SERVICE/METHOD (services: {known})",
            ) from error

    def _is_resource(self, name: str) -> bool:
        return any(name in table.leases for table in self._state.services.values())

    def _known_method(self, table: ServiceTable, method: str) -> str:
        methods = {m.name: m for m in table.record.methods} if table.record else {}
        handled = ", ".join(sorted(n for n, m in methods.items() if not m.reads)) or "none"
        if method not in methods:
            raise Refused(
                "not_found", f"{table.name} has no method {method!r}: it handles {handled}"
            )
        if methods[method].reads:
            raise Refused(
                "refused",
                f"{table.name}/{method} is read, and reads are not paused: it handles {handled}",
            )
        return method

    # --- who has read it ------------------------------------------------------------------------------
    async def _confirmed(self, table: ServiceTable, number: int) -> tuple[list[str], list[str]]:
        """Instances that are asleep, and those that run and have not read entry `number` in time.

        A run that begins later reads what is paused first.
        """
        stored_s = self._world.clock.monotonic()
        runs = [member.owner for member in table.members.values()]
        while True:
            passed_s = self._world.clock.monotonic() - stored_s
            members = [m for m in table.members.values() if m.owner in runs]
            late = [each for each in members if not _has_read(each, number)]
            asleep = [each for each in late if _is_asleep(each)]
            awake = [each for each in late if not _is_asleep(each)]
            is_over = passed_s >= (CONFIRM_S if awake else ASLEEP_S if asleep else 0.0)
            if is_over:
                return _names(asleep), _names(awake)
            await asyncio.sleep(LOOK_S)


def _has_read(member: Member, number: int) -> bool:
    if member.record.state is InstanceState.EVICTED:
        return True
    return member.beat is not None and member.beat.own_number >= number


def _is_asleep(member: Member) -> bool:
    return member.record.state in (InstanceState.LOST, InstanceState.STALLED)


def _names(members: Sequence[Member]) -> list[str]:
    return sorted(member.record.instance_id for member in members)


def _counts(table: ServiceTable) -> tuple[int, int]:
    beats = table.beats()
    return sum(beat.held_running for beat in beats), sum(beat.held_waiting for beat in beats)
