"""What instances, control and operators say to each other: models on the wire and in the buckets.

All JSON. Times are Unix seconds and for people only: no decision compares clocks of two machines.
Versions meet here: fields that a version does not know are left out of messages, and are kept in records,
which are read, changed and written again. A record that can't be read is never written over by a guess.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field

from aegis_sdk.contract import arguments
from aegis_sdk.contract.bodies import Count, Token
from aegis_sdk.contract.names import check_instance, check_service, encode_token
from aegis_sdk.contract.on_demand import STANDBYS_MAX, Resources, matches
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.errors import InvalidArgument, InvalidName
from aegis_sdk.words import said, said_type

PROTOCOL: Final = 1
"""What this version speaks with control, in logs and in messages. It rises when one that has it can't work with one that has not."""
PROTOCOL_MIN: Final = 1
"""The oldest that this version works with."""


class Compatibility(StrEnum):
    """What becomes of an instance whose contracts break callers of those that are registered."""

    STRICT = "strict"
    """It is refused."""
    WARN = "warn"
    """It serves, and an event says what breaks."""
    OFF = "off"
    """Nobody compares."""


def misfit(protocol: int, *, instance: str, sdk_version: str) -> str:
    """Why an instance of that protocol can't work with a control of this version; empty when it can."""
    if PROTOCOL_MIN <= protocol <= PROTOCOL:
        return ""
    of = f"{instance} speaks protocol {protocol} (aegis-sdk {sdk_version or '?'})"
    spoken = f"{PROTOCOL_MIN} to {PROTOCOL}" if PROTOCOL_MIN < PROTOCOL else f"{PROTOCOL}"
    what = "control" if protocol > PROTOCOL else "the instance's aegis-sdk"
    return f"{of}, and control {spoken}: upgrade {what} first"


class Role(StrEnum):
    """What an instance offers to be for a resource."""

    ACTIVE = "active"
    """Be the active from the start; refused while another one is."""
    STANDBY = "standby"
    """Follow, and take over when the active fails."""
    AUTO = "auto"
    """One of those that offer it is the active, as control spreads them; the others stand by."""


def roles_of(resources: object) -> dict[str, Role]:
    """What an instance offers, as users give it. Raises: InvalidArgument, InvalidName."""
    given = arguments.mapping(resources, "resources", '{"ACC-1": Role.AUTO}')
    return {_resource(name): _role(name, role) for name, role in given.items()}


def _resource(name: object) -> str:
    name = arguments.text(name, "a resource's id")
    encode_token(name)
    return name


def _role(resource: str, role: object) -> Role:
    try:
        return Role(role)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        raise InvalidArgument(
            f"the role for resource {resource!r} must be one of {', '.join(map(str, Role))}, and is"
            f" {said(role, chars_max=40)!r} ({said_type(role)}): give a Role"
        ) from None


Capacity = Annotated[float, Field(ge=arguments.CAPACITY_MIN, le=arguments.CAPACITY_MAX)]


class InstanceState(StrEnum):
    LIVE = "live"
    STALLED = "stalled"
    """Heartbeats arrive, but its main loop has not run for longer than the stall limit."""
    DRAINING = "draining"
    LOST = "lost"
    """No heartbeats; kept for the return grace, in which requests still wait for it."""
    EVICTED = "evicted"
    """Disconnected by an operator; this run of it may not register again."""


class LeaseState(StrEnum):
    HELD = "held"
    WAITING = "waiting"
    """The active is lost and no standby exists; requests wait for a return within the grace."""
    VACANT = "vacant"
    """Nobody is expected: requests are refused with NoRoute."""
    RETIRED = "retired"
    """An operator ended the resource: the same, and nothing is missing."""
    IDLE = "idle"
    """Nobody asked for it for a while: its next request brings it back."""

    @property
    def is_unowned(self) -> bool:
        return self is not LeaseState.HELD and self is not LeaseState.WAITING


class _Wire(BaseModel):
    # JSON has no NaN and no infinity: written again, they could not be read.
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class _Record(_Wire):
    """A value of a bucket. Fields of a newer version stay in it when it is changed and written."""

    model_config = ConfigDict(extra="allow")

    @property
    def key(self) -> str:
        """Where it belongs. Raises: InvalidName."""
        raise NotImplementedError

    @classmethod
    def read(cls, key: str, value: bytes) -> Self:
        """Raises: ValueError, saying why, for what is no record of this version or not of this key."""
        record = cls.model_validate_json(value)
        try:
            belongs = record.key
        except InvalidName as error:
            raise ValueError(str(error)) from error
        if belongs != key:
            raise ValueError(f"it says that it is {belongs}")
        return record


