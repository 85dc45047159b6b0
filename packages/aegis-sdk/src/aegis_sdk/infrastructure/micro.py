"""An instance as the NATS micro protocol shows it: answers to `$SRV.PING`, `INFO` and `STATS`.

nats-py's `nats.micro` makes its own ids and subscribes to each endpoint; our instances have ids, and their
requests come from a stream. So its data model is used, and the nine subjects are answered here.

It is for people and tools (`nats micro ls`), and nothing of the protocol rests on it. An instance that has hung may still be
listed, and one that lives may be missing for a moment. Figures are those of the recorder, so they agree with `/metrics`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from nats.errors import Error as NatsError
from nats.micro.service import (
    SEMVER_REGEX,
    EndpointInfo,
    EndpointStats,
    ServiceInfo,
    ServicePing,
    ServiceStats,
    ServiceVerb,
    control_subject,
)

from aegis_sdk.contract.control import MethodSpec, Registration
from aegis_sdk.contract.metrics import Route
from aegis_sdk.contract.subjects import GROUP_CONSUMER, Subjects
from aegis_sdk.domain.recorder import Recorder
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.wire import Message

FLUSH_TIMEOUT_S: Final = 1
"""How long a start waits until the server knows of the subscriptions; without that it goes on."""
NO_VERSION: Final = "0.0.0"
"""The protocol wants a semantic version; what a service says instead is in the metadata."""


class MicroService:
    """Answers for one instance until its connection closes. Each answer is made when it is asked for."""

    def __init__(
        self, link: Link, subjects: Subjects, registration: Registration, recorder: Recorder
    ) -> None:
        self._link = link
        self._subjects = subjects
        self._registration = registration
        self._recorder = recorder
        self._started = datetime.fromtimestamp(time.time(), UTC)

    async def start(self) -> None:
        """For all services, for this one by name, and for this instance by id. Raises: StoreUnreachable."""
        name, id_ = self._registration.service, self._registration.instance_id
        tell: dict[ServiceVerb, Callable[[], dict[str, Any]]] = {
            ServiceVerb.PING: lambda: ServicePing(**self._identity()).to_dict(),
            ServiceVerb.INFO: self._info,
            ServiceVerb.STATS: self._stats,
        }
        for verb, answer in tell.items():
            for subject in (
                control_subject(verb),
                control_subject(verb, name),
                control_subject(verb, name, id_),
            ):
                await self._link.subscribe(subject, self._answering(answer))
        # Whoever learns of this instance finds it; if NATS is away just now, it does later.
        with contextlib.suppress(NatsError, OSError):
            await self._link.flush(timeout_s=FLUSH_TIMEOUT_S)

    def _answering(self, answer: Callable[[], dict[str, Any]]) -> Callable[[Message], None]:
        def receive(message: Message) -> None:
            if message.reply:
                body = json.dumps(answer()).encode()
                self._link.publish(message.reply, body)

        return receive

    def _identity(self) -> dict[str, Any]:
        """Common to all answers. The prefix is in it, since services of several environments may share one NATS account."""
        told = self._registration
        valid = SEMVER_REGEX.match(told.version) is not None
        return {
            "id": told.instance_id,
            "name": told.service,
            "version": told.version if valid else NO_VERSION,
            "metadata": {
                "aegis.prefix": self._subjects.prefix,
                "aegis.version": told.version,
                "aegis.host": told.host,
                "aegis.pid": str(told.pid),
            },
        }

    def _info(self) -> dict[str, Any]:
        endpoints = [
            EndpointInfo(
                name=method.name,
                subject=self._subject(method),
                queue_group=_queue_group(method),
                metadata={
                    "aegis.route": (Route.TARGETED if method.targeted else Route.GROUP).value
                },
            )
            for method in self._registration.methods
        ]
        return ServiceInfo(
            **self._identity(),
            description=f"AegisIPC service {self._registration.service}",
            endpoints=endpoints,
        ).to_dict()

    def _stats(self) -> dict[str, Any]:
        """Of the client's recorder: of all instances of this service that the client serves, since it was made."""
        endpoints = [self._endpoint_stats(method) for method in self._registration.methods]
        return ServiceStats(
            **self._identity(), started=self._started, endpoints=endpoints
        ).to_dict()

    def _endpoint_stats(self, method: MethodSpec) -> EndpointStats:
        runs, failed, seconds = self._recorder.runs(
            self._registration.service, method.name, targeted=method.targeted
        )
        processing_ns = int(seconds * 1e9)
        return EndpointStats(
            name=method.name,
            subject=self._subject(method),
            queue_group=_queue_group(method),
            num_requests=runs,
            num_errors=failed,
            processing_time=processing_ns,
            average_processing_time=processing_ns // runs if runs else 0,
        )

    def _subject(self, method: MethodSpec) -> str:
        """Where requests are stored. It is shown, not for use: what is published there without our headers is passed over."""
        service = self._registration.service
        if method.targeted:
            return self._subjects.targeted_requests(service)
        return self._subjects.request(service, None)


def _queue_group(method: MethodSpec) -> str:
    """A group request goes to one of the instances, a targeted one to its resource's active."""
    return "" if method.targeted else GROUP_CONSUMER
