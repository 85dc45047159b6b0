"""Is this system safe and well? Facts in, findings out, each with what to do about it.

A finding is `ok`, a `note` (it works; know what it means), `bad` (unsafe, or not working as it should)
or `unknown` (it can't be found out from here, and why). Only `bad` makes the system degraded.

What is bad of the running system (STATE) is the same for `status`, `doctor`, the console (alarms.py) and the alerts
(deploy/prometheus/alerts.yaml). `doctor` also looks at what it runs on: NATS, disks, clocks, settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from aegis_sdk.contract.control import (
    CheckupView,
    InstanceState,
    InstanceView,
    ServerView,
    SubscriptionView,
    misfit,
)

VERSION: Final = (2, 15, 0)
"""What the protocol was tried against."""
VERSIONS_MIN: Final = {14: (2, 14, 4), 12: (2, 12, 14)}
"""By minor version: where the server's fence check was mended. Others before 2.15 have it broken."""
CLOCK_OFFSET_S_MAX: Final = 0.5
"""Deadlines are seconds; handlers judge them by their own clock."""
FULL_AT: Final = 0.8
PAYLOAD_BYTES_DEFAULT: Final = 1 << 20
PAYLOAD_BYTES_ADVISED_MAX: Final = 8 << 20
"""NATS advises against more: one message then holds up all others of its connection."""
REPLICAS_SAFE: Final = 3
LAG_ENTRIES_MAX: Final = 1_000
EVENTS_LAG_S_MAX: Final = 60.0
"""A subscription whose oldest event has waited for longer stands still."""
_UNWELL: Final = frozenset({InstanceState.STALLED, InstanceState.LOST})
_NO_SYSTEM_ACCOUNT: Final = "set AEGIS_SYSTEM_URL for control (the NATS system account)"


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    UNKNOWN = "unknown"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """`found` is what is so; `do` what to do about it (empty when nothing is to be done)."""

    check: str
    level: Level
    found: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class StreamFact:
    """A stream as it is; -1 is without bound."""

    name: str
    replicas: int
    messages: int
    messages_max: int
    bytes: int
    bytes_max: int
    behind: tuple[str, ...] = ()
    """Copies that are offline or not up to date."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out. `checkup` and `instances` are control's; without it there are none."""

    version: str
    max_payload_bytes: int
    clock_offset_s: float | None
    """How far the server's clock is ahead of this machine's; None without a stream to ask after."""
    clock_error_s: float
    """Half the way there and back: finer can't be told."""
    storage_bytes: int
    storage_bytes_max: int
    """This account's limit; -1 without one."""
    streams: list[StreamFact]
    dead_letters: int
    control_missing: str = ""
    """Why control did not answer; empty when it did."""
    checkup: CheckupView | None = None
    instances: list[InstanceView] = field(default_factory=list)
    resources: Mapping[str, int] = field(default_factory=dict)
    """Lease state: how many."""
    subscriptions: Sequence[SubscriptionView] = ()
    idle: Sequence[str] = ()
    """Services that have neither an instance nor a resource that says so."""

    @property
    def servers(self) -> list[ServerView] | None:
        return self.checkup.servers if self.checkup else None


def examine(facts: Facts) -> list[Finding]:
    """All checks, in the order in which a person would want to know."""
    return [finding for check in _CHECKS for finding in check(facts)]


def state(facts: Facts) -> list[Finding]:
    """What is bad of the running system itself."""
    found = [finding for check in _STATE for finding in check(facts)]
    return [finding for finding in found if finding.level is Level.BAD]


def is_degraded(findings: Iterable[Finding]) -> bool:
    return any(finding.level is Level.BAD for finding in findings)


# --- NATS ------------------------------------------------------------------------------------------
def _version(facts: Facts) -> Iterator[Finding]:
    for version in sorted({facts.version, *(server.version for server in facts.servers or [])}):
        yield _one_version(version)


def _one_version(text: str) -> Finding:
    numbers = _numbers(text)
    if numbers >= VERSION:
        return Finding("server version", Level.OK, f"nats-server {text}")
    if numbers >= VERSIONS_MIN.get(numbers[1], VERSION):
        found = f"nats-server {text} has the mended fence check; AegisIPC is tried against 2.15"
        return Finding("server version", Level.NOTE, found, "upgrade when you can")
    found = f"nats-server {text}: an old active may still commit after a failover (G5)"
    return Finding("server version", Level.BAD, found, "upgrade to 2.15 or newer")


