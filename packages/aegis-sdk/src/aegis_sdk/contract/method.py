"""A method's contract: one value, imported by the caller and by the service."""

from __future__ import annotations

from typing import Generic, TypeVar

from aegis_sdk.contract import arguments
from aegis_sdk.contract.envelope import fingerprint
from aegis_sdk.contract.names import check_service
from aegis_sdk.contract.values import Codec

Req = TypeVar("Req")
Rep = TypeVar("Rep")


class Method(Generic[Req, Rep]):
    """`Method("accounts", "book", request=Fill, reply=Position)`; types are anything that pydantic can write
    as JSON and read back.

    With `stored=True` each request of it is on disk before anything runs, in the order in which NATS stored them. Else a request
    is sent, and stored only in doubt: that is faster, and has the same one effect and one outcome. Stored ones cost their caller
    one more message to NATS and the wait for it; what serves them is the same.

    Raises:
        InvalidName: the service's or the method's.
        ContractError: a type can't be read back from what is written; the message names the field.
    """

    __slots__ = ("name", "reply", "request", "service", "stored")

    def __init__(
        self,
        service: str,
        name: str,
        *,
        request: type[Req],
        reply: type[Rep],
        stored: bool = False,
    ) -> None:
        self.service = check_service(arguments.text(service, "service"))
        self.name = check_service(arguments.text(name, "name"))
        self.request: Codec[Req] = Codec(request, f"request of {service}.{name}").declared()
        arguments.instance_of(stored, bool, "stored")
        self.stored = stored
        self.reply: Codec[Rep] = Codec(reply, f"reply of {service}.{name}").declared()

    def fingerprint(self, resource: str | None, payload: bytes) -> str:
        """What tells one keyed request from another under the same key.

        Of what a service reads, not of the bytes: sets and dicts in another order, or 5 and 5.00, are the same.
        Raises: InvalidPayload, when `payload` is not of this version of the method.
        """
        return fingerprint(self.name, resource, self.request.canonical(payload))

    def __repr__(self) -> str:
        return f"Method({self.service}.{self.name})"
