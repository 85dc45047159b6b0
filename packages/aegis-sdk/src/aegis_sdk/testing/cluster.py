"""A whole system in one test: instances that are killed, cut off and replaced, and a check that nothing was lost or doubled.

    async with testing.cluster(seed=7) as cluster:
        await cluster.serve(accounts, resources={"ACC-1"}, instance_id="one")
        await cluster.serve(accounts, resources={"ACC-1"}, instance_id="two")
        await cluster.aegis.request(BOOK, fill, resource="ACC-1")
        await cluster.kill("one")
        await cluster.aegis.request(BOOK, fill, resource="ACC-1")
        cluster.assert_exactly_once()

Time is virtual (virtual_time.py). The plugin for pytest has it as the fixture `cluster`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter

from aegis_sdk.context import ResourceContext
from aegis_sdk.contract.control import Role
from aegis_sdk.contract.envelope import Change
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.on_demand import Resources
from aegis_sdk.domain.turns.timers import Timers
from aegis_sdk.service import Service
from aegis_sdk.testing.bus import MemoryBus
from aegis_sdk.testing.faults import Fault, Faults, Op
from aegis_sdk.testing.harness import MemoryAegis, MemoryInstance
from aegis_sdk.testing.virtual_time import LIMIT_S, virtual_time

T = TypeVar("T")

MISSED_S: Final = 1.0
"""An instance that is cut off for so long is lost for control, as with its heartbeats."""
SETTLE_S: Final = 60.0


@asynccontextmanager
async def cluster(
    *, seed: int | None = None, virtual: bool = True, limit_s: float = LIMIT_S
) -> AsyncIterator[Cluster]:
    """An empty one. `seed` replays what faults draw; None: a new one. `limit_s`: of virtual time, for all of the block.

    Raises: TimeoutError, when that is over.
    """
    made = Cluster(random.randrange(1 << 32) if seed is None else seed)
    async with AsyncExitStack() as stack:
        if virtual:
            await stack.enter_async_context(virtual_time(busy=made.is_busy, limit_s=limit_s))
        stack.push_async_callback(made.close)
        yield made


class Cluster:
    """`aegis` is a client of it, and `faults` says what goes wrong on the way (chances, or once)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.faults = Faults(seed=seed)
        self.bus = MemoryBus(faults=self.faults)
        self.aegis = MemoryAegis(self.bus)
        self._clients = [self.aegis]
        self._missing: dict[str, asyncio.TimerHandle] = {}
        self._lost: set[str] = set()

    # --- who is there -------------------------------------------------------------------------------------------
    async def serve(
        self,
        service: Service,
        *,
        resources: Iterable[str] | Mapping[str, Role] | Resources = (),
        instance_id: str | None = None,
    ) -> MemoryInstance:
        """One more instance; the first one that offers a resource is its active, later ones are its standbys.
        What it takes on demand (Resources) comes with its first request.

        Raises: SecondActive.
        """
        return await self.aegis.serve(service, resources=resources, instance_id=instance_id)

    def client(self) -> MemoryAegis:
        """One more client, with a connection of its own."""
        self._clients.append(MemoryAegis(self.bus))
        return self._clients[-1]

    def instance(self, instance_id: str) -> MemoryInstance:
        """Raises: KeyError."""
        for each in self.aegis.instances:
            if each.id == instance_id:
                return each
        raise KeyError(f"no instance {instance_id!r}: {[each.id for each in self.aegis.instances]}")

    def active(self, resource: str, service: str | None = None) -> str | None:
        """The instance that control says is active for it; None: nobody. `service`: where several have it.

        Raises: KeyError, for a resource that nobody ever offered.
        """
        lease = self.bus.control.leases[self._service_of(resource, service), resource]
        return None if lease.state.is_unowned else lease.owner

    def is_busy(self) -> bool:
        """Whether a handler works in a thread."""
        return any(each.threads_at_work for each in self.aegis.instances)

    # --- what goes wrong ----------------------------------------------------------------------------------------
    async def kill(self, instance_id: str) -> None:
        """Its process is gone, whatever it did. Control gives its resources to their standbys. Raises: KeyError."""
        instance = self.instance(instance_id)
        self._forget(instance_id)
        self.aegis.instances.remove(instance)
        await instance.kill()

    async def failover(self, resource: str, service: str | None = None) -> str | None:
        """Kill its active; returns who is active for it now, or None. Raises: KeyError, when nobody is active for it."""
        active = self.active(resource, service)
        if active is None:
            raise KeyError(f"nobody is active for {resource!r}")
        await self.kill(active)
        return self.active(resource, service)

    def partition(self, instance_id: str) -> None:
        """NATS can't be reached from it until `heal`. After a second control takes it for lost. Raises: KeyError."""
        instance = self.instance(instance_id)
        instance.link.cut()
        loop = asyncio.get_running_loop()
        self._forget(instance_id)
        self._missing[instance_id] = loop.call_later(MISSED_S, self._is_missed, instance)

    async def heal(self, instance_id: str) -> None:
        """It reaches NATS again, and registers again if it was taken for lost. Raises: KeyError."""
        instance, was_lost = self.instance(instance_id), instance_id in self._lost
        self._forget(instance_id)
        instance.link.restore()
        if was_lost:
            await instance.register()

    def lose(self, what: Op | str, *, times: int = 1, answer: bool = False) -> None:
        """The next `times` of `what` never arrive: `"send"`, `"append"`, `"commit"`, `"reply"` …

        `answer`: it happens, and its answer is lost.
        """
        self.faults.once(Op(what), Fault.LOST_ANSWER if answer else Fault.LOST, times=times)

    def _is_missed(self, instance: MemoryInstance) -> None:
        self._missing.pop(instance.id, None)
        self._lost.add(instance.id)
        self.bus.control.lose(instance.service, instance.id)

    def _forget(self, instance_id: str) -> None:
        self._lost.discard(instance_id)
        if (timer := self._missing.pop(instance_id, None)) is not None:
            timer.cancel()

    # --- state --------------------------------------------------------------------------------------------------
    async def seed_state(self, service: str, resource: str, values: Mapping[str, Any]) -> None:
        """Give a resource a state before anybody serves it: what an earlier day left. Types as for `ctx.state.set`.

        Raises: SecondActive, when it has an active; InvalidPayload, for what can't be read back.
        """
        seeding, method = Service(service), Method(service, "seed-state", request=int, reply=int)

        @seeding.handles(method, pure=True)
        def fill(ctx: ResourceContext, count: int) -> int:
            for key, value in values.items():
                ctx.state.set(key, value)
            return count

        instance = await self.serve(seeding, resources={resource: Role.ACTIVE})
        await self.aegis.request(method, len(values), resource=resource)
        self.aegis.instances.remove(instance)
        await instance.drain()

    def state(self, resource: str, service: str | None = None) -> dict[str, Any]:
        """What its log says, as JSON values by key. Raises: KeyError, for a resource that nobody ever offered."""
        service = self._service_of(resource, service)
        values: dict[str, Any] = {}
        for record in self.bus.log(service).records():
            if record.resource == resource and record.outcome.change:
                change = Change.decode(record.outcome.change)
                values.update(change.set)
                for key in change.delete:
                    values.pop(key, None)
        return values

    def timers(self, resource: str, service: str | None = None) -> dict[str, float]:
        """When each of its timers is due (Unix time), by name, as its log says. Raises: KeyError, as `state`."""
        service = self._service_of(resource, service)
        timers, log = Timers(), self.bus.log(service)
        for record in log.records():
            if record.resource == resource:
                timers.ended(record.request_id)
                timers.apply(Change.decode(record.outcome.change))
        return {timer.name: timer.due_s for timer in timers.by_name.values()}

    def value(
        self, resource: str, key: str, type_: type[T], service: str | None = None
    ) -> T | None:
        """One of them, as `type_`. Raises: KeyError, as `state`; pydantic's ValidationError, when it is no `type_`."""
        found = self.state(resource, service).get(key)
        return None if found is None else TypeAdapter(type_).validate_python(found)

    def _service_of(self, resource: str, service: str | None) -> str:
        having = sorted({s for s, r in self.bus.control.leases if r == resource})
        if service is None and len(having) > 1:
            raise KeyError(f"{', '.join(having)} have a {resource!r}: name the service")
        if not having or (service or having[0]) not in having:
            raise KeyError(f"nobody ever offered {resource!r}")
        return service or having[0]

    # --- what must hold -----------------------------------------------------------------------------------------
    async def settle(self) -> None:
        """Wait until nothing that was accepted is open. Raises: TimeoutError, after a minute."""
        async with asyncio.timeout(SETTLE_S):
            while any(map(self._open, self.bus.services())):  # noqa: ASYNC110 - time is virtual
                await asyncio.sleep(0.05)

    def assert_exactly_once(self) -> None:
        """Each accepted request has one outcome, or its caller gave it up, and each resource's effects are counted without a gap (G1 to G3).

        Raises: AssertionError, which names the requests and the seed.
        """
        wrong = [line for service in self.bus.services() for line in self._wrong(service)]
        if wrong:
            raise AssertionError("\n".join([*wrong, f"cluster seed {self.seed}"]))

    def _wrong(self, service: str) -> Iterable[str]:
        records = self.bus.log(service).records()
        for request_id, count in Counter(record.request_id for record in records).items():
            if count > 1:
                yield f"{service}: {request_id} has {count} outcomes"
        for request_id in self._open(service):
            yield f"{service}: {request_id} was accepted and has no outcome"
        numbers: dict[str, int] = {}
        for record in records:
            number, resource = record.outcome.number, record.resource or ""
            if number and number != numbers.get(resource, 0) + 1:
                before = numbers.get(resource, 0)
                yield f"{service}: {resource}'s effect {number} comes behind effect {before}"
            numbers[resource] = number or numbers.get(resource, 0)

    def _open(self, service: str) -> list[str]:
        stream, log = self.bus.requests(service), self.bus.log(service)
        stored = (stream.get(seq) for seq in range(1, stream.last_seq + 1))
        return [r.request_id for r in stored if r is not None and not log.has_ended(r)]

    async def close(self) -> None:
        """At once; safe twice."""
        for timer in self._missing.values():
            timer.cancel()
        self._missing.clear()
        for client in self._clients:
            await client.close()
