"""What control did or noticed, as records: each kind has its fields, under the glossary's names.

What leads makes them, and operators read them back from the stream of events (`told_by`), where those of another version
lie, too. So a field that is missing there has a default here, and one that is not known here is left out. What is only
shown is shown from the stream as it is. The name of a kind is its class's, unless it is given: `InstanceLost` is `instance_lost`.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final

from aegis_sdk.contract.control import EventRecord, InstanceState
from pydantic import BaseModel, ConfigDict, ValidationError


class Event(BaseModel):
    """One thing that happened. `alarming`: it stands in the log as a warning."""

    model_config = ConfigDict(frozen=True)

    name: ClassVar[str]
    alarming: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    """What several kinds have in common, and no kind itself."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        if "shared" in vars(cls):
            return
        if "name" not in vars(cls):
            cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        KINDS[cls.name] = cls

    def details(self) -> dict[str, Any]:
        """What it says beside its name: what it was made with, no more."""
        return self.model_dump(exclude_unset=True)


KINDS: Final[dict[str, type[Event]]] = {}


def told_by(record: EventRecord) -> Event | None:
    """The event that was stored; None for a kind that is not known here, or can't be read."""
    kind = KINDS.get(record.event)
    if kind is None:
        return None
    try:
        return kind.model_validate(record.model_extra or {})
    except ValidationError:
        return None


# --- instances -----------------------------------------------------------------------------------
class OfInstance(Event):
    shared = True

    service: str = ""
    instance_id: str = ""


class InstanceRegistered(OfInstance):
    version: str = ""
    sdk_version: str = ""
    host: str = ""
    pid: int = 0
    returning: bool = False
    active: int = 0
    standby: int = 0


class ResourcesChanged(OfInstance):
    """It offers more, or less, while it runs. `vacant`: of those that it offers no more, how many nobody else could take."""

    added: int = 0
    removed: int = 0
    vacant: int = 0


class ContractBroken(OfInstance):
    """It was let in, and callers or instances with the contract before it can't read all that it writes, or it theirs."""

    alarming = True

    version: str = ""
    fields: list[str] = []


class RegistrationRefused(OfInstance):
    alarming = True

    error_code: str = ""
    reason: str = ""


class InstanceRecovered(OfInstance):
    """Heard again before anything of it had moved."""

    reason: str = ""


class InstanceDraining(OfInstance):
    reason: str = ""


class InstanceForgotten(OfInstance):
    """It did not return within the grace."""

    vacant: int = 0


class InstanceGone(OfInstance):
    """Its resources have moved, or nobody could take them."""

    shared = True

    reason: str = ""
    silence_s: float = 0.0
    resources: int = 0


class InstanceLost(InstanceGone):
    alarming = True


class InstanceStalled(InstanceGone):
    alarming = True


class InstanceEvicted(InstanceGone):
    alarming = True


class InstanceLeft(InstanceGone):
    """On purpose."""


GONE: Final[dict[InstanceState, type[InstanceGone]]] = {
    InstanceState.LOST: InstanceLost,
    InstanceState.STALLED: InstanceStalled,
    InstanceState.EVICTED: InstanceEvicted,
}


# --- leases --------------------------------------------------------------------------------------
class FailoverBegun(OfInstance):
    """Also a handover."""

    resources: int = 0
    reason: str = ""
    chosen: dict[str, str] = {}


class FailoverDone(OfInstance):
    resources: int = 0
    orphans: int = 0
    to: list[str] = []
    reason: str = ""
    duration_s: float = 0.0


class SpreadBegun(Event):
    """AUTO resources are being moved, so that instances are active for as many as their capacity says."""

    service: str = ""
    reason: str = ""
    active: dict[str, int] = {}
    """instance id: resources that it is active for."""
    chosen: dict[str, str] = {}


class SpreadDone(Event):
    service: str = ""
    reason: str = ""
    resources: int = 0
    active: dict[str, int] = {}
    duration_s: float = 0.0


class InstanceFenced(OfInstance):
    resources: list[str] = []


class LeaseGranted(OfInstance):
    epoch: int = 0
    """The highest of its resources' epochs."""
    epochs: dict[str, int] = {}
    resources: list[str] = []
    reason: str = ""

    def epoch_of(self, resource: str | None) -> int:
        return self.epoch if resource is None else self.epochs.get(resource, self.epoch)


# --- streams -------------------------------------------------------------------------------------
class RequestsForgotten(Event):
    service: str = ""
    requests: int = 0


class JournalTrimmed(Event):
    service: str = ""
    entries: int = 0


class JournalTrimHeldUp(Event):
    service: str = ""
    resource: str = ""
    reason: str = ""


class ConsumerMadeAgain(Event):
    service: str = ""
    reason: str = ""


class StreamMadeAgain(Event):
    alarming = True

    stream: str = ""
    reason: str = ""


class EventsNotProvided(Event):
    """The stream of what a service emits could not be made: its events wait."""

    alarming = True

    service: str = ""
    reason: str = ""


class BucketReplaced(Event):
    alarming = True

    reason: str = ""


class ValueUnreadable(Event):
    alarming = True

    where: str = ""
    key: str = ""
    revision: int = 0
    reason: str = ""


class LossNoticed(Event):
    name = "log_lost"
    alarming = True

    service: str = ""
    stream: str = ""
    reason: str = ""
    first_seq: int = 0
    last_seq: int = 0
    resources: list[str] = []
    do: str = ""


class LossForgiven(Event):
    name = "loss_accepted"
    alarming = True

    service: str = ""
    by: str = ""
    reason: str = ""
    losses: list[dict[str, Any]] = []


class TrafficPaused(Event):
    """An operator paused a resource, a method or a service."""

    alarming = True

    service: str = ""
    target: str = ""
    by: str = ""
    reason: str = ""


class TrafficResumed(Event):
    service: str = ""
    target: str = ""
    by: str = ""
    reason: str = ""
    duration_s: float = 0.0
    """For how long it was paused."""


class RequestDeadLettered(Event):
    alarming = True

    service: str = ""
    request_id: str = ""
    method: str = ""
    resource: str | None = None
    trace_id: str = ""
    error_code: str = ""
    reason: str = ""


# --- control itself ------------------------------------------------------------------------------
class LeaderElected(Event):
    leader: str = ""


class LeaderSteppedDown(Event):
    leader: str = ""
    reason: str = ""


class LeaderRecordUnreadable(Event):
    alarming = True

    key: str = ""
    reason: str = ""


class ControlStepFailed(Event):
    alarming = True

    step: str = ""
    reason: str = ""
    trace: str = ""


class OperatorChange(Event):
    """The audit trail: who asked for which change, and what came of it."""

    verb: str = ""
    by: str = ""
    ok: bool = False
    error_code: str = ""
    result: Any = ""
    instance_id: str = ""
    service: str | None = None
    resources: list[str] = []
    resource: str = ""
    request_id: str = ""
    to: str | None = None
    target: str = ""
    """Of `pause` and `resume`."""
    reason: str = ""
