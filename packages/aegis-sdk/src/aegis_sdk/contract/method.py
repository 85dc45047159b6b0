"""A method's contract: one value, imported by the caller and by the service."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from aegis_sdk.contract.names import check_service
from aegis_sdk.errors import InvalidPayload

Req = TypeVar("Req")
Rep = TypeVar("Rep")


def field_errors(error: ValidationError) -> list[str]:
    """One line a field, as a user would say it: "quantity: Input should be greater than 0"."""
    return [
        f"{'.'.join(map(str, item['loc'])) or 'payload'}: {item['msg']}" for item in error.errors()
    ]


class Codec(Generic[Req]):
    """JSON bytes to a typed value and back, checked both ways by pydantic."""

    __slots__ = ("_adapter", "_what", "type")

    def __init__(self, type_: Any, what: str) -> None:
        self.type = type_
        self._what = what
        self._adapter: TypeAdapter[Req] = TypeAdapter(type_)

    def encode(self, value: Req) -> bytes:
        """Raises: InvalidPayload, with one line a field."""
        try:
            return self._adapter.dump_json(self._adapter.validate_python(value))
        except ValidationError as error:
            raise self._invalid(error) from error

    def decode(self, data: bytes) -> Req:
        """Raises: InvalidPayload, with one line a field."""
        try:
            return self._adapter.validate_json(data)
        except ValidationError as error:
            raise self._invalid(error) from error

    def schema(self) -> dict[str, Any]:
        """The JSON schema, for the registry."""
        return self._adapter.json_schema()

    def _invalid(self, error: ValidationError) -> InvalidPayload:
        fields = field_errors(error)
        return InvalidPayload(f"{self._what}: {'; '.join(fields)}", fields)


class Method(Generic[Req, Rep]):
    """`Method("accounts", "book", request=Fill, reply=Position)`; types are anything pydantic can check.

    Raises: InvalidName.
    """

    __slots__ = ("name", "reply", "request", "service")

    def __init__(self, service: str, name: str, *, request: type[Req], reply: type[Rep]) -> None:
        self.service = check_service(service)
        self.name = check_service(name)
        self.request: Codec[Req] = Codec(request, f"request of {service}.{name}")
        self.reply: Codec[Rep] = Codec(reply, f"reply of {service}.{name}")

    def __repr__(self) -> str:
        return f"Method({self.service}.{self.name})"