# --- the registry bucket -------------------------------------------------------------------------
class MethodSpec(_Wire):
    """A method as registered: its JSON schemas."""

    model_config = ConfigDict(extra="allow")

    name: str
    targeted: bool = False
    """Its handler needs a resource; a group request to it is refused at the caller."""
    reads: bool = False
    """It is answered from a resource's state, and nothing of it is stored."""
    takes: str = ""
    """`<service>.<event>` that it is the handler of: it is a subscription."""
    urgent: bool = False
    """Its requests pass those of their resource that wait."""
    request_schema: dict[str, Any] = {}
    reply_schema: dict[str, Any] = {}


class EventSpec(_Wire):
    """An event that a service says it emits."""

    model_config = ConfigDict(extra="allow")

    name: str
    payload_schema: dict[str, Any] = {}


class ServiceRecord(_Record):
    """`service.<service>`: kept after its last instance left, so that callers can tell typos apart."""

    service: str
    methods: list[MethodSpec]
    events: list[EventSpec] = []
    version: str = ""

    @property
    def key(self) -> str:
        return Subjects.service_key(check_service(self.service))


class OnDemand(_Wire):
    """What an instance takes when it is asked for (contract/on_demand.py)."""

    model_config = ConfigDict(extra="allow")

    patterns: list[str]
    standbys: int = Field(1, ge=0, le=STANDBYS_MAX)

    @classmethod
    def of(cls, given: Resources | None) -> OnDemand | None:
        """What control is told of what `serve` was given."""
        if given is None:
            return None
        return cls(patterns=list(given.patterns), standbys=given.standbys)

    def matches(self, resource: str) -> bool:
        return matches(self.patterns, resource)


class InstanceRecord(_Record):
    """`instance.<service>.<instance>`: deleted when it left, or was lost for the return grace."""

    service: str
    instance_id: str
    incarnation: str
    version: str = ""
    sdk_version: str = ""
    protocol: int = 1
    host: str = ""
    pid: int = 0
    state: InstanceState = InstanceState.LIVE
    resources: dict[str, Role] = {}
    takes: list[str] = []
    """What it subscribes to, each `<service>.<event>`."""
    offer: Count = 0
    """Which of the instance's offers `resources` is."""
    on_demand: OnDemand | None = None
    zone: str = ""
    capacity: Capacity = 1.0
    since: float = 0.0
    reason: str = ""

    @property
    def key(self) -> str:
        return Subjects.instance_key(check_service(self.service), check_instance(self.instance_id))


class LogMark(_Wire):
    """A stream of a service as control knows it: positions count only under this identity."""

    id: str = ""
    end: Count = 0
    """The highest sequence that was seen; kept now and then."""


class Loss(_Wire):
    """What a stream does not hold any more, as far as anybody can tell."""

    stream: str
    what: str
    """What happened to it, for people: `is gone`, `is an older copy`."""
    first_seq: Count
    last_seq: Count
    resources: list[str] = []
    """The first of those it concerns; empty: all of the service."""


class HoldRecord(_Wire):
    """Something that operators have paused (contract/turns/holds.py), as control keeps it beside the log."""

    since: float
    by: str = ""
    reason: str = ""


class LogsRecord(_Record):
    """`logs.<service>`: which streams the service's positions are in. While something is lost, nobody serves."""

    service: str
    journal: LogMark
    requests: LogMark
    losses: list[Loss] = []
    holds: dict[str, HoldRecord] = {}
    """What is paused, for when the journal that says so is lost."""

    @property
    def key(self) -> str:
        return Subjects.logs_key(check_service(self.service))

    @property
    def lost(self) -> str:
        """What is lost, in words; empty when nothing is."""
        return "; ".join(
            f"{loss.stream} {loss.what} (sequences {loss.first_seq} to {loss.last_seq})"
            for loss in self.losses
        )