def _numbers(version: str) -> tuple[int, int, int]:
    parts = version.partition("-")[0].split(".")
    numbers = [int(part) if part.isdecimal() else 0 for part in parts[:3]]
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    return major, minor, patch


def _sync(facts: Facts) -> Iterator[Finding]:
    if facts.servers is None:
        why = "only the system account tells when servers sync to disk"
        yield Finding("sync", Level.UNKNOWN, why, _NO_SYSTEM_ACCOUNT)
        return
    late = [server for server in facts.servers if not server.sync_always]
    if not late:
        yield Finding("sync", Level.OK, "each stored message is on disk before it is acknowledged")
        return
    names = ", ".join(f"{server.name} ({server.sync_interval_s:g} s)" for server in late)
    found = f"power loss loses what was accepted since the last sync (G1): {names}"
    yield Finding(
        "sync", Level.BAD, found, "set `sync_interval: always` in nats-server's jetstream"
    )


def _replicas(facts: Facts) -> Iterator[Finding]:
    single = [stream for stream in facts.streams if stream.replicas < REPLICAS_SAFE]
    size = None if facts.servers is None else len(facts.servers)
    if facts.streams and not single:
        yield Finding("replicas", Level.OK, f"each stream has {REPLICAS_SAFE} copies or more")
    elif single and size is None:
        found = f"{len(single)} streams have fewer than {REPLICAS_SAFE} copies; how many servers there are, only the system account tells"
        yield Finding("replicas", Level.UNKNOWN, found, _NO_SYSTEM_ACCOUNT)
    elif single and size is not None and size >= REPLICAS_SAFE:
        found = (
            f"{len(single)} streams have fewer than {REPLICAS_SAFE} copies in a cluster of {size}"
        )
        yield Finding(
            "replicas", Level.BAD, found, f"set AEGIS_REPLICAS={REPLICAS_SAFE} for control"
        )
    elif single:
        found = "one copy of each stream: a lost disk loses everything"
        yield Finding("replicas", Level.NOTE, found, "for money: three servers on three hosts")
    for stream in facts.streams:
        if stream.behind:
            found = f"stream {stream.name}: {', '.join(stream.behind)} is offline or behind"
            yield Finding("replicas", Level.BAD, found, "look at that server and its log")


def _space(facts: Facts) -> Iterator[Finding]:
    if facts.storage_bytes_max > 0:
        yield _filled("storage", "this account", facts.storage_bytes, facts.storage_bytes_max)
    if facts.servers is None:
        why = "only the system account tells how full the servers are"
        yield Finding("storage", Level.UNKNOWN, why, _NO_SYSTEM_ACCOUNT)
    for server in facts.servers or []:
        yield _filled("storage", server.name, server.storage_bytes, server.storage_bytes_max)
        yield _filled("memory", server.name, server.memory_bytes, server.memory_bytes_max)


def _filled(check: str, whose: str, used: int, most: int) -> Finding:
    if most <= 0:
        return Finding(check, Level.OK, f"{whose}: {_size(used)} used, without a bound")
    found = f"{whose}: {_size(used)} of {_size(most)} used ({used / most:.0%})"
    if used < most * FULL_AT:
        return Finding(check, Level.OK, found)
    return Finding(check, Level.BAD, found, "give JetStream more room, or keep requests shorter")


def _streams(facts: Facts) -> Iterator[Finding]:
    for stream in facts.streams:
        for used, most, what in (
            (stream.messages, stream.messages_max, "messages"),
            (stream.bytes, stream.bytes_max, "bytes"),
        ):
            # Events are made to be full: the oldest go.
            if 0 < most * FULL_AT <= used and not stream.name.endswith("_EVENTS"):
                found = f"stream {stream.name} holds {used} of {most} {what}; full, it refuses more"
                do = "see `ipc-cli top` for who is behind; raise AEGIS_REQUESTS_MAX_* (of events, AEGIS_EMITTED_MAX_*)"
                yield Finding("streams", Level.BAD, found, do)


def _payload(facts: Facts) -> Iterator[Finding]:
    limit = facts.max_payload_bytes
    if limit < PAYLOAD_BYTES_DEFAULT:
        found = f"max_payload is {_size(limit)}: larger requests and states are refused"
        yield Finding("max_payload", Level.NOTE, found, "the server's default is 1.0 MiB")
    elif limit > PAYLOAD_BYTES_ADVISED_MAX:
        found = f"max_payload is {_size(limit)}: one large message holds up the others"
        yield Finding("max_payload", Level.NOTE, found, "NATS advises at most 8.0 MiB")
    else:
        yield Finding("max_payload", Level.OK, _size(limit))


