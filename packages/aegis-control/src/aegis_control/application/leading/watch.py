"""Watching instances: heartbeats, closed connections and silence become states and failovers.

Nothing here waits: what needs NATS is handed to `spawn`. Time is this process's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence

from aegis_sdk.contract.control import (
    Command,
    CommandKind,
    Heartbeat,
    InstanceState,
    LeaseState,
)

from aegis_control.application.leading.event_streams import EventStreams
from aegis_control.application.leading.fail_over import FailOver
from aegis_control.application.leading.own import Leases
from aegis_control.application.leading.roster import Roster
from aegis_control.application.state import ControlState, Member, ServiceTable
from aegis_control.application.world import Spawn, World
from aegis_control.domain.events import InstanceRecovered
from aegis_control.domain.leading.connections import Connections
from aegis_control.domain.leading.liveness import Sign, judge, next_state

COMMAND_INTERVAL_S = 1.0
"""How often an instance is told again to register, or that it is evicted."""


class Watch:
    """Judges instances. `heard` and `closed` report what was seen; `tick` what was not."""

    def __init__(
        self,
        state: ControlState,
        world: World,
        roster: Roster,
        leases: Leases,
        fail_over: FailOver,
        event_streams: EventStreams,
        *,
        spawn: Spawn,
    ) -> None:
        self._state = state
        self._world = world
        self._roster = roster
        self._leases = leases
        self._fail_over = fail_over
        self._event_streams = event_streams
        self._spawn = spawn
        self._connections = Connections()
        self._confirming = False
        self._strangers: dict[tuple[str, str], float] = {}
        """(instance id, incarnation): when it was last told to register."""

    def heard(self, beat: Heartbeat) -> None:
        """A heartbeat arrived."""
        table = self._state.services.get(beat.service)
        member = table.members.get(beat.instance_id) if table else None
        if table is None or member is None or member.record.incarnation != beat.incarnation:
            self._call_stranger(beat)
            return
        if self._connections.have_closed(beat.session, beat.pulse):
            return  # sent before the process died, and slower than the news of it
        member.heard_at_s, member.heard = self._world.clock.monotonic(), True
        member.beat = beat
        if beat.wall_s:
            member.clock_offset_s = round(beat.wall_s - self._world.clock.wall(), 3)
        sign = judge(silence_s=0.0, loop_lag_s=beat.loop_lag_s, limits=self._world.limits)
        self._note(table, member, sign)
        if beat.lacking:
            self._event_streams.lacking(beat.lacking)
        self._agree(table, member, beat)

    def _agree(self, table: ServiceTable, member: Member, beat: Heartbeat) -> None:
        """What an instance was asked for and what it does may differ, when control or a command was lost."""
        state = member.record.state
        if state is InstanceState.LIVE and beat.draining:
            self._drains_by_itself(table, member)
        elif state is InstanceState.DRAINING and not beat.draining:
            self._tell(member, CommandKind.DRAIN)
        elif beat.offer > member.record.offer and not table.lock.locked():
            self._tell(member, CommandKind.REGISTER)  # it gave a change up that we may have made
        elif beat.paused and not table.handovers:
            self._tell(member, CommandKind.RESUME, table.owned_by(member.owner))

    def _drains_by_itself(self, table: ServiceTable, member: Member) -> None:
        member.enter(InstanceState.DRAINING, "drains by itself")
        self._spawn(self._note_draining(table, member))

    async def _note_draining(self, table: ServiceTable, member: Member) -> None:
        async with table.lock:
            if member.record.state is InstanceState.DRAINING:
                await self._roster.put_state(
                    table, member, InstanceState.DRAINING, reason=member.record.reason
                )

    def closed(self, session: str, reason: str) -> None:
        """The server saw a connection of an instance, or one that is called so, close."""
        if not self._connections.closed(session, reason):
            return
        for table, member in self._state.members():
            beat = member.beat
            named = beat is not None and session in (beat.session, beat.pulse)
            if beat and named and self._connections.have_closed(beat.session, beat.pulse):
                self._note(table, member, Sign.CLOSED)

    def forgive(self) -> None:
        """This process was cut off or asleep and may have missed things: judge nobody by the past."""
        now_s = self._world.clock.monotonic()
        for _, member in self._state.members():
            if member.record.state is not InstanceState.LOST:
                member.heard_at_s = now_s

    def tick(self) -> None:
        """Look for silence; call it several times in a heartbeat timeout."""
        now_s = self._world.clock.monotonic()
        silent = []
        for table, member in self._state.members():
            silence_s = now_s - member.heard_at_s
            sign = judge(silence_s=silence_s, loop_lag_s=0.0, limits=self._world.limits)
            if next_state(member.record.state, sign) is InstanceState.LOST:
                silent.append((table, member))
        if silent and not self._confirming:
            self._confirming = True
            self._spawn(self._confirm(silent))

    async def _confirm(self, silent: list[tuple[ServiceTable, Member]]) -> None:
        """Silence may be ours: cut off from NATS, or heartbeats that lie unread. Ask before judging."""
        try:
            await self._world.hearing.check()
        finally:
            self._confirming = False
        now_s = self._world.clock.monotonic()
        for table, member in silent:
            silence_s = now_s - member.heard_at_s
            sign = judge(silence_s=silence_s, loop_lag_s=0.0, limits=self._world.limits)
            if sign is Sign.SILENCE:
                self._note(table, member, sign)

    def _note(self, table: ServiceTable, member: Member, sign: Sign) -> None:
        state = member.record.state
        if state is InstanceState.EVICTED:
            self._tell(member, CommandKind.EVICT)
            return
        if state is InstanceState.LOST and sign is Sign.BEAT:
            self._heard_lost(table, member)
            return
        after = next_state(state, sign)
        if after is state:
            return
        if after is InstanceState.LIVE:
            self._spawn(self._recover(table, member))
        else:
            self._spawn(self._fail_over.lose(table, member, after, reason=sign.value))

    def _heard_lost(self, table: ServiceTable, member: Member) -> None:
        if table.lock.locked():
            return  # its leases may be moving just now; the next heartbeat finds it settled
        if member.keeps_leases:
            self._spawn(self._recover(table, member))
        else:
            self._tell(member, CommandKind.REGISTER)

    async def _recover(self, table: ServiceTable, member: Member) -> None:
        """Heard again before anything of it moved: it goes on with the same epochs."""
        async with table.lock:
            was = member.record.state
            lost_all = was is InstanceState.LOST and not member.keeps_leases
            if lost_all or was not in (InstanceState.LOST, InstanceState.STALLED):
                return
            await self._leases.put_in_state(
                table, table.owned_by(member.owner), LeaseState.HELD, reason="returned"
            )
            await self._roster.put_state(table, member, InstanceState.LIVE, reason="")
        self._world.events.emit(
            InstanceRecovered(
                service=table.name,
                instance_id=member.record.instance_id,
                reason=f"was {was.value}",
            )
        )

    def _tell(self, member: Member, kind: CommandKind, resources: Sequence[str] = ()) -> None:
        now_s = self._world.clock.monotonic()
        if now_s - member.told_at_s < COMMAND_INTERVAL_S:
            return
        member.told_at_s = now_s
        record = member.record
        self._send(record.instance_id, record.incarnation, kind, record.reason, resources)

    def _call_stranger(self, beat: Heartbeat) -> None:
        now_s = self._world.clock.monotonic()
        self._strangers = {
            who: at_s for who, at_s in self._strangers.items() if now_s - at_s < COMMAND_INTERVAL_S
        }
        who = (beat.instance_id, beat.incarnation)
        if who not in self._strangers:
            self._strangers[who] = now_s
            self._send(*who, CommandKind.REGISTER, "control does not know this instance")

    def _send(
        self,
        instance_id: str,
        incarnation: str,
        kind: CommandKind,
        reason: str,
        resources: Sequence[str] = (),
    ) -> None:
        command = Command(
            kind=kind, incarnation=incarnation, reason=reason, resources=list(resources)
        )
        self._spawn(self._world.instances.tell(instance_id, command))