# --- the subscriptions bucket -------------------------------------------------------------------
class SubscriptionRecord(_Record):
    """`<service>.<emitter>.<event>`: how far a subscription is. Who relays it writes it."""

    service: str
    takes: str
    """`<emitter>.<event>`."""
    stream: str
    """Which stream the position is of."""
    generation: Count = 1
    """It rises when the stream is not the one that it was."""
    seq: Count
    """Up to there all events were taken."""
    name: str = ""
    """Of the event at that place."""
    taken_s: float = 0.0
    """When that one was stored."""
    since: float = 0.0

    @property
    def key(self) -> str:
        emitter, _, event = self.takes.partition(".")
        takes = f"{check_service(emitter)}.{check_service(event)}"
        return Subjects.subscription_key(check_service(self.service), takes)


# --- the leases bucket ---------------------------------------------------------------------------
class LeaseRecord(_Record):
    """`<service>.<resource token>`: who is active. Never deleted: the epoch must not restart."""

    service: str
    resource: str
    state: LeaseState
    owner: str
    incarnation: str
    epoch: Count
    since: float = 0.0
    reason: str = ""

    @property
    def key(self) -> str:
        return Subjects.lease_key(check_service(self.service), self.resource)


# --- instance to control -------------------------------------------------------------------------
class ResourceSeen(_Wire):
    """What an instance knew of a resource when its logs were lost."""

    epoch: Count = 0
    done: Count = 0
    """Its last request that had an outcome."""


class Registration(_Wire):
    """Request on `ctl.register`. `returning`: it was registered before and lost touch (roles become AUTO)."""

    service: str
    instance_id: str
    incarnation: str
    journal_id: str = ""
    """Which journal it knew so far; empty at its first registration."""
    requests_id: str = ""
    """Of the requests, likewise."""
    journal_seq: int = 0
    """How far it read or wrote the journal."""
    request_seq: int = 0
    request_id: str = ""
    """The newest request that it was given."""
    log_lost: str = ""
    """What it saw that tells that the journal is not that one any more."""
    requests_lost: str = ""
    """The same of the requests."""
    resources_seen: dict[str, ResourceSeen] = {}
    """What it knew of its resources in those."""
    version: str = ""
    sdk_version: str = ""
    protocol: int = 1
    """The first versions did not say."""
    compatibility: Compatibility = Compatibility.WARN
    host: str = ""
    pid: int = 0
    methods: list[MethodSpec]
    events: list[EventSpec] = []
    resources: dict[str, Role] = {}
    offer: Count = 0
    """It rises with each change of `resources` while the instance runs: of two, the later one counts."""
    on_demand: OnDemand | None = None
    """What it takes besides, when it is told to."""
    zone: str = ""
    """What fails together with it; empty: its host."""
    capacity: Capacity = 1.0
    """How much it is to be active for, beside the other instances."""
    returning: bool = False
    renews: str = ""
    """The run that this one takes the place of, in the same process: its log was lost, or it had fallen behind it."""


class ResourcesChange(_Wire):
    """Request on `ctl.resources`: what a registered instance offers more, or no more. Answered with RegistrationReply.

    It makes the offer `offer`. What it removes it has paused: nothing of that is under way any more.
    """

    service: str
    instance_id: str
    incarnation: str
    offer: Count
    add: dict[str, Role] = {}
    remove: list[str] = []
    rests: bool = False
    """What it removes was idle: nobody is to be active for it, until it is asked for."""


NOT_REGISTERED: Final = "not_registered"
"""Code of the answer to a change by an instance that control does not know: it has to register first."""


class RegistrationReply(_Wire):
    """`ok`, or a `code` (second_active, evicted, invalid, protocol, incompatible, busy, log_lost, draining, not_registered,
    internal) with a message for people.

    `busy` means: ask again after `retry_after_s` (an old active is being judged just now); so does
    `log_lost`, until an operator has accepted the loss.
    """

    ok: bool
    code: str = ""
    message: str = ""
    retry_after_s: float = 0.0
    heartbeat_interval_s: float = 0.2
    outcome_ttl_s: float = 86_400.0
    """How long outcomes of group requests are kept."""
    ack_wait_s: float = 1.0
    """The group consumer's: extend it while a handler runs."""
    replicas: int = 1
    """Copies of the journal: with several, storing many outcomes at once costs little more than one."""
    journal_id: str = ""
    """The identity of the journal that the instance will read and write."""
    requests_id: str = ""
    """That of the requests."""
    log_after: Count = 0
    """What the journal has of added resources without a checkpoint stands behind this. Of a registration: all that it will
    be given on demand."""
    log_end: Count = 0
    """Of a change: the journal's entries that carry it out stand up to here."""
    protocol: int = 1
    """What control speaks."""
    protocol_min: int = 1
    """The oldest that it works with."""


