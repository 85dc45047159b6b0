"""Removing entries of a service's log that nobody needs any more, and keeping what is nobody's out of the way.

What may go is decided in domain/leading/trimming.py. A resource that belongs to nobody would hold it up for ever, since only an
owner renews a checkpoint: control does it for those (`Keeping`), once for each trim that they are in the way of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import EntryUnreadable
from aegis_sdk.contract.turns.events import EVENT, emitted_of
from aegis_sdk.contract.turns.sends import request_of
from aegis_sdk.domain.turns.checkpoints import Every
from aegis_sdk.domain.turns.keeping import Keeping
from aegis_sdk.domain.turns.ownership import MissingOwnership
from aegis_sdk.domain.turns.work import BehindTrim
from aegis_sdk.errors import Unavailable

from aegis_control.application.leading.torn import AT_A_TIME
from aegis_control.application.ports import Going, RequestsFull
from aegis_control.application.state import ControlState, ServiceTable
from aegis_control.application.world import World
from aegis_control.domain.events import JournalTrimHeldUp, JournalTrimmed
from aegis_control.domain.leading import trimming
from aegis_control.domain.leading.owning import Owned

INTERVALS_A_RETENTION: Final = 24
INTERVAL_S_MIN: Final = 1.0


class Trim:
    """Every service's log, one after the other; a wide purge costs a log a moment, so seldom."""

    def __init__(self, state: ControlState, world: World) -> None:
        self._state = state
        self._world = world

    @property
    def interval_s(self) -> float:
        return max(INTERVAL_S_MIN, self._world.outcome_ttl_s / INTERVALS_A_RETENTION)

    async def __call__(self) -> None:
        """Raises: Unavailable, once all services had their turn; what is left is done the next time."""
        failed: Unavailable | None = None
        for table in list(self._state.services.values()):
            if table.owned is not None and not table.lost:
                try:
                    await self._trim(table, table.owned)
                except Unavailable as error:
                    failed = error
        if failed is not None:
            raise failed

    async def _trim(self, table: ServiceTable, owned: Owned) -> None:
        keep_s = self._world.outcome_ttl_s
        old = await self._world.log_space.old(table.name, keep_s=keep_s)
        saved = await self._world.own_log.saved(table.name)
        wanted = trimming.to_keep(saved, owned.vacant(), old=old)
        for outcomes in (False, True):
            names = [name for name, may_have in wanted.items() if may_have is outcomes]
            for at in range(0, len(names), AT_A_TIME):
                await self.keep(table, owned, names[at : at + AT_A_TIME], outcomes=outcomes)
        if wanted:
            saved = await self._world.own_log.saved(table.name)
        limit = trimming.limit(saved, owned.first_named, old=old)
        gates = owned.ownership.gates
        writers = trimming.gates_to_go(saved, gates, upto=limit.upto)
        removed = await self._world.log_space.remove(
            table.name, Going(limit.upto, owned.newest_seq, old, writers)
        )
        for writer in writers:
            gates.pop(writer, None)
        if removed:
            self._world.events.emit(JournalTrimmed(service=table.name, entries=removed))
        if limit.held_by:
            await self._say_if_late(table, limit)

    async def _say_if_late(self, table: ServiceTable, limit: trimming.Limit) -> None:
        """An owner renews a checkpoint some time after it could."""
        keep_s = self._world.outcome_ttl_s
        late_s = keep_s + 3 * Every.kept(keep_s).seconds
        if limit.upto < await self._world.log_space.old(table.name, keep_s=late_s):
            self._world.events.emit(
                JournalTrimHeldUp(
                    service=table.name,
                    resource=limit.held_by,
                    reason="entries past the retention are behind its newest checkpoint: start its instance",
                )
            )

    # --- what is nobody's -------------------------------------------------------------------------------
    async def keep(
        self, table: ServiceTable, owned: Owned, names: Sequence[str], *, outcomes: bool
    ) -> list[Checkpoint]:
        """Renew their checkpoints; whatever comes in between leaves that to the next time. Returns those that are stored.

        Raises: Unavailable.
        """
        stored = []
        for checkpoint, after_seq in await self.fold(table, owned, names, outcomes=outcomes):
            await self._send(checkpoint)
            if await self._world.log_space.keep(table.name, checkpoint, after_seq=after_seq):
                stored.append(checkpoint)
        return stored

    async def fold(
        self, table: ServiceTable, owned: Owned, names: Sequence[str], *, outcomes: bool
    ) -> list[tuple[Checkpoint, int]]:
        """What their checkpoints would be now, each with the place of the one before; none if somebody got one of them.

        Raises: Unavailable.
        """
        number, epochs = owned.ownership.number, {n: owned.ownership.epoch(n) for n in names}
        newest: dict[str, Checkpoint | None] = {}
        places: dict[str, int] = {}
        try:
            for name in names:
                newest[name], places[name] = await self._world.log_space.newest(table.name, name)
            keeping = Keeping(newest, own=number, log=table.journal_id)
            end = await self._world.log_space.fold(table.name, keeping, outcomes=outcomes)
        except (EntryUnreadable, ValueError) as error:
            raise Unavailable(f"the log of {table.name}: {error}") from error
        except (MissingOwnership, BehindTrim):
            return []  # somebody got one of them
        return [
            (
                keeping.checkpoint(
                    name,
                    read=end,
                    epoch=epochs[name],
                    kept_s=self._world.outcome_ttl_s,
                    owner=owned.ownership.owner(name),
                ),
                places[name],
            )
            for name in names
        ]

    async def _send(self, checkpoint: Checkpoint) -> None:
        """What its handlers handed in or emitted, and nobody sent. Twice is once. Events keep their order: where one
        can't be stored, those behind it wait.
        """
        unsent: list[tuple[int, Sequence[Mapping[str, object]]]] = []
        events_wait = False
        for number, contents in checkpoint.unsent:
            left = []
            for content in contents:
                is_event = EVENT in content
                waits = is_event and events_wait
                if waits or not await self._is_sent(content, checkpoint.resource):
                    left.append(content)
                    events_wait = events_wait or is_event
            if left:
                unsent.append((number, left))
        checkpoint.unsent = unsent

    async def _is_sent(self, content: Mapping[str, object], resource: str) -> bool:
        try:
            if EVENT in content:
                await self._world.letters.emit(emitted_of(content, resource))
            else:
                await self._world.letters.send(request_of(content))
        except (RequestsFull, Unavailable, ValueError):
            return False  # it stays in the checkpoint
        return True
