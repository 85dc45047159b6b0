"""May a request be sent? What the registry and the leases say of one service, and the refusal that follows from it.

In goes what was read of records, however it was read; out comes whether somebody is there to serve, or the error for the caller.
What is not known refuses nobody for good: whoever read it some time ago reads again before it asks for `refusal`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from aegis_sdk.contract.control import InstanceState, LeaseState, OnDemand, ServiceRecord
from aegis_sdk.errors import (
    AegisError,
    ContractError,
    LogLost,
    NoRoute,
    UnknownMethod,
    UnknownService,
)


@dataclass(slots=True)
class Routes:
    """What is known of one service."""

    service: str
    prefix: str = ""
    """Of this environment, for the error of who looks in the wrong one."""
    registered: bool = False
    targeted: dict[str, bool] = field(default_factory=dict)
    """By method; empty when the contract is not known."""
    reads: frozenset[str] = frozenset()
    """Those methods that are read, not requested."""
    instances: dict[str, InstanceState] = field(default_factory=dict)
    takes: dict[str, frozenset[str]] = field(default_factory=dict)
    """By instance: the events that it subscribes to, each `<service>.<event>`."""
    members: list[str] = field(default_factory=list)
    """The live ones of them, sorted."""
    on_demand: dict[str, OnDemand] = field(default_factory=dict)
    """What instances take when it is asked for, by instance."""
    leases: dict[str, LeaseState] = field(default_factory=dict)
    requests_log: str = ""
    """The identity of its request stream, as far as it is known."""
    lost: str = ""
    """What its streams lost; nothing is served, and nothing sent, until that is accepted."""

    def learn(self, record: ServiceRecord) -> None:
        self.registered = True
        self.targeted = {method.name: method.targeted for method in record.methods}
        self.reads = frozenset(method.name for method in record.methods if method.reads)

    def learn_instance(
        self,
        instance_id: str,
        state: InstanceState | None,
        on_demand: OnDemand | None = None,
        takes: Iterable[str] = (),
    ) -> None:
        """None: it is gone."""
        self.on_demand.pop(instance_id, None)
        if state is None:
            self.instances.pop(instance_id, None)
        else:
            self.instances[instance_id] = state
        if state is InstanceState.LIVE and on_demand is not None:
            self.on_demand[instance_id] = on_demand
        self.takes[instance_id] = frozenset(takes)
        self.members = sorted(n for n, s in self.instances.items() if s is InstanceState.LIVE)

    def takers(self, takes: str) -> list[str]:
        """The live instances that subscribe to it, sorted."""
        return [name for name in self.members if takes in self.takes.get(name, ())]

    def admits(self, method: str, resource: str | None, *, is_read: bool = False) -> bool:
        """Whether a request, or a read, can be sent, as far as is known."""
        if self.lost or self.targeted.get(method) is not (resource is not None):
            return False
        if (method in self.reads) is not is_read:
            return False
        return self.serves(resource)

    def may_come(self, method: str, resource: str | None, *, is_read: bool) -> bool:
        """Whether the resource is to be asked for first: nobody has it, and somebody takes it on demand."""
        if self.lost or resource is None or not self.targeted.get(method):
            return False
        if (method in self.reads) is not is_read or self.serves(resource):
            return False
        if self.leases.get(resource) is LeaseState.RETIRED:
            return False
        return any(each.matches(resource) for each in self.on_demand.values())

    def serves(self, resource: str | None) -> bool:
        """Whether an instance is there. One that is expected back counts: its requests wait."""
        if resource is None:
            return any(state is not InstanceState.EVICTED for state in self.instances.values())
        return not self.leases.get(resource, LeaseState.VACANT).is_unowned

    def refusal(
        self,
        method: str,
        resource: str | None,
        *,
        contract_read: bool = True,
        is_read: bool = False,
    ) -> AegisError | None:
        """Why a request can't be sent; None if it can. A contract that can't be read is not checked."""
        if self.lost:
            return LogLost(
                f"{self.lost}: nothing of {self.service} is served until an operator accepts the loss"
                f" (ipc-cli accept-loss {self.service})"
            )
        if not self.registered:
            return UnknownService(
                f"service {self.service!r} was never registered here: start an instance of it, or check"
                f" its name and the prefix ({self.prefix!r})"
            )
        if contract_read and (error := self._misfit(method, resource, is_read)) is not None:
            return error
        if self.serves(resource):
            return None
        if resource is not None and self.leases.get(resource) is LeaseState.RETIRED:
            return NoRoute(
                f"resource {resource!r} of service {self.service!r} was retired by an operator: an instance that offers"
                " it brings it back"
            )
        what = f"resource {resource!r} of " if resource is not None else ""
        return NoRoute(f"{what}service {self.service!r} has no instance now")

    def _misfit(self, method: str, resource: str | None, is_read: bool) -> AegisError | None:
        targeted = self.targeted.get(method)
        if targeted is None:
            names = ", ".join(sorted(self.targeted)) or "none"
            return UnknownMethod(
                f"service {self.service!r} has no method {method!r}; it has: {names}"
            )
        if (method in self.reads) is not is_read:
            verb = "read: ask by aegis.read" if not is_read else "handled: ask by aegis.request"
            return ContractError(f"{self.service}.{method} is {verb}")
        if targeted and resource is None:
            return ContractError(f"{self.service}.{method} needs a resource: pass resource=…")
        if not targeted and resource is not None:
            return ContractError(f"{self.service}.{method} serves the group: it takes no resource")
        return None