class Leave(_Wire):
    """Request on `ctl.leave`: the instance has finished what it began; its leases can move now."""

    service: str
    instance_id: str
    incarnation: str
    reason: str = ""


class Ack(_Wire):
    """Reply to Leave, Demand and commands."""

    ok: bool
    code: str = ""
    """Of a demand that is refused: no_route, log_lost, or busy, which means to ask again."""
    message: str = ""


class Demand(_Wire):
    """Request on `ctl.demand`: somebody asks for a resource that nobody has."""

    service: str
    resource: str


class Heartbeat(_Wire):
    """Published on `ctl.hb.<service>.<instance>` by a thread of its own."""

    service: str
    instance_id: Token
    incarnation: str
    session: str = ""
    """Its main connection, as the server calls it."""
    pulse: str = ""
    """The connection of its heartbeats."""
    offer: Count = 0
    """Which of its offers control is to have of it."""
    n: int
    loop_lag_s: float
    """How long the main loop has been late; grows while a handler blocks it."""
    journal_id: str = ""
    requests_id: str = ""
    """Which logs the next two are positions of."""
    journal_seq: int = 0
    """How far this instance has read or written its service's journal."""
    request_seq: int = 0
    """The newest request that it was given."""
    requests_done: int = 0
    """Up to here, each stored request to a resource that it registered has an outcome."""
    log_lost: str = ""
    """What it saw that tells that its journal is not the one it was; it does not serve until told to."""
    requests_lost: str = ""
    """The same of the requests."""
    lag_entries: int = 0
    """Journal entries of its standby resources that it has not read yet."""
    running: int = 0
    """Handlers that run now."""
    open: int = 0
    """Requests that it has and that have no outcome yet: those that run, and those that wait here."""
    active: int = 0
    standby: int = 0
    paused: int = 0
    """Resources that wait for a handover."""
    draining: bool = False
    hand_ins: int = 0
    """What its handlers have handed in or emitted, and is not stored yet where it goes."""
    lacking: list[str] = []
    """Services whose stream of events it needs and does not find."""
    timers: int = 0
    """Of the resources that it serves."""
    unreadable: int = 0
    """Resources that it stood back from: their journal can't be read by its version."""
    own_number: int = 0
    """The newest ownership entry of which it knows what operators have paused."""
    held_running: int = 0
    """Requests to what is paused that had begun, and have no outcome yet."""
    held_waiting: int = 0
    """Those that wait for it to be resumed."""
    wall_s: float = 0.0
    """The instance's clock when it sent this, for `doctor` to compare; 0: not told."""


# --- control to instance -------------------------------------------------------------------------
class CommandKind(StrEnum):
    REGISTER = "register"
    """Control doesn't know this instance (any more): register again."""
    EVICT = "evict"
    """Stop serving and don't come back."""
    DRAIN = "drain"
    """Finish what's begun, then leave."""
    PAUSE = "pause"
    """Finish the running request of `resources`, begin no new one, then answer: a handover follows.

    It ends by itself after `lease_s`: whoever asked for it may be gone.
    """
    RESUME = "resume"
    """The handover did not happen: go on with `resources`."""
    ADD = "add"
    """Offer `resources` of what is taken on demand; answered when control has them in the instance's record."""
    REMOVE = "remove"
    """Offer them no more."""
    HALT = "halt"
    """The service's streams lost something: serve nothing, and register again until that is allowed."""


class Command(_Wire):
    """Request on `ctl.inst.<instance>`; answered with Ack."""

    kind: CommandKind
    incarnation: str = ""
    resources: list[str] = []
    reason: str = ""
    lease_s: float = Field(5.0, gt=0)
    """Of a pause. Above what a handover takes: a late one is no harm, since the gate decides."""


# --- operators to control: request on `ctl.admin.<verb>`, reply AdminReply -------------------------
class AdminReply(_Wire):
    """`ok` with `data`, or `code` (not_found, refused, invalid, internal) with a message for people."""

    ok: bool
    code: str = ""
    message: str = ""
    data: Any = None


