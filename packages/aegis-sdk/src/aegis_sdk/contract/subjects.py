"""Every stream, bucket, key and subject name, in one place. `prefix` separates environments on one NATS.

Requests   aegis.req.<service>.any                             aegis.req.<service>.at.<resource>
Journal    aegis.jrn.<service>.…                               contract/turns/subjects.py
Replies    aegis.rep.<caller>.<n>                              answers, by request id
Control    aegis.ctl.>                                         registration, heartbeats, commands, admin
Events     aegis.evt.<service>.<event>.<resource>.<caller>.<n>.<i>   what handlers emitted
           aegis.evt.<event>                                   what control did, for operators (kept for a while)
Metrics    aegis.met.<source>                                  what a process has counted since its start
Dead       aegis.dlq.<service>.<caller>.<n>                    requests that failed for good
"""

from __future__ import annotations

from dataclasses import dataclass

from aegis_sdk.contract import arguments
from aegis_sdk.contract.names import NO_RESOURCE, check_service, encode_token

GROUP_CONSUMER = "any"
"""The durable consumer that all instances of a service share for group requests."""


SUSPECT_TO = "aegis.suspect_to"
"""In the metadata of a group consumer that was made again: up to which request some may be done already."""


def resource_token(resource: str | None) -> str:
    """`-` for a group request, the encoded id otherwise."""
    return NO_RESOURCE if resource is None else encode_token(resource)


@dataclass(frozen=True, slots=True)
class Subjects:
    """Names under one prefix (a lower-case word, like a service name)."""

    prefix: str = "aegis"

    def __post_init__(self) -> None:
        check_service(arguments.text(self.prefix, "prefix"))

    def _stream(self, suffix: str) -> str:
        return f"{self.prefix.upper()}_{suffix}"

    # Streams and buckets
    def request_stream(self, service: str) -> str:
        return self._stream(f"REQ_{service}")

    def journal_stream(self, service: str) -> str:
        return self._stream(f"JOURNAL_{service}")

    @property
    def dlq_stream(self) -> str:
        return self._stream("DLQ")

    def emitted_stream(self, service: str) -> str:
        return self._stream(f"EVT_{service}")

    @property
    def events_stream(self) -> str:
        return self._stream("EVENTS")

    @property
    def registry_bucket(self) -> str:
        return f"{self.prefix}_registry"

    @property
    def leases_bucket(self) -> str:
        return f"{self.prefix}_leases"

    @property
    def subscriptions_bucket(self) -> str:
        return f"{self.prefix}_subscriptions"

    @property
    def control_bucket(self) -> str:
        return f"{self.prefix}_control"

    # Keys in the buckets
    @staticmethod
    def service_key(service: str) -> str:
        return f"service.{service}"

    @staticmethod
    def logs_key(service: str) -> str:
        return f"logs.{service}"

    @staticmethod
    def instance_key(service: str, instance_id: str) -> str:
        return f"instance.{service}.{instance_id}"

    @staticmethod
    def lease_key(service: str, resource: str) -> str:
        return f"{service}.{encode_token(resource)}"

    @staticmethod
    def subscription_key(service: str, takes: str) -> str:
        """`takes`: `<emitter>.<event>`."""
        return f"{service}.{takes}"

    # Requests
    @property
    def all_requests(self) -> str:
        """Matches the requests of every service."""
        return f"{self.prefix}.req.>"

    def service_of_stream(self, stream: str) -> str:
        """Of its requests or its journal."""
        return stream.removeprefix(self.request_stream("")).removeprefix(self.journal_stream(""))

    def requests(self, service: str) -> str:
        return f"{self.prefix}.req.{service}.>"

    def request(self, service: str, resource: str | None) -> str:
        if resource is None:
            return f"{self.prefix}.req.{service}.any"
        return f"{self.prefix}.req.{service}.at.{encode_token(resource)}"

    def targeted_requests(self, service: str) -> str:
        return f"{self.prefix}.req.{service}.at.*"

    # Journal
    def journal(self, service: str) -> str:
        return f"{self.prefix}.jrn.{service}.>"

    def reply(self, request_id: str) -> str:
        return f"{self.prefix}.rep.{request_id}"

    def dead_letter(self, service: str, request_id: str) -> str:
        return f"{self.prefix}.dlq.{service}.{request_id}"

    def dead_letter_anywhere(self, request_id: str) -> str:
        """Matches the dead letter of a request whatever its service."""
        return f"{self.prefix}.dlq.*.{request_id}"

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}.dlq.>"

    # Control
    @property
    def register(self) -> str:
        return f"{self.prefix}.ctl.register"

    @property
    def leave(self) -> str:
        return f"{self.prefix}.ctl.leave"

    @property
    def resources(self) -> str:
        return f"{self.prefix}.ctl.resources"

    @property
    def demand(self) -> str:
        return f"{self.prefix}.ctl.demand"

    def heartbeat(self, service: str, instance_id: str) -> str:
        return f"{self.prefix}.ctl.hb.{service}.{instance_id}"

    def command(self, instance_id: str) -> str:
        return f"{self.prefix}.ctl.inst.{instance_id}"

    def admin(self, verb: str) -> str:
        return f"{self.prefix}.ctl.admin.{verb}"

    def event(self, event: str) -> str:
        return f"{self.prefix}.evt.{event}"

    def metrics(self, source: str) -> str:
        return f"{self.prefix}.met.{source}"

    @property
    def events(self) -> str:
        """Matches control's own."""
        return f"{self.prefix}.evt.*"

    def emitted(self, service: str, event: str, resource: str | None, event_id: str) -> str:
        return f"{self.prefix}.evt.{service}.{event}.{resource_token(resource)}.{event_id}"

    def emitted_all(self, service: str, event: str = "") -> str:
        """Matches all events of a service, or one of them by every resource."""
        return (
            f"{self.prefix}.evt.{service}.{event}.>" if event else f"{self.prefix}.evt.{service}.>"
        )

    def client_name(self, service: str, instance_id: str, connection: str) -> str:
        """The NATS connection name of an instance, by which control knows whose connection died.

        `connection` is `main`, `pulse` (the heartbeat thread's own) or `guard` (while neither can speak).
        """
        return f"{self.prefix}/{service}/{instance_id}/{connection}"
