"""A request that a handler hands in, as its outcome's change lists it (`Change.send`).

    {"id":"Kq3v9x2m~17.book-9f3a21c7d0e4b852","to":"accounts.book","resource":"ACC-1","payload":"{\\"qty\\":5}"}

Whatever is empty is left out. A payload that is no text stands in `base64` instead.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from aegis_sdk.contract.envelope import (
    CHAIN,
    DEADLINE,
    FINGERPRINT,
    METHOD,
    MSG_ID,
    TRACEPARENT,
    TRACESTATE,
    Request,
)

_HEADERS: Final = (DEADLINE, CHAIN, FINGERPRINT, TRACEPARENT, TRACESTATE)
"""As the stored request has them. Its attempt is the first."""


def handed_in(request: Request) -> dict[str, Any]:
    """As a change lists it."""
    content: dict[str, Any] = {
        "id": request.request_id,
        "to": f"{request.service}.{request.method}",
    }
    if request.resource is not None:
        content["resource"] = request.resource
    headers = request.headers()
    content |= {name: headers[name] for name in _HEADERS if name in headers}
    try:
        content["payload"] = request.payload.decode()
    except UnicodeDecodeError:
        content["base64"] = base64.b64encode(request.payload).decode()
    return content


def request_of(content: Mapping[str, Any]) -> Request:
    """The request that is to be stored. Raises: ValueError when there is none in it."""
    try:
        service, _, method = str(content["to"]).partition(".")
        if "base64" in content:
            payload = base64.b64decode(content["base64"])
        else:
            payload = content["payload"].encode()
        headers = {name: str(content[name]) for name in _HEADERS if name in content}
        resource = content.get("resource")
        return Request.parse(
            headers | {MSG_ID: str(content["id"]), METHOD: method},
            payload,
            service=service,
            resource=None if resource is None else str(resource),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"what a handler handed in: {error!r}") from error