# --- clocks ------------------------------------------------------------------------------------------
def _clocks(facts: Facts) -> Iterator[Finding]:
    if facts.clock_offset_s is None:
        yield Finding("clocks", Level.UNKNOWN, "no stream to ask the server's time with", "")
    else:
        yield _clock("this machine to NATS", facts.clock_offset_s, facts.clock_error_s)
    for server in facts.servers or []:
        yield _clock(f"control to {server.name}", server.clock_offset_s, 0.0)
    told = [one for one in facts.instances if one.clock_offset_s is not None]
    if not told:
        return
    worst = max(told, key=lambda one: abs(one.clock_offset_s or 0.0))
    yield _clock(
        f"control to {len(told)} instances, at most {worst.instance_id}",
        worst.clock_offset_s or 0.0,
        0.0,
    )


def _clock(between: str, offset_s: float, error_s: float) -> Finding:
    found = f"{between}: {offset_s * 1000:+.0f} ms"
    if error_s:
        found += f" (± {error_s * 1000:.0f})"
    if abs(offset_s) <= CLOCK_OFFSET_S_MAX + error_s:
        return Finding("clocks", Level.OK, found)
    return Finding(
        "clocks", Level.BAD, f"{found}: deadlines end early or late", "run NTP (chrony) on both"
    )


# --- AegisIPC ----------------------------------------------------------------------------------------
def _control(facts: Facts) -> Iterator[Finding]:
    if facts.checkup is not None:
        yield Finding("control", Level.OK, f"{facts.checkup.leader} leads")
        return
    found = f"{facts.control_missing}: nobody fails over, registers or drains just now"
    yield Finding("control", Level.BAD, found, "start one with: aegis-control serve")
    why = "not told without control: drift of settings, standbys, instances"
    yield Finding("control", Level.UNKNOWN, why)


def _system_account(facts: Facts) -> Iterator[Finding]:
    if facts.checkup is None:
        return
    if facts.servers is None:
        found = (
            "control has none: a crash is noticed by missing heartbeats, not within milliseconds"
        )
        yield Finding("system account", Level.NOTE, found, _NO_SYSTEM_ACCOUNT)
    else:
        found = f"servers that answer it: {len(facts.servers)}; closed connections are seen at once"
        yield Finding("system account", Level.OK, found)


def _drift(facts: Facts) -> Iterator[Finding]:
    if facts.checkup is None:
        return
    if not facts.checkup.drift:
        yield Finding("settings", Level.OK, "streams are as control would make them")
    for drift in facts.checkup.drift:
        found = (
            f"{drift.name}: {drift.setting} is {drift.found}, control would make it {drift.wanted}"
        )
        yield Finding(
            "settings", Level.BAD, found, "restart control to mend it, or change its setting"
        )


def _instances(facts: Facts) -> Iterator[Finding]:
    if facts.checkup is None:
        return
    for one in facts.instances:
        if one.unreadable:
            found = f"{one.service}/{one.instance_id} (version {one.version or '?'}) can't read the journal of {one.unreadable} resources"
            do = "its log names them and the entry (resource_unreadable); run the version that wrote it"
            yield Finding("instances", Level.BAD, found, do)
        if one.lag_entries > LAG_ENTRIES_MAX and one.state is InstanceState.LIVE:
            found = f"{one.service}/{one.instance_id} is {one.lag_entries:,} journal entries behind"
            do = "a takeover by it takes longer: look at its CPU and loop lag"
            yield Finding("instances", Level.BAD, found, do)
    for service in facts.idle:
        yield Finding("instances", Level.BAD, f"{service} has no instance", "start one")
    unwell = [one for one in facts.instances if one.state in _UNWELL]
    for one in unwell:
        found = (
            f"{one.service}/{one.instance_id} is {one.state.value} ({one.reason or 'no reason'})"
        )
        yield Finding("instances", Level.BAD, found, "look at its process and its log")
    if not unwell:
        yield Finding(
            "instances", Level.OK, f"{len(facts.instances)} registered, none lost or stalled"
        )


def _versions(facts: Facts) -> Iterator[Finding]:
    """Of the SDK and its protocol, in each service."""
    for one in facts.instances:
        if why := misfit(one.protocol, instance=one.instance_id, sdk_version=one.sdk_version):
            yield Finding("versions", Level.BAD, f"{one.service}: {why}", "it can't register again")
    told = sorted({(one.sdk_version or "?", one.protocol) for one in facts.instances})
    words = ", ".join(f"aegis-sdk {version} (protocol {protocol})" for version, protocol in told)
    if len(told) == 1:
        yield Finding("versions", Level.OK, f"all instances: {words}")
    elif told:
        yield Finding("versions", Level.NOTE, f"instances have {words}", "finish the upgrade")


