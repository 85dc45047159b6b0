"""Who serves what, followed from the registry's and the leases' buckets; needs NATS, not control. What follows from it is
decided by domain/routes.py.

A miss in what was followed is asked again at the bucket's leader before a caller is told so: its own
registration may be a moment ahead of what this client has read.

A record that can't be read, a stray or another version's, refuses nobody: a contract that can't be read is not checked,
a lease counts as held, an instance as there. The instance, or the deadline, has the last word anyway.

Theory of operation. What is followed is a copy that may lag, and it is used in one direction only. If it says that somebody
serves, the request is sent: at worst nobody answers, and the caller's doubt deals with that (G8). If it says that nobody
does, that is no answer yet, since a wrong "no" would be an error that nothing repairs. Then the leader of the bucket's
stream is asked (`_as_it_is`), which has every write that was ever acknowledged, and only its word refuses (`NoRoute`,
before anything is stored). A loss is the exception: it stands until it is accepted.

A service is followed from the first question about it on, by two readers for as long as the client lives. That costs a
bounded stream of changes. Asking the bucket for each request would cost a round trip for each.

Where there is no bucket, control never ran here; the next question begins again, since it may run by now. All waits are
bounded (READY_TIMEOUT_S): a reader that is slow, or can't be made, delays the first answer and never prevents it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from pydantic import ValidationError

from aegis_sdk.application.ports import StoreMissing, StoreUnreachable
from aegis_sdk.contract.control import (
    InstanceRecord,
    LeaseRecord,
    LeaseState,
    LogsRecord,
    ServiceRecord,
)
from aegis_sdk.contract.control import InstanceState as State
from aegis_sdk.contract.names import decode_token
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.values import field_errors
from aegis_sdk.domain.routes import Routes
from aegis_sdk.infrastructure.consumer import Meta, PullLoop, make_reader
from aegis_sdk.infrastructure.demands import Demands
from aegis_sdk.infrastructure.messages import last_message
from aegis_sdk.nats.link import Link, may_fail_unheard
from aegis_sdk.nats.wire import Message
from aegis_sdk.telemetry import log

FOLLOW_CREDIT: Final = 1000
"""Records on their way to a follower. They are small, and a large service has ten thousand leases to begin with."""
READY_TIMEOUT_S: Final = 3.0
"""How long a question waits until what is followed has been read up to now."""
STOPPED: Final = "the client was closed"
_DELETED: Final = ("DEL", "PURGE")
"""What a bucket's header says of a key that is no more: its last message stays as a marker."""
_TOLD_MAX: Final = 100
"""Unreadable values that are told of; each once."""

R = TypeVar("R", ServiceRecord, InstanceRecord, LeaseRecord, LogsRecord)