class InstanceView(_Wire):
    service: str
    instance_id: str
    state: InstanceState
    version: str = ""
    sdk_version: str = ""
    protocol: int = 1
    host: str = ""
    pid: int = 0
    since: float = 0.0
    heartbeat_age_s: float | None = None
    loop_lag_s: float = 0.0
    running: int = 0
    open: int = 0
    active: int = 0
    standby: int = 0
    capacity: float = 1.0
    on_demand: list[str] = []
    """The patterns of what it takes on demand."""
    zone: str = ""
    lag_entries: int = 0
    clock_offset_s: float | None = None
    """How far its clock is ahead of control's, give or take the way of a heartbeat; None: not told."""
    unreadable: int = 0
    reason: str = ""


class PauseView(_Wire):
    """Something that operators have paused."""

    service: str
    what: str
    """As it is given to `pause` and `resume`: a resource, a service, or SERVICE/METHOD."""
    resource: str | None = None
    method: str | None = None
    since: float
    by: str = ""
    reason: str = ""


class ServiceView(_Wire):
    """`list-services` gives a list of these."""

    service: str
    version: str = ""
    methods: list[str] = []
    resources: int = 0
    calls_per_s: float | None = None
    """Requests that got an outcome in the last seconds, however they came; None: not heard of yet."""
    instances: list[InstanceView] = []
    paused: list[PauseView] = []


class SubscriptionView(_Wire):
    """How far a service's subscription is. `takes`: `<emitter>.<event>`."""

    service: str
    takes: str
    position: Count = 0
    """Up to there, in the emitter's stream, all was taken."""
    lag_entries: Count = 0
    """Events that were not taken yet."""
    lag_s: float = 0.0
    """How old the oldest of them is."""


class StandbyView(_Wire):
    instance_id: str
    state: InstanceState
    lag_entries: int = 0


class RouteView(_Wire):
    """`show-route` gives a list of these: a resource id may exist in several services."""

    service: str
    resource: str
    state: LeaseState
    active: str | None
    epoch: int
    since: float = 0.0
    reason: str = ""
    standbys: list[StandbyView] = []
    paused: PauseView | None = None
    """Why requests to it are refused: an operator has paused the resource, or its service."""


class ShowRoute(_Wire):
    resource: str
    service: str | None = None


class TargetInstance(_Wire):
    """Argument of `disconnect`, `drain` and `describe-instance`."""

    instance_id: str
    reason: str = ""
    dry_run: bool = False
    by: str = ""


RESOURCES_A_MOVE_MAX = 1_000
"""Moved on purpose in one go: the names must fit into one message, also to the instance that pauses them."""


class FailoverResources(_Wire):
    """Argument of `failover`: move resources on purpose, to `to` or the best standby of each."""

    resources: list[str] = Field(min_length=1, max_length=RESOURCES_A_MOVE_MAX)
    service: str | None = None
    to: str | None = None
    reason: str = ""
    dry_run: bool = False
    by: str = ""


class Moved(_Wire):
    """Result of `disconnect`, `drain` and `failover`: what moved (or, dry, would move) where."""

    instance_id: str = ""
    moved: dict[str, str] = Field(default_factory=dict)
    """resource: new active's instance id."""
    vacant: list[str] = []
    """Resources without a standby to take over."""
    dry_run: bool = False


class Rebalance(_Wire):
    """Argument of `rebalance`: spread the AUTO resources of a service (None: of all) evenly, also what was moved by hand."""

    service: str | None = None
    reason: str = ""
    dry_run: bool = False
    by: str = ""


class ServiceMoves(_Wire):
    """What moves in one service."""

    service: str
    moves: dict[str, str]
    """resource: next active's instance id."""


class Rebalanced(_Wire):
    """Result of `rebalance`: what moves from now on, few at a time (or, dry, would move)."""

    services: list[ServiceMoves]
    """Those that were not even."""
    dry_run: bool = False


class PauseTraffic(_Wire):
    """Argument of `pause` and `resume`."""

    target: str
    """A resource, a service, or SERVICE/METHOD."""
    service: str | None = None
    """Then the target is a resource of it."""
    reason: str = ""
    dry_run: bool = False
    by: str = ""


class TrafficPaused(_Wire):
    """Result of `pause` and `resume`: what is (or, dry, would be) paused or resumed."""

    pause: PauseView
    was_so: bool = False
    """It was paused, or not paused, already."""
    asleep: list[str] = []
    """Instances that say nothing: each reads this before it begins anything."""
    unconfirmed: list[str] = []
    """Instances that run, and have not said in time that they have read it: they may still begin something."""
    running: Count = 0
    """Requests to it that had begun, and have no outcome yet."""
    waiting: Count = 0
    """Requests that wait for it to be resumed."""
    dry_run: bool = False


