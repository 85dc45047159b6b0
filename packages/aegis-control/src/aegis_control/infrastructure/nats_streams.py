"""The streams, buckets and consumers that AegisIPC needs, created or mended; nothing is written when all fits.

Configurations are the server's own JSON. Only what is named here is compared: what the server or an
operator adds beside it is left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from aegis_sdk.contract.control import DriftView, SubscriptionView
from aegis_sdk.contract.envelope import MSG_ID
from aegis_sdk.contract.ids import is_request_id, waiting_id
from aegis_sdk.contract.names import decode_token
from aegis_sdk.contract.subjects import GROUP_CONSUMER, SUSPECT_TO, Subjects
from aegis_sdk.contract.turns.streams import log_stream
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.codes import (
    ERR_ACCOUNT_FULL,
    ERR_NEEDS_MAX_BYTES,
    ERR_NO_CONSUMER,
    ERR_NO_STORAGE,
    ERR_NO_STREAM,
    ERR_OVER_MAX_BYTES,
)
from aegis_sdk.nats.jetstream import ApiRefused, JetStream, from_seq

from aegis_control.application.ports import Backlog, ProvisionFailed
from aegis_control.infrastructure.nats_outcomes import NatsOutcomes
from aegis_control.infrastructure.nats_reading import consumer_info, read, stream_info, stream_names
from aegis_control.infrastructure.nats_subscriptions import subscriptions

_PROVISION_TIMEOUT_S: Final = 10.0
"""On a cluster a new stream elects its leader first."""
_NS: Final = 1_000_000_000
_DUPLICATE_WINDOW_S: Final = 120
_SENT_BEFORE_S: Final = 60.0
"""A request that is stored was sent before, and may have its outcome since then."""
_ACK_PENDING_MAX: Final = 20_000

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What an operator may choose about the streams; -1 is without bound."""

    replicas: int = 1
    stream_max_bytes: int = -1
    """Of each stream and bucket that has no bound of its own below, where the account demands one."""
    requests_max_age_s: float = 86_400.0
    requests_max_msgs: int = 10_000_000
    requests_max_bytes: int = -1
    dlq_max_age_s: float = 30 * 86_400.0
    events_max_age_s: float = 30 * 86_400.0
    events_max_bytes: int = 64 << 20
    emitted_max_age_s: float = 7 * 86_400.0
    emitted_max_msgs: int = 10_000_000
    emitted_max_bytes: int = -1
    ack_wait_s: float = 1.0


