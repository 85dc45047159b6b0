"""`retire`: an operator ends a resource for good.

The log says so: the ownership entry that gives it to nobody names it as retired, and so does the last checkpoint, which keeps
its state. Whoever offers it later gets it as it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from aegis_sdk.contract.control import Retired, RetireResource
from aegis_sdk.contract.turns.checkpoint import Checkpoint

from aegis_control.application.leading.own import Leases
from aegis_control.application.leading.trim import Trim
from aegis_control.application.refusal import Refused
from aegis_control.application.state import ServiceTable
from aegis_control.application.world import World
from aegis_control.domain.leading.owning import Owned

FindResource = Callable[[str, str | None], ServiceTable]


class Retire:
    """The verb. `find`: the one service that knows the resource."""

    def __init__(self, world: World, leases: Leases, trim: Trim, find: FindResource) -> None:
        self._world = world
        self._leases = leases
        self._trim = trim
        self._find = find

    async def __call__(self, data: bytes) -> Retired:
        """Raises: Refused, Unavailable."""
        order = RetireResource.model_validate_json(data)
        table = self._find(order.resource, order.service)
        async with table.lock:
            await self._leases.restore(table)
            owned = self._free(table, order.resource)
            await self._nothing_is_open(table, order.resource)
            final = await self._fold(table, owned, order.resource)
            if not (order.dry_run or table.is_retired(order.resource)):
                why = f"retired by {order.by or 'unknown'}" + (order.reason and f": {order.reason}")
                await self._leases.retire(table, order.resource, reason=why)
                final = await self._keep(table, owned, order.resource)
        return Retired(
            service=table.name,
            resource=order.resource,
            epoch=final.epoch,
            outcomes=final.number,
            state=json.loads(final.values),
            timers=len(final.timers),
            dry_run=order.dry_run,
        )

    def _free(self, table: ServiceTable, resource: str) -> Owned:
        """What the log says. Raises: Refused, unless nobody has it, and nobody offers it."""
        if table.lost:
            raise Refused("refused", f"{table.lost}: an operator has to accept that first")
        offering = sorted(n for n, m in table.members.items() if resource in m.record.resources)
        if offering:
            raise Refused(
                "refused",
                f"{resource!r} is offered by {', '.join(offering)}: have it removed there"
                " (`await instance.remove([...])`), or drain these instances first",
            )
        state = table.leases[resource].record.state
        owned = table.owned
        if owned is None or not state.is_unowned or resource not in owned.vacant():
            raise Refused("refused", f"{resource!r} is {state} yet: ask again in a moment")
        return owned

    async def _nothing_is_open(self, table: ServiceTable, resource: str) -> None:
        waiting = await self._world.requests.open(table.name, resource)
        if waiting:
            raise Refused(
                "refused",
                f"{len(waiting)} stored requests wait for {resource!r}, {waiting[0]} first: have an instance serve"
                " them, or wait until their callers have given up (ipc-cli explain says more of each)",
            )

    async def _fold(self, table: ServiceTable, owned: Owned, resource: str) -> Checkpoint:
        found = await self._trim.fold(table, owned, [resource], outcomes=True)
        if not found:
            raise Refused("refused", f"somebody got {resource!r} just now")
        return found[0][0]

    async def _keep(self, table: ServiceTable, owned: Owned, resource: str) -> Checkpoint:
        stored = await self._trim.keep(table, owned, [resource], outcomes=True)
        # Retired it is: the next trim keeps what is not kept now.
        return stored[0] if stored else await self._fold(table, owned, resource)
