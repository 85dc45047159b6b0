"""`forget`: an operator removes a service from everywhere.

Theory of operation. Refusals come first, while all is as it was: an instance is registered, a request waits. Then the request
stream takes no more, and is looked at once more: whatever was accepted meanwhile opens it again, and refuses. From there on
things only go. First what this replica knows, in memory, since what it knew would tell a loss when the streams are gone. Then
the leases, the mark of the streams, the dead letters, the request stream, the events, the journal that tells what has an outcome, and last
the contract.

So the service is listed until nothing else is left of it. A replica that dies in between leaves what can be forgotten again,
and what an instance can register with: leases without a mark are read from the streams, a mark without leases fits
streams without entries, a contract alone is that of a new service. All of it happens under the service's lock, which a
registration waits for. Registered again, the service begins new logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aegis_sdk.contract.control import ForgetService, Forgotten, InstanceState
from aegis_sdk.contract.names import check_service
from aegis_sdk.errors import InvalidName, Unavailable

from aegis_control.application.ports import Bucket, BucketEntry, NotWritten
from aegis_control.application.refusal import Refused
from aegis_control.application.state import ControlState, ServiceTable
from aegis_control.application.world import World

SHOWN_MAX = 5


@dataclass(frozen=True, slots=True)
class _Found:
    """All that there is of a service, as it was read."""

    contract: Sequence[BucketEntry]
    logs: Sequence[BucketEntry]
    instances: Sequence[BucketEntry]
    leases: Sequence[BucketEntry]
    streams: dict[str, tuple[str, int]]
    """By name: which log it is, and how many messages it holds."""
    dead_letters: int

    @property
    def is_nothing(self) -> bool:
        parts = (self.contract, self.logs, self.instances, self.leases, self.streams)
        return not any(parts) and not self.dead_letters


class Forget:
    """The verb."""

    def __init__(self, state: ControlState, world: World) -> None:
        self._state = state
        self._world = world

    async def __call__(self, data: bytes) -> Forgotten:
        """Raises: Refused, Unavailable."""
        order = ForgetService.model_validate_json(data)
        try:
            table = self._state.service(check_service(order.service))
        except InvalidName as error:
            raise Refused("invalid", str(error)) from error
        async with table.lock:
            found = await self._find(table.name)
            if found.is_nothing:
                raise Refused("not_found", f"nothing is here of a service {table.name!r}")
            self._nobody_is_there(table, found)
            await self._nothing_waits(table)
            if not order.dry_run:
                await self._close(table)
                await self._remove(table, found)
        return Forgotten(
            service=table.name,
            streams={name: messages for name, (_, messages) in found.streams.items()},
            leases=len(found.leases),
            records=len(found.contract) + len(found.logs) + len(found.instances),
            dead_letters=found.dead_letters,
            dry_run=order.dry_run,
        )

    # --- what is there -------------------------------------------------------------------------------
    async def _find(self, service: str) -> _Found:
        names = self._world.subjects
        registry = [e for e in await self._world.registry.load() if e.value is not None]
        leases = [e for e in await self._world.leases.load() if e.value is not None]
        streams = {}
        for stream in self._streams(service):
            sight, messages = await self._world.logs.look(stream), await self._world.logs.messages(
                stream
            )
            if sight is not None and messages is not None:
                streams[stream] = sight.id, messages
        return _Found(
            contract=[e for e in registry if e.key == names.service_key(service)],
            logs=[e for e in registry if e.key == names.logs_key(service)],
            instances=[e for e in registry if e.key.startswith(names.instance_key(service, ""))],
            leases=[e for e in leases if e.key.startswith(f"{service}.")],
            streams=streams,
            dead_letters=await self._world.letters.count(service),
        )

    def _streams(self, service: str) -> list[str]:
        names = self._world.subjects
        return [
            names.request_stream(service),
            names.emitted_stream(service),
            names.journal_stream(service),
        ]

    def _nobody_is_there(self, table: ServiceTable, found: _Found) -> None:
        """Also a record that can't be read is somebody's. Raises: Refused."""
        registered = [entry.key.split(".", 2)[2] for entry in found.instances]
        there = [name for name in registered if not self._is_out(table, name)]
        if there:
            raise Refused(
                "refused",
                f"{_some(there)} of {table.name} {'is' if len(there) == 1 else 'are'} registered: drain (ipc-cli"
                f" drain INSTANCE) or stop them first; one that is lost is forgotten after"
                f" {self._world.limits.return_grace_s:g} s",
            )
        if table.leases_behind:
            raise Refused(
                "refused", f"leases of {table.name} are written just now: ask again in a moment"
            )

    def _is_out(self, table: ServiceTable, instance_id: str) -> bool:
        """Disconnected, and not heard for so long that its process has ended, too."""
        member = table.members.get(instance_id)
        if member is None or member.record.state is not InstanceState.EVICTED:
            return False
        silence_s = self._world.clock.monotonic() - member.heard_at_s
        return silence_s > self._world.limits.return_grace_s

    async def _nothing_waits(self, table: ServiceTable) -> None:
        """Raises: Refused."""
        waiting = await self._world.requests.waiting(table.name)
        if waiting:
            lost = (
                f", once its loss is accepted (ipc-cli accept-loss {table.name})"
                if table.lost
                else ""
            )
            raise Refused(
                "refused",
                f"{len(waiting)} stored requests of {table.name} have no outcome, {waiting[0]} first: have an instance serve"
                f" them{lost}, or end them by `ipc-cli cancel`",
            )

    # --- the end -------------------------------------------------------------------------------------
    async def _close(self, table: ServiceTable) -> None:
        """Raises: Refused, when a request came before it was closed."""
        await self._world.requests.close(table.name)
        try:
            await self._nothing_waits(table)
        except BaseException:
            await self._world.requests.reopen(table.name)
            raise

    async def _remove(self, table: ServiceTable, found: _Found) -> None:
        table.forget()
        await self._delete(self._world.leases, self._world.subjects.leases_bucket, found.leases)
        registry = self._world.subjects.registry_bucket
        await self._delete(self._world.registry, registry, [*found.instances, *found.logs])
        await self._world.letters.drop_all(table.name)
        for stream in self._streams(table.name):  # one that is gone is remembered, too
            identity, _ = found.streams.get(stream, ("", 0))
            await self._world.logs.remove(stream, identity)
        await self._delete(self._world.registry, registry, found.contract)

    async def _delete(self, bucket: Bucket, name: str, entries: Sequence[BucketEntry]) -> None:
        """Raises: Unavailable, also when somebody else wrote one of them: forgetting again tells more."""
        results = await bucket.delete_all(entries)
        for entry, result in zip(entries, results, strict=True):
            if isinstance(result, NotWritten):
                raise Unavailable(
                    f"{entry.key} was not deleted ({result}): forget the service again"
                )
            self._state.unreadables.clear(name, entry.key)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return ", ".join(names[:SHOWN_MAX]) + more
