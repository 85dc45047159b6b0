"""Who owns what: a service's log decides it, and the leases follow the log.

A move is one ownership entry for all its resources (domain/leading/owning.py). Then the gates of the writers that lost something
are stored, which the new owners do as well: whoever is first, the resources pass. Last the leases are written, beside
everything else: no instance and no call waits for them.

Control may die, or sleep, between any two of these steps. What is in the log is read by the next leader, which stores the
gates that are missing (`ensure_gates`) and the leases that differ (`restore`). An entry that was not stored did not happen.
What this replica knows of ownership is what it has read: an entry of its own counts when the log has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from aegis_sdk.contract.control import LeaseRecord, LeaseState, ResourceSeen
from aegis_sdk.contract.turns.entries import Moves
from aegis_sdk.contract.turns.holds import Holds
from aegis_sdk.contract.turns.writers import writer_name
from aegis_sdk.domain.turns.ownership import IDLE, NOBODY, RETIRED, UNOWNED, MissingOwnership
from aegis_sdk.errors import Unavailable

from aegis_control.application.leading.intake import Intake
from aegis_control.application.leading.torn import begin_behind_holes
from aegis_control.application.ports import NotWritten, Write
from aegis_control.application.state import ControlState, Member, ServiceTable
from aegis_control.application.world import Spawn, World
from aegis_control.domain.events import InstanceFenced, LeaseGranted
from aegis_control.domain.leading import lease as leases
from aegis_control.domain.leading import owning
from aegis_control.domain.leading.lease import Owner
from aegis_control.domain.leading.owning import LogBehind, Owned, StoredGate, StoredMoves

CHUNK: Final = 1_000
"""Leases that are written together."""
TRIES: Final = 5
"""Of an entry that nobody acknowledged."""


class Leases:
    """Changes ownership in the services' logs. The caller holds the service's lock."""

    def __init__(self, state: ControlState, world: World, *, spawn: Spawn) -> None:
        self._state = state
        self._world = world
        self._intake = Intake(state, world)
        self._spawn = spawn
        self._following: set[str] = set()
        """Services whose leases are being written."""

    # --- moves ----------------------------------------------------------------------------------------
    async def give(
        self, table: ServiceTable, plan: Mapping[str, Sequence[str]], *, reason: str
    ) -> dict[str, str]:
        """Make each instance of `plan` the owner of its resources; those that moved, and to whom.

        What somebody else was faster with stays as that one planned it.
        """
        if table.lost:
            return {}  # nobody serves from a log that lost something
        owned = await self._owned(table)
        runs = {name: table.members[name].owner for name in plan if name in table.members}
        moves = owning.moves(owned, plan, runs)
        before = {
            name: lease.record if (lease := table.leases.get(name)) else None for name in moves
        }
        await self._move(table, owned, moves, Moves({}, reason, table.journal_id))
        done = {n for n, writer in moves.items() if owned.ownership.owner(n) == writer}
        for name in runs:
            self._tell_given(table, name, [n for n in plan[name] if n in done], before, reason)
        return {resource: name for name in runs for resource in plan[name] if resource in done}

    async def grant(
        self, table: ServiceTable, resources: Sequence[str], to: Member, *, reason: str
    ) -> list[str]:
        """Make `to` the owner of `resources`; returns those that it got."""
        return list(await self.give(table, {to.record.instance_id: resources}, reason=reason))

    async def put_in_state(
        self, table: ServiceTable, resources: Iterable[str], state: LeaseState, *, reason: str
    ) -> list[str]:
        """Returns those that changed. Held or waited for is said by the lease alone; vacant means that the log gives it to nobody."""
        names = [n for n in resources if table.leases[n].record.state is not state]
        if names and state is LeaseState.VACANT:
            owned = await self._owned(table)
            moves = owning.to_nobody(owned, names)
            await self._move(table, owned, moves, Moves({}, reason, table.journal_id))
            return [n for n in names if owned.ownership.owner(n) == NOBODY]
        now_s = self._world.clock.wall()
        for name in names:
            lease = table.leases[name]
            lease.record = leases.in_state(lease.record, state, now_s=now_s, reason=reason)
            table.leases_behind.add(name)
        self._follow(table)
        return names

    async def retire(self, table: ServiceTable, resource: str, *, reason: str) -> None:
        """Nobody's, for good. Raises: Unavailable, also when somebody else was faster."""
        owned = await self._owned(table)
        await self._move(table, owned, {resource: RETIRED}, Moves({}, reason, table.journal_id))
        if owned.ownership.owner(resource) != RETIRED:
            raise Unavailable(f"somebody else changed who owns what of {table.name} just now")

    async def rest(self, table: ServiceTable, resources: Iterable[str], *, reason: str) -> None:
        """Nobody's, until they are asked for; what somebody else was faster with stays. Raises: Unavailable."""
        owned = await self._owned(table)
        moves = dict.fromkeys(resources, IDLE)
        await self._move(table, owned, moves, Moves({}, reason, table.journal_id))

    async def hold(self, table: ServiceTable, holds: Holds, resource: str | None) -> int:
        """From now on this is paused, and nothing else; the number of the entry that says so.

        No turn that begins something of it is stored behind this, unless its writer has read it. `resource`: only its
        writers are concerned; None: all. Raises: Unavailable: it may be in the log, and is to be asked for again.
        """
        owned = await self._owned(table)
        if owned.holds != holds:
            number = self._next_number(table, owned)
            said = Moves({}, "paused or resumed", table.journal_id)
            if not await self._write(table, owned, number, said, holds=holds):
                raise Unavailable(f"somebody else changed who owns what of {table.name} just now")
        named = list(owned.ownership.resources()) if resource is None else [resource]
        writers = {w for name in named for w in owned.ownership.may_write(name)}
        if None in await self._gates(table, owned, sorted(writers)):
            raise Unavailable(f"not every writer of {table.name} was told")
        return owned.ownership.number

    async def restore(self, table: ServiceTable) -> list[str]:
        """Read what others have stored, and have the leases follow it; returns those that are behind."""
        await self._read(table)
        self._follow(table)
        return list(table.leases_behind)

    async def ensure_gates(
        self, table: ServiceTable, resources: Iterable[str] | None = None
    ) -> list[str]:
        """Store the gates that are still missing, of the former owners of `resources` (None: of all); returns their writers."""
        if table.lost:
            return []
        owned = await self._owned(table)
        return await self._shut_out(table, owned, table.leases if resources is None else resources)

    async def begin_again(
        self, table: ServiceTable, known: Mapping[str, ResourceSeen], *, log_id: str
    ) -> None:
        """The loss of a log was accepted; `log_id` is the new one's. What the log says from before the loss is void.

        Everything is nobody's, above every number ever told. Whoever may have written is shut out: the entries that say who
        are lost, perhaps. What `known` has of each resource holds: stored requests that are done are forgotten.
        """
        table.owned = owned = Owned()  # its beginning may be lost
        holds = table.kept_holds
        table.highest_told = max((seen.epoch for seen in known.values()), default=0)
        writers = {_writer(lease.record) for lease in table.leases.values()}
        await self._read(table)
        for number in owned.missing(_highest_epoch(table)):
            await self._write(table, owned, number, Moves({}, owning.LOSS_ACCEPTED, log_id))
        owned.holds = holds
        nobodys = {
            name: owning.unowned(lease.record.state if (lease := table.leases.get(name)) else None)
            for name in known
        }
        await self._move(table, owned, nobodys, Moves({}, owning.LOSS_ACCEPTED, log_id))
        writers |= owned.ownership.gates.keys()
        if None in await self._world.own_log.shut_out(table.name, sorted(writers - UNOWNED)):
            raise Unavailable(f"not every writer of {table.name} was shut out")
        behind = {name: seen.done + 1 for name, seen in known.items() if seen.done}
        await self._world.requests.forget(table.name, behind)
        kept_s = self._world.outcome_ttl_s
        await begin_behind_holes(self._world.log_space, table, log_id=log_id, kept_s=kept_s)

    async def lacks(self, table: ServiceTable) -> bool:
        """Entries that leases name are not there, also not behind what was read so far."""
        highest, owned = _highest_epoch(table), await self._owned(table)
        if owned.is_behind(highest):
            await self._read(table)
        return owned.is_behind(highest)

    # --- the steps of a move ----------------------------------------------------------------------------
    async def _move(
        self, table: ServiceTable, owned: Owned, moves: Mapping[str, str], said: Moves
    ) -> None:
        """Returns when the log says so, or somebody else was faster. Raises: Unavailable."""
        room = owning.room(owned.holds, bytes_max=self._world.own_log.entry_bytes_max)
        for part in owning.parts(moves, bytes_max=room):
            number = self._next_number(table, owned)
            if not await self._write(table, owned, number, replace(said, moves=part)):
                break  # the rest was planned on what is not so any more
            try:
                await self._shut_out(table, owned, part)
            finally:
                for name in part:  # after the gates, which somebody waits for
                    table.follow_log(name)
        self._follow(table)

    async def _write(
        self,
        table: ServiceTable,
        owned: Owned,
        number: int,
        entry: Moves,
        *,
        holds: Holds | None = None,
    ) -> bool:
        """Whether the log has the entry behind all that was read here. It repeats what is paused, unless it changes that.

        Raises: Unavailable.
        """
        entry = replace(entry, holds=owned.holds if holds is None else holds)
        for _ in range(TRIES):
            result = await self._world.own_log.write(table.name, number, entry)
            if isinstance(result, int):
                self._take(
                    table, owned, StoredMoves(result, number, entry, self._world.clock.wall())
                )
                return True
            for each in await self._read(table):
                if isinstance(each, StoredMoves) and each.number == number:
                    return each.moves == entry  # ours, if only its acknowledgement was lost
            if result is NotWritten.CONFLICT:
                break
        raise Unavailable(f"ownership entry {number} of {table.name} could not be stored")

    async def _shut_out(
        self, table: ServiceTable, owned: Owned, resources: Iterable[str]
    ) -> list[str]:
        """Who lost any of `resources`, and was not shut out yet."""
        writers = sorted(owned.ownership.unshut(resources))
        await self._gates(table, owned, writers)
        return writers

    async def _gates(
        self, table: ServiceTable, owned: Owned, writers: Sequence[str]
    ) -> list[int | None]:
        """Their places, as far as they are known."""
        seqs = await self._world.own_log.shut_out(table.name, writers) if writers else []
        for writer, seq in zip(writers, seqs, strict=True):
            if seq is not None:
                owned.ownership.read_gate(writer, seq)
        return seqs

    # --- what the log says ------------------------------------------------------------------------------
    async def know(self, table: ServiceTable) -> None:
        """Have the leases say what the log says, as who decides by them must: in a term that has not read the log yet they are
        those of the bucket, which may be behind it. Raises: Unavailable.
        """
        if not table.lost:
            await self._owned(table)

    async def _owned(self, table: ServiceTable) -> Owned:
        """Read from its checkpoints on once a term; from there by `restore`, and when a write is refused."""
        if table.owned is None:
            await self._read(table)
        assert table.owned is not None
        return table.owned

    async def _read(self, table: ServiceTable) -> list[StoredMoves | StoredGate]:
        """Raises: Unavailable."""
        owned = table.owned or Owned(await self._world.own_log.saved(table.name))
        found = await self._world.own_log.read(table.name, after=owned.position)
        is_first, table.owned = table.owned is None, owned
        changed = [name for entry in found for name in self._take(table, owned, entry)]
        for name in [*table.leases, *owned.ownership.resources()] if is_first else changed:
            table.follow_log(name)
        return found

    def _take(
        self, table: ServiceTable, owned: Owned, entry: StoredMoves | StoredGate
    ) -> list[str]:
        """Fold it; the resources that changed hands."""
        try:
            return owned.read(entry)
        except MissingOwnership as error:
            table.owned = None
            raise Unavailable(f"the log of {table.name}: {error}") from error

    def _next_number(self, table: ServiceTable, owned: Owned) -> int:
        try:
            return owned.next_number(_highest_epoch(table))
        except LogBehind as error:
            raise Unavailable(f"{table.name}: {error}") from error

    # --- the leases follow ------------------------------------------------------------------------------
    def _follow(self, table: ServiceTable) -> None:
        if table.leases_behind and table.name not in self._following:
            self._following.add(table.name)
            self._spawn(self._write_leases(table))

    async def _write_leases(self, table: ServiceTable) -> None:
        """Until none is behind. Raises: Unavailable; the next reconciliation goes on."""
        try:
            for _ in range(TRIES):
                names = [n for n in table.leases_behind if n not in table.unreadable_leases]
                for at in range(0, len(names), CHUNK):
                    await self._write_some(table, names[at : at + CHUNK])
        finally:
            self._following.discard(table.name)

    async def _write_some(self, table: ServiceTable, names: Sequence[str]) -> None:
        records = {name: table.leases[name].record for name in names}
        writes = [
            Write(record.key, record.model_dump_json().encode(), table.lease_revision(name))
            for name, record in records.items()
        ]
        results = await self._world.leases.write(writes)
        for (name, record), result in zip(records.items(), results, strict=True):
            if not isinstance(result, int):
                await self._read_lease(table, name)
                continue
            self._state.wrote_lease(result)
            lease = table.leases[name]
            lease.revision = result
            if lease.record is record:  # else it changed hands again meanwhile
                table.leases_behind.discard(name)

    async def _read_lease(self, table: ServiceTable, resource: str) -> None:
        entry = await self._world.leases.read(self._world.subjects.lease_key(table.name, resource))
        if entry is None:
            table.leases.pop(resource, None)
        else:
            self._intake.lease(entry)

    # --- telling ------------------------------------------------------------------------------------------
    def _tell_given(
        self,
        table: ServiceTable,
        name: str,
        given: Sequence[str],
        before: Mapping[str, LeaseRecord | None],
        reason: str,
    ) -> None:
        to = table.members.get(name)
        if not given or to is None:
            return
        left: dict[str, list[str]] = {}
        for resource in given:
            lease = before[resource]
            _note_loss(table.owner_of(lease) if lease else None, to)
            if lease is not None and Owner(lease.owner, lease.incarnation) != to.owner:
                left.setdefault(lease.owner, []).append(resource)
        for owner, names in left.items():
            self._world.events.emit(
                InstanceFenced(service=table.name, instance_id=owner, resources=names)
            )
        epochs = {resource: table.leases[resource].record.epoch for resource in given}
        self._world.events.emit(
            LeaseGranted(
                service=table.name,
                instance_id=name,
                epoch=max(epochs.values()),
                epochs=epochs,
                resources=list(given),
                reason=reason,
            )
        )


def _note_loss(owner: Member | None, to: Member) -> None:
    if owner is not None and owner is not to:
        owner.keeps_leases = False


def _writer(record: LeaseRecord) -> str:
    return writer_name(record.owner, record.incarnation) if record.incarnation else NOBODY


def _highest_epoch(table: ServiceTable) -> int:
    known = max((lease.record.epoch for lease in table.leases.values()), default=0)
    return max(known, table.highest_told)
