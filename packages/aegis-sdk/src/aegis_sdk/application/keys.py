"""Whether an idempotency key belongs to the request that is made with it."""

from __future__ import annotations

from typing import Any

from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.method import Method
from aegis_sdk.errors import InvalidPayload, KeyReused


def is_same(request: Request, method: Method[Any, Any], stored: Request) -> bool:
    """Whether a service reads both as the same request.

    Another version of the type, with a field more, gives the same request another fingerprint: then
    the stored request is read by this version.
    """
    if stored.request_id != request.request_id:
        return False
    if stored.fingerprint == request.fingerprint:
        return True
    if stored.method != request.method:
        return False
    try:
        return method.fingerprint(stored.resource, stored.payload) == request.fingerprint
    except InvalidPayload:
        return False


def key_reused(request: Request) -> KeyReused:
    return KeyReused(
        f"idempotency key of {request.request_id} was used for another request"
        " (method, resource or payload differ): use a new key"
    )
