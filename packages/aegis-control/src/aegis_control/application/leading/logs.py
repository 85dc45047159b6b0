"""Noticing that a service's journal or requests lost something, and beginning again when an operator says so.

Goes in: the streams as they are, the marks that are kept of them, the positions that living instances report.
Comes out: a loss, kept in the registry, told by an event and to every instance. Invariant: while a loss is
kept, no resource is given to anybody and no gate is stored, so nobody serves from an older or empty log. Accepting it
gives the log a new identity behind all known positions, and every resource a new epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aegis_sdk.contract.control import (
    AcceptLoss,
    Command,
    CommandKind,
    Heartbeat,
    HoldRecord,
    LogMark,
    LogsRecord,
    Loss,
    LossAccepted,
    Registration,
    ResourceSeen,
)
from aegis_sdk.errors import Unavailable

from aegis_control.application.leading.own import Leases
from aegis_control.application.leading.roster import Roster
from aegis_control.application.ports import Write
from aegis_control.application.refusal import Refused
from aegis_control.application.state import ControlState, Member, ServiceTable, Told
from aegis_control.application.world import World
from aegis_control.domain.events import ConsumerMadeAgain, LossForgiven, LossNoticed
from aegis_control.domain.leading.logs import (
    Sight,
    behind,
    emptied,
    generation_of,
    loss_of,
    reported,
)

KEEP_INTERVAL_S = 5.0
"""How often the ends are kept for a control that starts later; those who live know better."""
_WRITE_TRIES = 3


@dataclass(frozen=True, slots=True)
class _Look:
    """A stream, what was known of it, and what is there."""

    stream: str
    mark: LogMark
    end: int
    sight: Sight | None


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
        if await self._leases.lacks(table):
            sight = await self._world.logs.look(journal)
            await self._lose(table, [self._lacking(table, journal, sight)] if sight else [])

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
        if table.logs is None:
            return
        if registration.journal_id == table.logs.journal.id:
            await self._prove(table, registration)
            _remember(table, registration)
        found = [*table.logs.losses]
        for stream in self._streams(table.name):
            loss = self._told(table, stream, registration)
            if loss is not None and all(known.stream != stream for known in found):
                found.append(loss)
        if len(found) > len(table.logs.losses):
            await self._lose(table, found)

    async def _prove(self, table: ServiceTable, registration: Registration) -> None:
        """Is the request stream the one whose positions the instance tells?"""
        requests, seq = self._streams(table.name)[1], registration.request_seq
        same = registration.requests_id == self._mark(table, requests).id
        if same and seq > table.told.proved_seq:
            held = await self._world.logs.request_at(requests, seq)
            if held == registration.request_id:
                table.told.proved_seq = seq

    def _told(self, table: ServiceTable, stream: str, by: Heartbeat | Registration) -> Loss | None:
        """What an instance saw of the log that is known here, or of a later one, which an older registry forgot."""
        log_id, seq, why = _word(by, of_journal=self._is_journal(table, stream))
        known, generation = self._mark(table, stream), generation_of(log_id)
        if generation > generation_of(known.id):
            table.told.latest_logs[stream] = max(generation, table.told.latest_logs.get(stream, 0))
            why = f"it was {log_id}, a later one"
        elif not why or log_id != known.id:
            return None
        return reported(stream, by.instance_id, why, max(seq, self._end(table, stream, known)))

    def _mark(self, table: ServiceTable, stream: str) -> LogMark:
        assert table.logs is not None
        return table.logs.journal if self._is_journal(table, stream) else table.logs.requests

    def _is_journal(self, table: ServiceTable, stream: str) -> bool:
        return stream == self._world.subjects.journal_stream(table.name)

    def _streams(self, service: str) -> tuple[str, str]:
        names = self._world.subjects
        return names.journal_stream(service), names.request_stream(service)

    def _end(self, table: ServiceTable, stream: str, mark: LogMark) -> int:
        """How far the log `mark` went, as far as anybody knows."""
        of_journal = self._is_journal(table, stream)
        words = [_word(beat, of_journal=of_journal) for beat in table.beats()]
        seen = [seq for log_id, seq, _ in words if log_id == mark.id]
        return max([mark.end, self._world.logs.seen_end(stream, mark.id), *seen])

    async def _emptied(self, table: ServiceTable, stream: str, sight: Sight) -> Loss | None:
        """The newest ownership entry stays for ever: a log without it was purged, or lost its end."""
        if await self._leases.lacks(table):
            return self._lacking(table, stream, sight)
        seq = table.owned.newest_seq if table.owned else 0
        if not seq or await self._world.logs.holds(stream, seq):
            return None
        await self._leases.restore(table)  # there may be a newer one, and the trim took this
        is_there = table.owned is not None and table.owned.newest_seq != seq
        return None if is_there else emptied(stream, sight, list(table.leases))

    def _lacking(self, table: ServiceTable, stream: str, sight: Sight) -> Loss:
        """Leases name what is not in the journal, as far as it was read."""
        if table.owned is not None and table.owned.newest_seq:
            return behind(stream, sight)
        return emptied(stream, sight, list(table.leases))

    def _reported(self, table: ServiceTable, stream: str) -> Loss | None:
        losses = (self._told(table, stream, beat) for beat in table.beats())
        return next((loss for loss in losses if loss is not None), None)

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

    async def keep_holds(self, table: ServiceTable) -> None:
        """What the log says is paused, for when that log is lost; and that it goes so far. Raises: Unavailable."""
        if table.logs is None or table.owned is None:
            return
        holds = {
            what: HoldRecord(since=hold.since_s, by=hold.by, reason=hold.reason)
            for what, hold in table.owned.holds.items()
        }
        if holds != table.logs.holds:
            journal = _seen(table.logs.journal, table.owned.newest_seq)
            await self._keep(
                table, table.logs.model_copy(update={"holds": holds, "journal": journal})
            )

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
            what = table.lost
            if not order.dry_run:
                await self._begin_again(table, table.logs)
        if not order.dry_run:
            self._world.events.emit(
                LossForgiven(
                    service=table.name,
                    by=order.by or "unknown",
                    reason=order.reason or what,
                    losses=[loss.model_dump(mode="json") for loss in accepted.losses],
                )
            )
        return accepted

    async def _begin_again(self, table: ServiceTable, known: LogsRecord) -> None:
        """Each step can be repeated; only the last one lets instances in."""
        lost = {loss.stream for loss in known.losses}
        journal, requests = self._streams(table.name)
        seen = self._seen_of_all(table, same_requests=requests not in lost)
        marks = [
            await self._next(table, stream, mark) if stream in lost else mark
            for stream, mark in ((journal, known.journal), (requests, known.requests))
        ]
        await self._world.requests.provision(table.name)
        await self._leases.begin_again(table, seen, log_id=marks[0].id)
        table.told = Told()
        record = LogsRecord(
            service=table.name, journal=marks[0], requests=marks[1], holds=known.holds
        )
        await self._keep(table, known.model_copy(update=dict(record)))

    async def _next(self, table: ServiceTable, stream: str, mark: LogMark) -> LogMark:
        """Behind all that anybody knew of the stream, in its later logs too."""
        assert table.logs is not None
        lost = [loss.last_seq for loss in table.logs.losses if loss.stream == stream]
        end = max([self._end(table, stream, mark), *lost])
        generation = max(generation_of(mark.id), table.told.latest_logs.get(stream, 0)) + 1
        return await self._world.logs.begin(stream, behind=end, generation=generation)

    def _seen_of_all(
        self, table: ServiceTable, *, same_requests: bool
    ) -> Mapping[str, ResourceSeen]:
        """What is known of every resource. Which requests are done counts in the same request log alone, up to where that is proved."""
        proved_seq = table.told.proved_seq if same_requests else 0
        known = {name: table.told.seen.get(name, ResourceSeen()) for name in table.leases}
        return {
            name: seen if seen.done <= proved_seq else ResourceSeen(epoch=seen.epoch)
            for name, seen in known.items()
        }


def _seen(mark: LogMark, end: int) -> LogMark:
    return mark.model_copy(update={"end": max(mark.end, end)})


def _word(by: Heartbeat | Registration, *, of_journal: bool) -> tuple[str, int, str]:
    """What an instance tells of one of the two logs: which it is, how far it was read, and what is lost of it."""
    if of_journal:
        return by.journal_id, by.journal_seq, by.log_lost
    return by.requests_id, by.request_seq, by.requests_lost


def _remember(table: ServiceTable, registration: Registration) -> None:
    """The furthest that any instance knew of each resource."""
    for resource, seen in registration.resources_seen.items():
        before = table.told.seen.get(resource, ResourceSeen())
        table.told.seen[resource] = ResourceSeen(
            epoch=max(seen.epoch, before.epoch), done=max(seen.done, before.done)
        )