class NatsDirectory:
    """Directory (application/ports.py), of one client; `stop` ends it with the client.

    Invariants: a service that stands in `_services` has a task in `_followed`, unless its buckets were missing; `_loops` holds
    every reader that was started, so that `stop` ends them all. What `_services` holds is changed by the readers' callbacks
    and, for a contract read at the leader, by `check`.
    """

    def __init__(self, link: Link, subjects: Subjects) -> None:
        self._link = link
        self._subjects = subjects
        self._services: dict[str, Routes] = {}
        self._followed: dict[str, asyncio.Task[None]] = {}
        self._loops: list[PullLoop] = []
        self._stopped = False
        self._demands = Demands(link, subjects)
        self._told: set[str] = set()
        """Keys whose values could not be read."""

    def admits(
        self, service: str, method: str, resource: str | None, *, is_read: bool = False
    ) -> bool:
        known = self._services.get(service)
        return known is not None and known.admits(method, resource, is_read=is_read)

    def members(self, service: str) -> Sequence[str]:
        known = self._services.get(service)
        return known.members if known else ()

    def takers(self, service: str, takes: str) -> Sequence[str]:
        if not self._stopped:
            self._begin_following(service)
        known = self._services.get(service)
        return known.takers(takes) if known else ()

    def lost(self, service: str) -> str:
        known = self._services.get(service)
        return known.lost if known else ""

    def requests_log(self, service: str) -> str:
        if not self._stopped:
            self._begin_following(service)
        return self._services[service].requests_log if service in self._services else ""

    async def check(
        self, service: str, method: str, resource: str | None, *, is_read: bool = False
    ) -> None:
        await self._follow(service)
        if self.admits(service, method, resource, is_read=is_read):
            return
        # What is known says no: nobody has it yet, or this client has not read that somebody does.
        known = self._services[service]
        if resource is not None and known.may_come(method, resource, is_read=is_read):
            await self._demands.demand(known, resource)
            return
        if not known.lost:
            known, contract_read = await self._as_it_is(known, resource)
        else:
            contract_read = True
        refusal = known.refusal(method, resource, contract_read=contract_read, is_read=is_read)
        if refusal is not None:
            raise refusal

    async def stop(self) -> None:
        """Who waits in `check` gets StoreUnreachable; what was known stays known. Safe twice."""
        self._stopped = True
        for task in self._followed.values():
            task.cancel()
        self._demands.stop()
        for loop in self._loops:
            await loop.stop()

    # --- reading at the leader ------------------------------------------------------------------------------
    async def _as_it_is(self, known: Routes, resource: str | None) -> tuple[Routes, bool]:
        """What the leaders have of the service and of what `resource` needs; and whether its contract can be read.

        Two reads. It makes Routes of its own: only the contract goes into what is followed, since that is never taken
        back. A lease that was read here may be older, a moment later, than what the follower has. Raises: StoreError.
        """
        service = known.service
        key = self._subjects.service_key(service)
        data = await self._read(self._subjects.registry_bucket, key)
        if data is None:
            return Routes(service, known.prefix), True
        record = self._record(ServiceRecord, key, data)
        if record is not None:
            known.learn(record)
        found = Routes(
            service,
            known.prefix,
            registered=True,
            targeted=known.targeted,
            reads=known.reads,
        )
        if resource is not None:
            state = await self._read_lease(service, resource)
            found.leases = {} if state is None else {resource: state}
        elif known.serves(None) or await self._any_instance(service):
            found.instances = {"": State.LIVE}
        return found, record is not None

    async def _read_lease(self, service: str, resource: str) -> LeaseState | None:
        """None: there is no lease, so nobody ever offered the resource. Raises: StoreError."""
        key = self._subjects.lease_key(service, resource)
        data = await self._read(self._subjects.leases_bucket, key)
        return None if data is None else self._lease_state(key, data)

    def _lease_state(self, key: str, data: bytes) -> LeaseState:
        """HELD for one that can't be read: another version granted it, so somebody may well serve."""
        record = self._record(LeaseRecord, key, data)
        return LeaseState.HELD if record is None else record.state

    def _record(self, kind: type[R], key: str, data: bytes) -> R | None:
        """None for what can't be read, which is told once."""
        try:
            return kind.read(key, data)
        except ValueError as error:
            if key not in self._told and len(self._told) < _TOLD_MAX:
                self._told.add(key)
                reason = (
                    "; ".join(field_errors(error))
                    if isinstance(error, ValidationError)
                    else str(error)
                )
                log.warning("value_unreadable", key=key, reason=reason)
            return None

    async def _any_instance(self, service: str) -> bool:
        """The newest record of all may be of one that left: then every instance's own is read.

        One round trip where an instance is there, as nearly always. Raises: StoreError.
        """
        bucket, key = self._subjects.registry_bucket, self._subjects.instance_key(service, "*")
        if await self._read(bucket, key) is not None:
            return True
        messages = await self._link.newest(
            f"KV_{bucket}", [f"$KV.{bucket}.{key}"], timeout_s=READY_TIMEOUT_S
        )
        return any(message.headers.get("KV-Operation") not in _DELETED for message in messages)

    async def _read(self, bucket: str, key: str) -> bytes | None:
        """A key's value at the bucket's leader; None for a key that is not there, or was deleted. `key` may have wildcards:
        then it is the newest of all that match. Raises: StoreError.
        """
        try:
            found = await last_message(self._link, f"KV_{bucket}", f"$KV.{bucket}.{key}")
        except StoreMissing:
            return None  # control never ran here: nothing is registered
        if found is None or found.headers.get("KV-Operation") in _DELETED:
            return None
        return found.payload

    # --- following ------------------------------------------------------------------------------------------
    async def _follow(self, service: str) -> None:
        """Return when the buckets were read up to now; calls side by side share one reading."""
        if self._stopped:
            raise StoreUnreachable(STOPPED)
        task = self._begin_following(service)
        # Too late is no error: a miss is asked at the leader, which says more.
        await asyncio.wait({task}, timeout=READY_TIMEOUT_S)
        if task.cancelled():
            raise StoreUnreachable(STOPPED)
        if task.done():
            task.result()

    def _begin_following(self, service: str) -> asyncio.Task[None]:
        """The task that has read, or is reading, the buckets for the first time. One that failed is begun anew."""
        if service not in self._services:
            self._services[service] = Routes(service, self._subjects.prefix)
        task = self._followed.get(service)
        if task is None or (task.done() and not task.cancelled() and task.exception()):
            task = self._followed[service] = asyncio.create_task(self._start(service))
            task.add_done_callback(may_fail_unheard)
        return task

    async def _start(self, service: str) -> None:
        try:
            await self._read_buckets(service)
        except NoBucket:  # the next check begins again: control may have come meanwhile
            self._followed.pop(service, None)

    async def _read_buckets(self, service: str) -> None:
        """The registry first: a lease means nothing to a client that does not know the contract. Raises: NoBucket,
        StoreForbidden.
        """
        known = self._services[service]
        registry, leases = self._subjects.registry_bucket, self._subjects.leases_bucket
        records = f"$KV.{registry}."
        await self._read_bucket(
            registry,
            [
                records + self._subjects.service_key(service),
                records + self._subjects.logs_key(service),
                records + self._subjects.instance_key(service, "*"),
            ],
            lambda message: self._learn_registry(known, message),
        )
        await self._read_bucket(
            leases,
            [f"$KV.{leases}.{service}.*"],
            lambda message: self._learn_lease(known, message),
        )

    async def _read_bucket(
        self, bucket: str, filters: list[str], learn: Callable[[Message], None]
    ) -> None:
        """Follow these keys for ever; return when all that is there now was learned, or READY_TIMEOUT_S is over.

        A bucket keeps one message a key, so "the last of each" gives all of it, and after a gap, once more. A value that comes
        twice is learned twice, which changes nothing. Raises: NoBucket, StoreForbidden.
        """
        caught_up = asyncio.Event()

        async def make(again: bool, timeout_s: float) -> str:
            try:
                name, _, waiting = await make_reader(
                    self._link,
                    f"KV_{bucket}",
                    filters,
                    {"deliver_policy": "last_per_subject"},
                    timeout_s=timeout_s,
                )
            except StoreMissing:
                if again:
                    raise
                raise NoBucket from None
            if not waiting:
                caught_up.set()
            return name

        def on_message(message: Message, meta: Meta) -> None:
            learn(message)
            if not meta.pending:
                caught_up.set()

        loop = PullLoop(
            self._link,
            f"KV_{bucket}",
            make=make,
            on_message=on_message,
            credit=FOLLOW_CREDIT,
            in_order=True,
            holds=False,
            owned=True,
        )
        await loop.start()
        self._loops.append(loop)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await caught_up.wait()
        except TimeoutError:
            return  # slow today; a miss is asked at the leader

    def _learn_registry(self, known: Routes, message: Message) -> None:
        """By the key's first word: `service.<name>` has the contract, `logs.<name>` what its streams are,
        `instance.<name>.<id>` one that offers it. Only an instance is taken away by its deletion. A deleted contract or
        lease changes nothing here.
        """
        deleted = message.headers.get("KV-Operation") in _DELETED
        key = message.subject.split(".", 2)[2]
        kind, _, rest = key.partition(".")
        if kind == "service":
            if not deleted and (record := self._record(ServiceRecord, key, message.data)):
                known.learn(record)
            return
        if kind == "logs":
            logs = None if deleted else self._record(LogsRecord, key, message.data)
            known.lost = logs.lost if logs else ""
            known.requests_log = logs.requests.id if logs else known.requests_log
            return
        instance_id = rest.partition(".")[2]
        instance = None if deleted else self._record(InstanceRecord, key, message.data)
        state = instance.state if instance else State.LIVE
        on_demand = instance.on_demand if instance else None
        takes = instance.takes if instance else ()
        known.learn_instance(instance_id, None if deleted else state, on_demand, takes)

    def _learn_lease(self, known: Routes, message: Message) -> None:
        if message.headers.get("KV-Operation") in _DELETED:
            return
        key = message.subject.split(".", 2)[2]
        with contextlib.suppress(ValueError):  # a key of no resource
            resource = decode_token(key.partition(".")[2])
            known.leases[resource] = self._lease_state(key, message.data)


class NoBucket(Exception):
    """Control never ran on this NATS. A bucket that goes later is waited for: control makes it again."""
