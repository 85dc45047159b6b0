"""What a log that lost something still tells of each resource, when an operator has said to go on without the rest.

An instance reads outcomes by their numbers, and begins anew at a hole. So a resource with a hole gets a checkpoint behind it.
"""

from __future__ import annotations

from typing import Final

from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import EntryUnreadable
from aegis_sdk.domain.turns.keeping import Remains
from aegis_sdk.errors import Unavailable

from aegis_control.application.ports import LogSpace
from aegis_control.application.state import ServiceTable

AT_A_TIME: Final = 500
"""Resources whose states are in memory together."""


async def begin_behind_holes(
    space: LogSpace, table: ServiceTable, *, log_id: str, kept_s: float
) -> None:
    """All resources are nobody's by now. Raises: Unavailable."""
    assert table.owned is not None
    names = sorted(table.leases)
    for at in range(0, len(names), AT_A_TIME):
        newest: dict[str, Checkpoint | None] = {}
        places: dict[str, int] = {}
        for name in names[at : at + AT_A_TIME]:
            newest[name], places[name] = await _newest(space, table.name, name)
        ownership = table.owned.ownership
        remains = Remains(newest, own=ownership.number, log=log_id)
        try:
            end = await space.fold(table.name, remains, outcomes=True)
        except EntryUnreadable as error:
            raise Unavailable(f"the log of {table.name}: {error}") from error
        for name in sorted(remains.torn):
            epoch = ownership.epoch(name)
            checkpoint = remains.checkpoint(name, read=end, epoch=epoch, kept_s=kept_s)
            if not await space.keep(table.name, checkpoint, after_seq=places[name]):
                raise Unavailable(
                    f"the log of {table.name}: no checkpoint of {name} could be stored"
                )


async def _newest(space: LogSpace, service: str, name: str) -> tuple[Checkpoint | None, int]:
    try:
        return await space.newest(service, name)
    except EntryUnreadable as error:
        raise Unavailable(f"the log of {service}: {error}") from error
