"""An event's contract: one value, imported by the service that emits it and by those that subscribe."""

from __future__ import annotations

from typing import Generic, TypeVar

from aegis_sdk.contract import arguments
from aegis_sdk.contract.names import check_service
from aegis_sdk.contract.values import Codec

T = TypeVar("T")


class Event(Generic[T]):
    """`Event("accounts", "filled", Fill)`: something that happened in a service, told to whoever wants to know.

    The service's handlers emit it by `ctx.emit`, others subscribe by `@service.on`. The payload's type is anything that pydantic
    can write as JSON and read back.

    Raises:
        InvalidName: the service's or the event's.
        ContractError: the type can't be read back from what is written; the message names the field.
    """

    __slots__ = ("name", "payload", "service")

    def __init__(self, service: str, name: str, payload: type[T]) -> None:
        self.service = check_service(arguments.text(service, "service"))
        self.name = check_service(arguments.text(name, "name"))
        self.payload: Codec[T] = Codec(payload, f"payload of {service}.{name}").declared()

    def __repr__(self) -> str:
        return f"Event({self.service}.{self.name})"