class RetireResource(_Wire):
    """Argument of `retire`: end a resource for good."""

    resource: str
    service: str | None = None
    reason: str = ""
    dry_run: bool = False
    by: str = ""


class Retired(_Wire):
    """Result of `retire`: the resource as it was at its end (or is now, dry)."""

    service: str
    resource: str
    epoch: Count
    outcomes: Count
    """How many it had, in all its time."""
    state: dict[str, Any]
    timers: Count = 0
    """They fire when the resource is offered again."""
    dry_run: bool = False


class ForgetService(_Wire):
    """Argument of `forget`: remove a service from everywhere."""

    service: str
    reason: str = ""
    dry_run: bool = False
    by: str = ""


class Forgotten(_Wire):
    """Result of `forget`: what went (or, dry, would go)."""

    service: str
    streams: dict[str, Count]
    """By name: how many messages it held."""
    leases: Count
    records: Count
    """Of the registry: the contract, what is known of the streams, disconnected instances."""
    dead_letters: Count
    dry_run: bool = False


class AcceptLoss(_Wire):
    """Argument of `accept-loss`: go on without what the service's streams lost."""

    service: str
    reason: str = ""
    dry_run: bool = False
    by: str = ""


class LossAccepted(_Wire):
    """Result of `accept-loss`: what is (or, dry, would be) given up."""

    service: str
    losses: list[Loss]
    resources: int
    """How many begin a new epoch."""
    dry_run: bool = False


class LossView(_Wire):
    """A loss that nobody has accepted yet."""

    service: str
    what: str


class DeadLetterOrder(_Wire):
    """Argument of `dlq-redrive` and `dlq-drop`."""

    request_id: str
    reason: str = ""
    dry_run: bool = False
    by: str = ""


class DeadLetterFate(StrEnum):
    REDRIVEN = "redriven"
    ALREADY_REDRIVEN = "already_redriven"
    """The new request has its outcome since an earlier redrive; nothing was sent again."""
    DROPPED = "dropped"


class DeadLetterMoved(_Wire):
    """Result of `dlq-redrive` and `dlq-drop`: what became (or, dry, would become) of a dead letter."""

    request_id: str
    service: str
    fate: DeadLetterFate
    new_request_id: str = ""
    dry_run: bool = False


class ServerView(_Wire):
    """A NATS server as its system account describes it; -1: it has no such bound, or didn't say."""

    name: str
    version: str
    clock_offset_s: float = 0.0
    """How far its clock is ahead of control's, give or take half the way there and back."""
    max_payload_bytes: int = -1
    sync_always: bool = False
    sync_interval_s: float = 0.0
    storage_bytes: int = 0
    storage_bytes_max: int = -1
    memory_bytes: int = 0
    memory_bytes_max: int = -1


class DriftView(_Wire):
    """A setting of a stream or consumer that differs from what control would make now."""

    name: str
    setting: str
    found: Any = None
    wanted: Any = None


class LonelyView(_Wire):
    """Resources of a service that nobody could take over just now."""

    service: str
    resources: int
    examples: list[str] = []


class UnreadableView(_Wire):
    """A stored value that control can't read: it keeps it, works around it, and tells of it."""

    where: str
    """The bucket or the stream."""
    key: str
    revision: int
    why: str


class CheckupView(_Wire):
    """`checkup`: what only control can say, for `ipc-cli doctor`."""

    leader: str
    replicas: int
    """Copies of each stream, as control is set."""
    servers: list[ServerView] | None = None
    """None: control has no system account to ask with."""
    drift: list[DriftView] = []
    lonely: list[LonelyView] = []
    unreadable: list[UnreadableView] = []
    """The first of them."""
    unreadable_values: int = 0
    paused: list[PauseView] = []
    """What operators have paused."""
    losses: list[LossView] = []
    """Services that are not served until an operator accepts what their streams lost."""


# --- what control tells operators: published on `evt.<event>`, kept in the stream of events ----------
class EventRecord(_Wire):
    """One event. What else it says, under the glossary's names, is in `model_extra`."""

    model_config = ConfigDict(extra="allow")

    event: str
    time: float