def _standbys(facts: Facts) -> Iterator[Finding]:
    for state in ("waiting", "vacant"):
        if facts.resources.get(state):
            found = f"{facts.resources[state]} resources are {state}: nobody is active for them"
            yield Finding("resources", Level.BAD, found, "start an instance that offers them")
    for lonely in facts.checkup.lonely if facts.checkup else []:
        names = ", ".join(lonely.examples)
        more = ", …" if lonely.resources > len(lonely.examples) else ""
        which = f": {names}{more}" if names else ""
        found = f"{lonely.resources} resources of {lonely.service} have no live standby{which}"
        do = "start a second instance with Role.AUTO or Role.STANDBY"
        yield Finding("standbys", Level.BAD, found, do)


def _subscriptions(facts: Facts) -> Iterator[Finding]:
    for one in facts.subscriptions:
        if one.lag_s > EVENTS_LAG_S_MAX:
            found = (
                f"{one.service} does not take {one.takes}: {one.lag_entries:,} events wait, the oldest for"
                f" {one.lag_s:,.0f} s"
            )
            do = (
                f"start an instance of {one.service} that subscribes to it; if none ever will:"
                f" nats kv del PREFIX_subscriptions {one.service}.{one.takes}"
            )
            yield Finding("subscriptions", Level.BAD, found, do)


def _losses(facts: Facts) -> Iterator[Finding]:
    for loss in facts.checkup.losses if facts.checkup else []:
        found = f"{loss.what}: nothing of {loss.service} is served"
        do = f"restore a copy that has it all, or go on without: ipc-cli accept-loss {loss.service}"
        yield Finding("logs", Level.BAD, found, do)


def _paused(facts: Facts) -> Iterator[Finding]:
    """On purpose, so the system is not degraded by it; forgotten, it looks like an outage."""
    for pause in facts.checkup.paused if facts.checkup else []:
        why = f": {pause.reason}" if pause.reason else ""
        found = f"{pause.what} is paused by {pause.by or 'somebody'}{why}; its requests are refused"
        of = f" --service {pause.service}" if pause.resource is not None else ""
        yield Finding("paused", Level.NOTE, found, f"ipc-cli resume {pause.what}{of}")


def _unreadable(facts: Facts) -> Iterator[Finding]:
    if facts.checkup is None:
        return
    for value in facts.checkup.unreadable:
        found = f"{value.where}: {value.key} (revision {value.revision}) can't be read: {value.why}"
        yield Finding("stored values", Level.BAD, found, _remedy(value.where))
    told, all_of_them = len(facts.checkup.unreadable), facts.checkup.unreadable_values
    if all_of_them > told:
        found = f"{all_of_them - told} {'more ' if told else ''}values can't be read"
        yield Finding(
            "stored values", Level.BAD, found, "see `ipc-cli doctor`; mend or delete those"
        )
    if not all_of_them:
        yield Finding("stored values", Level.OK, "control can read all of them")


def _remedy(where: str) -> str:
    kept = "of a newer version: run that control"
    if where.endswith("_leases"):
        return f"{kept}; a stray: delete the key (nats kv del), its resource has no new active until then"
    if where.endswith("_registry"):
        return f"{kept}; a stray: delete the key (nats kv del); it is ignored meanwhile"
    return f"{kept}; a stray: control replaces it if the resource's lease says the epoch"


def _dead_letters(facts: Facts) -> Iterator[Finding]:
    if not facts.dead_letters:
        yield Finding("dead letters", Level.OK, "none")
        return
    found = f"{facts.dead_letters} requests failed for good"
    yield Finding("dead letters", Level.BAD, found, "see `ipc-cli dlq list`; redrive or drop them")


def _size(number: int) -> str:
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024.0:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024.0
    return f"{value:.1f} TiB"


_Check = Callable[[Facts], Iterator[Finding]]
_STATE: Final[tuple[_Check, ...]] = (
    _instances,
    _versions,
    _standbys,
    _losses,
    _paused,
    _unreadable,
    _dead_letters,
)
_CHECKS: Final[tuple[_Check, ...]] = (
    _control,
    _version,
    _sync,
    _replicas,
    _space,
    _streams,
    _payload,
    _clocks,
    _system_account,
    _drift,
    _subscriptions,
    *_STATE,
)