class NatsStreams:
    """`Requests`, and the streams and buckets that don't belong to one service."""

    def __init__(self, link: JetStream, subjects: Subjects, settings: StreamSettings) -> None:
        self._link = link
        self._subjects = subjects
        self._settings = settings
        self._floors: dict[str, int] = {}
        """request stream: up to where the group's requests were done, as seen last."""

    async def make_again(self) -> list[str]:
        """The common streams and buckets that are gone; returns those that were made, empty.

        Raises: ProvisionFailed, Unavailable.
        """
        names = await stream_names(self._link)
        gone = [c for c in self._common_configs() if c["name"] not in names]
        for wanted in gone:
            await self._stream(wanted)
        return [str(wanted["name"]) for wanted in gone]

    async def keep_group(self, service: str) -> bool:
        stream = self._subjects.request_stream(service)
        try:
            info = await self._link.api(f"CONSUMER.INFO.{stream}.{GROUP_CONSUMER}")
        except ApiRefused as error:
            if error.code != ERR_NO_CONSUMER:
                return False  # the stream itself is looked after elsewhere
            await self._make_group_again(service, stream)
            return True
        self._floors[stream] = int(info["ack_floor"]["stream_seq"])
        return False

    async def _make_group_again(self, service: str, stream: str) -> None:
        """From behind what was done; what was stored before now may be done, too, and is looked up."""
        info = await self._link.api(f"STREAM.INFO.{stream}")
        config = self._group_config(service) | {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": max(1, self._floors.get(stream, 0) + 1),
            "metadata": {SUSPECT_TO: str(info["state"]["last_seq"])},
        }
        body = {"stream_name": stream, "config": config}
        what = f"consumer {GROUP_CONSUMER} of {stream}"
        request = f"CONSUMER.DURABLE.CREATE.{stream}.{GROUP_CONSUMER}"
        await self._change(request, body, what)

    async def provision_common(self) -> None:
        """The buckets, the dead letters and the events. Raises: ProvisionFailed, Unavailable."""
        for wanted in self._common_configs():
            await self._stream(wanted)

    async def provision(self, service: str) -> None:
        requests = self._subjects.request_stream(service)
        for wanted in self._service_configs(service):
            await self._stream(wanted)
        await self._consumer(requests, self._group_config(service))

    async def provision_events(self, service: str) -> None:
        await self._stream(self._emitted_config(service))

    async def drift(self, services: Sequence[str]) -> list[DriftView]:
        """Settings that somebody changed beside control (or control's own, changed since)."""
        wanted = self._common_configs()
        for service in services:
            wanted += self._service_configs(service)
        found = [await self._drift_of(config) for config in wanted]
        found += [await self._group_drift(service) for service in services]
        return [drift for drifts in found for drift in drifts]

    async def _drift_of(self, wanted: Config) -> list[DriftView]:
        info = await stream_info(self._link, wanted["name"])
        return [] if info is None else _drifts(f"stream {wanted['name']}", wanted, info["config"])

    async def _group_drift(self, service: str) -> list[DriftView]:
        stream = self._subjects.request_stream(service)
        info = await consumer_info(self._link, stream, GROUP_CONSUMER)
        if info is None:
            return []
        what = f"consumer {GROUP_CONSUMER} of {stream}"
        return _drifts(what, _changeable(self._group_config(service)), info["config"])

    async def remove_settled(self, service: str, *, done_seq: int, held: Collection[str]) -> int:
        stream = self._subjects.request_stream(service)
        asked = {"subjects_filter": self._subjects.targeted_requests(service)}
        try:
            info = await self._link.api(f"STREAM.INFO.{stream}", asked)
            state, subjects = info["state"], (info["state"].get("subjects") or {}).keys()
            if len(subjects) < int(info.get("total", 0)):
                return 0  # of so many resources the server told a part: the rest may wait for their owners
            ours = {self._subjects.request(service, resource) for resource in held}
            floor = await self._group_floor(stream, int(state["last_seq"]))
            if subjects & ours:
                floor = min(floor, done_seq)
            if floor < int(state["first_seq"]) or not state["messages"]:
                return 0
            for subject in subjects - ours:
                first = await self._link.first_of(stream, subject)
                floor = floor if first is None else min(floor, first.seq - 1)
            answer = await self._link.api(f"STREAM.PURGE.{stream}", {"seq": floor + 1})
        except ApiRefused as error:
            if error.code in (ERR_NO_STREAM, ERR_NO_CONSUMER):
                return 0  # made again elsewhere
            raise Unavailable(f"stream {stream}: {error}") from error
        return int(answer["purged"])

    async def open(self, service: str, resource: str) -> list[str]:
        stream = self._subjects.request_stream(service)
        subject = self._subjects.request(service, resource)
        start = from_seq(1) | {"headers_only": True}
        async with aclosing(read(self._link, stream, [subject], start)) as requests:
            stored = {kept.headers.get(MSG_ID, ""): kept.at_s async for kept in requests}
        if not stored:
            return []
        since_s = min(stored.values()) - _SENT_BEFORE_S
        outcomes = NatsOutcomes(self._link, self._subjects)
        waits = {waiting_id(id_): id_ for id_ in stored if is_request_id(id_)}
        asked = [*stored, *waits]  # what is a timer by now waits elsewhere
        ended = await outcomes.settled(service, resource, asked, since_s=since_s)
        return sorted(stored.keys() - {waits.get(id_, id_) for id_ in ended})

    async def resources(self, service: str) -> set[str]:
        stream = self._subjects.request_stream(service)
        asked = {"subjects_filter": self._subjects.targeted_requests(service)}
        info = await stream_info(self._link, stream, asked)
        subjects = info["state"].get("subjects") or () if info else ()
        return {decode_token(subject.rsplit(".", 1)[1]) for subject in subjects}

    async def waiting(self, service: str) -> list[str]:
        stream = self._subjects.request_stream(service)
        if await stream_info(self._link, stream) is None:
            return []
        found = await self._group_open(service, stream)
        for resource in await self.resources(service):
            found += await self.open(service, resource)
        return found

    async def _group_open(self, service: str, stream: str) -> list[str]:
        consumer = await consumer_info(self._link, stream, GROUP_CONSUMER)
        if consumer and not consumer["num_pending"] and not consumer["num_ack_pending"]:
            return []
        done = int(consumer["ack_floor"]["stream_seq"]) if consumer else self._floors.get(stream, 0)
        start = from_seq(done + 1) | {"headers_only": True}
        async with aclosing(
            read(self._link, stream, [self._subjects.request(service, None)], start)
        ) as requests:
            ids = [kept.headers.get(MSG_ID, "") async for kept in requests]
        outcomes = NatsOutcomes(self._link, self._subjects)
        return [id_ for id_ in ids if await outcomes.named(service, id_) is None]

    async def close(self, service: str) -> None:
        stream = self._subjects.request_stream(service)
        info = await stream_info(self._link, stream)
        if info is not None:
            config = info["config"] | {"subjects": [f"{self.filler(stream)}.>"]}
            await self._change(f"STREAM.UPDATE.{stream}", config, f"stream {stream}")

    async def reopen(self, service: str) -> None:
        await self._stream(self._requests_config(service))

    def forget_floor(self, stream: str) -> None:
        """It was deleted: the positions of the next one of its name mean something else."""
        self._floors.pop(stream, None)

    async def forget(self, service: str, starts: Mapping[str, int]) -> None:
        stream = self._subjects.request_stream(service)
        try:
            for resource, seq in starts.items():
                which = {"filter": self._subjects.request(service, resource), "seq": seq}
                await self._link.api(f"STREAM.PURGE.{stream}", which)
        except ApiRefused as error:
            raise Unavailable(f"stream {stream}: {error}") from error

    async def _group_floor(self, stream: str, last_seq: int) -> int:
        """`last_seq` was read before. Raises: ApiRefused."""
        info = await self._link.api(f"CONSUMER.INFO.{stream}.{GROUP_CONSUMER}")
        idle = not info["num_pending"] and not info["num_ack_pending"]
        return last_seq if idle else int(info["ack_floor"]["stream_seq"])

    async def depths(self, service: str) -> dict[str, int]:
        """route (`any`, `at`): requests that wait or are in work."""
        stream = self._subjects.request_stream(service)
        return {"any": await self._group_waits(stream), "at": await self._stored(service, stream)}

    async def _group_waits(self, stream: str) -> int:
        info = await consumer_info(self._link, stream, GROUP_CONSUMER)
        return int(info["num_pending"]) + int(info["num_ack_pending"]) if info else 0

    async def _stored(self, service: str, stream: str) -> int:
        """Requests to resources that are stored: one that is done goes a moment later."""
        asked = {"subjects_filter": self._subjects.targeted_requests(service)}
        info = await stream_info(self._link, stream, asked)
        return sum((info["state"].get("subjects") or {}).values()) if info else 0

    async def backlog(self, services: Sequence[str]) -> Backlog:
        """What waits in the streams of `services`, and the dead letters. Raises: Unavailable."""
        try:
            dead_letters = await self.dead_letters()
        except ApiRefused as error:
            raise Unavailable(f"the dead letters could not be counted: {error}") from error
        depths: dict[tuple[str, str], int] = {}
        for service in services:
            for route, depth in (await self.depths(service)).items():
                depths[service, route] = depth
        return Backlog(depths, dead_letters, await self.subscriptions())

    async def subscriptions(self) -> list[SubscriptionView]:
        """Raises: Unavailable."""
        return await subscriptions(self._link, self._subjects)

    async def dead_letters(self) -> int:
        """How many are kept."""
        info = await self._link.api(f"STREAM.INFO.{self._subjects.dlq_stream}")
        return int(info["state"]["messages"])

    def _common_configs(self) -> list[Config]:
        names, replicas = self._subjects, self._settings.replicas
        buckets = (
            *(names.registry_bucket, names.leases_bucket, names.control_bucket),
            names.subscriptions_bucket,
        )
        return [
            *(_bucket_config(bucket, replicas) | self._bound() for bucket in buckets),
            self._dlq_config(),
            self._events_config(),
        ]

    def _service_configs(self, service: str) -> list[Config]:
        return [self._requests_config(service), self._journal_config(service)]

    def log_config(self, stream: str) -> Config:
        """What control makes of a request stream or a journal, by its name."""
        service = self._subjects.service_of_stream(stream)
        return next(c for c in self._service_configs(service) if c["name"] == stream)

    def filler(self, stream: str) -> str:
        """Below it, what is stored in a service's stream says nothing to anybody."""
        return f"{str(self.log_config(stream)['subjects'][0]).removesuffix('>')}-.skip"

    def _requests_config(self, service: str) -> Config:
        settings = self._settings
        return {
            "name": self._subjects.request_stream(service),
            "subjects": [self._subjects.requests(service)],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "max_age": int(settings.requests_max_age_s * _NS),
            "max_msgs": settings.requests_max_msgs,
            "max_bytes": self._or_common(settings.requests_max_bytes),
            # The server wants it no longer than max_age.
            "duplicate_window": int(min(_DUPLICATE_WINDOW_S, settings.requests_max_age_s) * _NS),
            # Requests that are made of events may go together.
            "allow_atomic": True,
            "allow_direct": True,
            "num_replicas": settings.replicas,
        }

    def _journal_config(self, service: str) -> Config:
        log = log_stream(LogSubjects(self._subjects, service), replicas=self._settings.replicas)
        return log | self._bound()

    def _dlq_config(self) -> Config:
        return {
            "name": self._subjects.dlq_stream,
            "subjects": [self._subjects.dead_letters],
            "retention": "limits",
            "storage": "file",
            "discard": "old",
            "max_age": int(self._settings.dlq_max_age_s * _NS),
            "allow_direct": True,
            "num_replicas": self._settings.replicas,
            **self._bound(),
        }

    def _bound(self) -> Config:
        """Empty without the setting: then a bound that an operator gave a stream by hand stays."""
        most = self._settings.stream_max_bytes
        return {"max_bytes": most} if most > 0 else {}

    def _or_common(self, max_bytes: int) -> int:
        """To the server, 0 is no bound either, and it writes that as -1."""
        return next((b for b in (max_bytes, self._settings.stream_max_bytes) if b > 0), -1)

    def _events_config(self) -> Config:
        """Bounded: events help people, and must never be what fills the disk."""
        return {
            "name": self._subjects.events_stream,
            "subjects": [self._subjects.events],
            "retention": "limits",
            "storage": "file",
            "discard": "old",
            "max_age": int(self._settings.events_max_age_s * _NS),
            "max_bytes": self._settings.events_max_bytes,
            "duplicate_window": int(
                min(_DUPLICATE_WINDOW_S, self._settings.events_max_age_s) * _NS
            ),
            "allow_direct": True,
            "num_replicas": self._settings.replicas,
        }

    def _emitted_config(self, service: str) -> Config:
        """Each event under a name that takes one message. A full stream refuses: who emits waits, and says so."""
        settings = self._settings
        return {
            "name": self._subjects.emitted_stream(service),
            "subjects": [self._subjects.emitted_all(service)],
            "retention": "limits",
            "storage": "file",
            "max_msgs_per_subject": 1,
            "discard": "new",
            "discard_new_per_subject": True,
            # What one instance has to store goes together, so that the order holds whatever fails.
            "allow_atomic": True,
            "max_age": int(settings.emitted_max_age_s * _NS),
            "max_msgs": settings.emitted_max_msgs,
            "max_bytes": self._or_common(settings.emitted_max_bytes),
            "duplicate_window": int(min(_DUPLICATE_WINDOW_S, settings.emitted_max_age_s) * _NS),
            "allow_direct": True,
            "num_replicas": settings.replicas,
        }

    def _group_config(self, service: str) -> Config:
        return {
            "durable_name": GROUP_CONSUMER,
            "filter_subject": self._subjects.request(service, None),
            "ack_policy": "explicit",
            "ack_wait": int(self._settings.ack_wait_s * _NS),
            "max_ack_pending": _ACK_PENDING_MAX,
            "deliver_policy": "all",
        }

    async def _stream(self, wanted: Config) -> None:
        name = wanted["name"]
        try:
            info = await self._link.api(f"STREAM.INFO.{name}")
        except ApiRefused as error:
            if error.code != ERR_NO_STREAM:
                raise ProvisionFailed(f"stream {name}: {error}") from error
            await self._change(f"STREAM.CREATE.{name}", wanted, f"stream {name}")
            return
        different = _different(wanted, info["config"])
        if different:
            what = f"stream {name} ({_in_words(different)})"
            await self._change(f"STREAM.UPDATE.{name}", info["config"] | wanted, what)

    async def _consumer(self, stream: str, wanted: Config) -> None:
        name = wanted["durable_name"]
        what = f"consumer {name} of {stream}"
        config = wanted
        try:
            info = await self._link.api(f"CONSUMER.INFO.{stream}.{name}")
        except ApiRefused as error:
            if error.code != ERR_NO_CONSUMER:
                raise ProvisionFailed(f"{what}: {error}") from error
        else:
            wanted = _changeable(wanted)
            different = _different(wanted, info["config"])
            if not different:
                return
            what, config = f"{what} ({_in_words(different)})", info["config"] | wanted
        body = {"stream_name": stream, "config": config}
        await self._change(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", body, what)

    async def _change(self, request: str, body: Mapping[str, Any], what: str) -> None:
        try:
            await self._link.api(request, body, timeout_s=_PROVISION_TIMEOUT_S)
        except ApiRefused as error:
            raise ProvisionFailed(f"{what} could not be set up: {in_words(error)}") from error


def in_words(error: ApiRefused) -> str:
    """With what to do, where it is the account's bounds that refuse."""
    hint = _BY_BOUNDS.get(error.code)
    return f"{error}: {hint}" if hint else str(error)


_BY_BOUNDS: Final = {
    ERR_NEEDS_MAX_BYTES: "set stream_max_bytes (AEGIS_STREAM_MAX_BYTES), and remember that NATS reserves"
    " that much for each stream and bucket",
    ERR_OVER_MAX_BYTES: "lower stream_max_bytes, requests_max_bytes and events_max_bytes to what the"
    " account allows for one stream",
    ERR_NO_STORAGE: "NATS reserves max_bytes for each stream and bucket; lower stream_max_bytes,"
    " requests_max_bytes or events_max_bytes, or give the account more",
    ERR_ACCOUNT_FULL: "the account's storage is used up, or reserved; give it more, or lower"
    " stream_max_bytes",
}


def _bucket_config(bucket: str, replicas: int) -> Config:
    """As every client library makes a key-value bucket with a history of one."""
    return {
        "name": f"KV_{bucket}",
        "subjects": [f"$KV.{bucket}.>"],
        "storage": "file",
        "max_msgs_per_subject": 1,
        "discard": "new",
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_direct": True,
        "duplicate_window": _DUPLICATE_WINDOW_S * _NS,
        "num_replicas": replicas,
    }


def _different(wanted: Config, found: Config) -> dict[str, tuple[Any, Any]]:
    """setting: (found, wanted). A setting that the server leaves out has its zero value."""
    return {
        key: (found.get(key), value)
        for key, value in wanted.items()
        if key != "name" and found.get(key, _zero(value)) != value
    }


def _drifts(name: str, wanted: Config, found: Config) -> list[DriftView]:
    return [
        DriftView(name=name, setting=setting, found=was, wanted=should)
        for setting, (was, should) in _different(wanted, found).items()
    ]


def _changeable(consumer: Config) -> Config:
    """Where a consumer begins is decided when it is made."""
    return {key: value for key, value in consumer.items() if key != "deliver_policy"}


def _zero(value: Any) -> Any:
    return type(value)()


def _in_words(different: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(
        f"{key} is {found}, needs {wanted}" for key, (found, wanted) in different.items()
    )
