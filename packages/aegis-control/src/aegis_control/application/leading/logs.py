"""Noticing that a service's journal or requests lost something, and beginning again when an operator says so.

Goes in: the streams as they are, the marks that are kept of them, the positions that living instances report.
Comes out: a loss, kept in the registry, told by an event and to every instance. Invariant: while a loss is
kept, nothing is granted and no fence is written, so nobody serves from an older or empty log. Accepting it
gives the log a new identity behind all known positions, and every resource a new epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aegis_sdk.contract.control import (
    AcceptLoss,
    Command,
    CommandKind,
    LeaseRecord,
    LeaseState,
    LogMark,
    LogsRecord,
    Loss,
    LossAccepted,
    Registration,
)
from aegis_sdk.errors import Unavailable

from aegis_control.application.leading.grant import Leases
from aegis_control.application.leading.roster import Roster
from aegis_control.application.ports import Write
from aegis_control.application.refusal import Refused
from aegis_control.application.state import ControlState, Member, ServiceTable
from aegis_control.application.world import World
from aegis_control.domain.events import ConsumerMadeAgain, LossForgiven, LossNoticed
from aegis_control.domain.leading import lease as leases
from aegis_control.domain.leading.logs import Sight, emptied, loss_of, reported

KEEP_INTERVAL_S = 5.0
"""How often the ends are kept for a control that starts later; those who live know better."""


@dataclass(frozen=True, slots=True)
class _Look:
    """A stream, what was known of it, and what is there."""

    stream: str
    mark: LogMark
    end: int
    sight: Sight | None


_WRITE_TRIES = 3


class LogKeeper:
    """Knows the identity of each service's streams."""

    def __init__(self, state: ControlState, world: World, roster: Roster, leases_: Leases) -> None:
        self._state = state
        self._world = world
        self._roster = roster
        self._leases = leases_

    # --- knowing -------------------------------------------------------------------------------------
    async def provision(self, table: ServiceTable) -> None:
        """The streams of a service, with identities; what is known and missing is not made here.

        The caller holds the service's lock.
        """
        if table.logs is None:
            await self._recover(table)
        assert table.logs is not None
        await self._judge(table, table.logs, await self._look(table, table.logs))
        if not table.lost:
            await self._world.requests.provision(table.name)

    async def _recover(self, table: ServiceTable) -> None:
        """Nothing is known of the logs: the service is new, or the registry was lost. With leases, they were there."""
        await self._take_record(table)
        if table.logs is not None:
            return
        journal, requests = self._streams(table.name)
        record = LogsRecord(
            service=table.name,
            journal=await self._world.logs.adopt(journal, new=not table.leases),
            requests=await self._world.logs.adopt(requests, new=not table.leases),
        )
        await self._keep(table, record)
        table.fences_loaded = False
        await self._roster.load_fences(table)
        if table.leases and not table.fences:
            sight = await self._world.logs.look(journal)
            await self._lose(table, [emptied(journal, sight, list(table.leases))] if sight else [])

    async def check(self, table: ServiceTable) -> None:
        """Look at both streams, and tell what they lost; takes the lock itself. Raises: Unavailable."""
        if table.logs is None and table.leases:
            async with table.lock:
                await self._recover(table)
        known = table.logs
        if known is None:
            return
        seen = await self._look(table, known)
        async with table.lock:
            if table.logs is known:  # else it has begun again, or was looked at, since
                await self._judge(table, known, seen)
        if not table.lost and await self._world.requests.keep_group(table.name):
            self._world.events.emit(
                ConsumerMadeAgain(service=table.name, reason="the group's was gone")
            )

    async def _look(self, table: ServiceTable, known: LogsRecord) -> list[_Look]:
        journal, requests = self._streams(table.name)
        looks = []
        for stream, mark in ((journal, known.journal), (requests, known.requests)):
            end = self._end(
                table, stream, mark
            )  # before the look: what is stored meanwhile is no loss
            looks.append(_Look(stream, mark, end, await self._world.logs.look(stream)))
            self._world.logs.know(stream, mark.id)
        return looks

    async def _judge(self, table: ServiceTable, known: LogsRecord, seen: Sequence[_Look]) -> None:
        found = [*known.losses]
        for look in seen:
            if all(loss.stream != look.stream for loss in found):
                loss = loss_of(look.stream, look.mark, look.sight, end=look.end)
                if loss is None and look.mark is known.journal and look.sight is not None:
                    loss = await self._emptied(table, look.stream, look.sight)
                    loss = loss or self._reported(table, look.stream)
                found += [] if loss is None else [loss]
        if len(found) > len(known.losses):
            await self._lose(table, found)
        elif not table.lost:
            await self._keep_ends(table)
        for member in table.members.values() if table.lost else ():
            await self._halt(table, member)

    async def hear(self, table: ServiceTable, registration: Registration) -> None:
        """An instance comes back from a log that it saw was lost. The caller holds the service's lock."""
        known, me = table.logs, registration.instance_id
        if known is None or table.lost or registration.journal_id != known.journal.id:
            return
        if registration.log_lost:
            stream = self._streams(table.name)[0]
            end = max(registration.journal_seq, self._end(table, stream, known.journal))
            await self._lose(table, [reported(stream, me, registration.log_lost, end)])

    def _streams(self, service: str) -> tuple[str, str]:
        names = self._world.subjects
        return names.journal_stream(service), names.request_stream(service)

    def _end(self, table: ServiceTable, stream: str, mark: LogMark) -> int:
        """How far the log `mark` went, as far as anybody knows."""
        is_journal = stream == self._streams(table.name)[0]
        assert table.logs is not None
        beats = [
            member.beat.journal_seq if is_journal else member.beat.request_seq
            for member in table.members.values()
            if member.beat is not None and member.beat.journal_id == table.logs.journal.id
        ]
        return max([mark.end, self._world.logs.seen_end(stream, mark.id), *beats])

    async def _emptied(self, table: ServiceTable, stream: str, sight: Sight) -> Loss | None:
        """Fences stay for ever: a journal that begins behind one that is known was purged."""
        known = {name: fence.seq for name, fence in table.fences.items()}
        if not known or sight.first_seq <= min(known.values()):
            return None
        fences = await self._world.journal.load_fences(table.name)
        missing = known.keys() - fences.keys()
        if missing:
            return emptied(stream, sight, list(missing))
        table.fences |= fences  # actives have claimed theirs since
        return None

    def _reported(self, table: ServiceTable, stream: str) -> Loss | None:
        assert table.logs is not None
        for member in table.members.values():
            beat = member.beat
            if beat and beat.log_lost and beat.journal_id == table.logs.journal.id:
                end = self._end(table, stream, table.logs.journal)
                return reported(stream, member.record.instance_id, beat.log_lost, end)
        return None

    async def _lose(self, table: ServiceTable, losses: Sequence[Loss]) -> None:
        assert table.logs is not None
        new = losses[len(table.logs.losses) :]
        await self._keep(table, table.logs.model_copy(update={"losses": list(losses)}))
        for loss in new:
            self._world.events.emit(
                LossNoticed(
                    service=table.name,
                    stream=loss.stream,
                    reason=f"{loss.stream} {loss.what}",
                    first_seq=loss.first_seq,
                    last_seq=loss.last_seq,
                    resources=loss.resources or sorted(table.leases),
                    do=f"restore a copy, or: ipc-cli accept-loss {table.name}",
                )
            )

    async def _halt(self, table: ServiceTable, member: Member) -> None:
        command = Command(
            kind=CommandKind.HALT, incarnation=member.record.incarnation, reason=table.lost
        )
        await self._world.instances.tell(member.record.instance_id, command)

    # --- keeping -------------------------------------------------------------------------------------
    async def _take_record(self, table: ServiceTable) -> None:
        """At the bucket's leader: another control may have provisioned it a moment ago."""
        key = self._world.subjects.logs_key(table.name)
        entry = await self._world.registry.read(key)
        if entry is not None:
            self._roster.take(entry)

    async def _keep_ends(self, table: ServiceTable) -> None:
        now_s = self._world.clock.monotonic()
        if table.logs is None or now_s - table.logs_kept_s < KEEP_INTERVAL_S:
            return
        journal, requests = self._streams(table.name)
        marks = {
            "journal": _seen(
                table.logs.journal, self._world.logs.seen_end(journal, table.logs.journal.id)
            ),
            "requests": _seen(
                table.logs.requests, self._world.logs.seen_end(requests, table.logs.requests.id)
            ),
        }
        if marks != {"journal": table.logs.journal, "requests": table.logs.requests}:
            await self._keep(table, table.logs.model_copy(update=marks))
        table.logs_kept_s = now_s

    async def _keep(self, table: ServiceTable, record: LogsRecord) -> None:
        """Store what is known. Raises: Unavailable; another control's record is taken over instead."""
        key, data = record.key, record.model_dump_json().encode()
        for _ in range(_WRITE_TRIES):
            [result] = await self._world.registry.write([Write(key, data, table.logs_revision)])
            if isinstance(result, int):
                table.logs, table.logs_revision = record, result
                return
            entry = await self._world.registry.read(key)
            if entry is not None and entry.revision > table.logs_revision:
                self._roster.take(entry)
                break
            table.logs_revision = (
                entry.revision if entry else 0
            )  # the bucket itself is an older one
        raise Unavailable(f"what is known of the logs of {table.name} could not be stored")

    # --- accepting -----------------------------------------------------------------------------------
    async def accept(self, data: bytes) -> LossAccepted:
        """The verb `accept-loss`. Raises: Refused, Unavailable."""
        order = AcceptLoss.model_validate_json(data)
        table = self._state.services.get(order.service)
        if table is None or table.logs is None:
            raise Refused("not_found", f"no service {order.service!r} has streams here")
        async with table.lock:
            await self._judge(table, table.logs, await self._look(table, table.logs))
            if not table.logs.losses:
                raise Refused("refused", f"nothing of {order.service} is lost")
            accepted = LossAccepted(
                service=table.name,
                losses=table.logs.losses,
                resources=len(table.leases),
                dry_run=order.dry_run,
            )
            if not order.dry_run:
                await self._begin_again(table, table.logs)
        if not order.dry_run:
            self._world.events.emit(
                LossForgiven(
                    service=table.name,
                    by=order.by or "unknown",
                    reason=order.reason or table.lost,
                    losses=[loss.model_dump(mode="json") for loss in accepted.losses],
                )
            )
        return accepted

    async def _begin_again(self, table: ServiceTable, known: LogsRecord) -> None:
        """Each step can be repeated; only the last one lets instances in."""
        lost = {loss.stream for loss in known.losses}
        journal, requests = self._streams(table.name)
        changes = await self._starting_anew(table)
        marks = []
        for stream, mark in ((journal, known.journal), (requests, known.requests)):
            end = self._end(table, stream, mark)
            marks.append(
                await self._world.logs.begin(stream, behind=end) if stream in lost else mark
            )
        await self._world.requests.provision(table.name)
        for grant in await self._world.requests.grants(table.name):
            await self._world.requests.delete_grant(table.name, grant)
        await self._leases.begin_again(table, changes, log_id=marks[0].id)
        table.fences, table.fences_loaded = {}, False
        await self._roster.load_fences(table)
        record = LogsRecord(service=table.name, journal=marks[0], requests=marks[1])
        await self._keep(table, known.model_copy(update=dict(record)))

    async def _starting_anew(self, table: ServiceTable) -> Mapping[str, LeaseRecord]:
        """Every resource waits for a new epoch, whoever was active; it reads on where the old one was."""
        now_s = self._world.clock.wall()
        floors: dict[str, int | None] = {}
        for grant in table.grants():
            floors[grant] = await self._world.requests.ack_floor(table.name, grant)
        return {
            name: lease.record.model_copy(
                update={
                    "state": LeaseState.WAITING,
                    "incarnation": "",
                    "start_seq": leases.start_of(lease.record, None, floors[lease.record.grant]),
                    "since": now_s,
                    "reason": "loss_accepted",
                }
            )
            for name, lease in table.leases.items()
        }


def _seen(mark: LogMark, end: int) -> LogMark:
    return mark.model_copy(update={"end": max(mark.end, end)})
