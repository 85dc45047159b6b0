"""Makes a request of what a caller or a handler asks: its arguments are checked, its payload is encoded, its id is given.

A caller's request has the client's next number, or its key. A handler's request, a *child*, has an id that is derived from the
request being served and from what is asked, so that each run of the handler asks under the same ids (calls.py). Nothing is sent
here, and nothing is looked up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

from aegis_sdk.application.calls import Calls
from aegis_sdk.contract import arguments
from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.ids import TICKET, child_id, keyed_id, timer_id
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.subjects import resource_token
from aegis_sdk.contract.trace import new_traceparent
from aegis_sdk.errors import Deadlock, Draining, PayloadTooLarge

CLOSED: Final = "this client is closing or closed: it takes no new requests"
READ: Final = "r"
"""Before a read's number."""
HEADERS_BYTES: Final = 4096
"""Left for the headers of a message."""


class Composer:
    """Of one client. `caller` is its token, unique to this process and connection."""

    def __init__(self, *, caller: str, payload_bytes_max: Callable[[], int]) -> None:
        self._caller = caller
        self._payload_bytes_max = payload_bytes_max
        self._numbers = itertools.count(1)
        self._reads = itertools.count(1)
        self.is_closed = False
        """Nothing new is composed."""

    def rename(self, caller: str) -> None:
        """New requests go by this name: a copy of this process numbers its own from the same number on."""
        self._caller = caller

    def compose(
        self,
        method: Method[Any, Any],
        payload: Any,
        *,
        resource: str | None,
        key: str | None,
        deadline_s: float | None,
        traceparent: str,
        ticket: bool = False,
        not_before_s: float = 0.0,
    ) -> Request:
        """`ticket`: it is to be submitted. Raises: ContractError, Draining."""
        body = self._encode(method, payload, resource)
        return Request(
            request_id=(
                f"{self._caller}.{next(self._numbers)}{TICKET if ticket else ''}"
                if key is None
                else keyed_id(method.service, key)
            ),
            service=method.service,
            method=method.name,
            resource=resource,
            payload=body,
            deadline_s=deadline_s,
            fingerprint="" if key is None else method.fingerprint(resource, body),
            traceparent=new_traceparent(traceparent),
            not_before_s=not_before_s,
        )

    def read(
        self,
        method: Method[Any, Any],
        query: Any,
        *,
        resource: str,
        deadline_s: float,
        traceparent: str,
    ) -> Request:
        """What is read has numbers of its own: sessions tell requests by theirs. Raises: ContractError, Draining."""
        return Request(
            request_id=f"{self._caller}.{READ}{next(self._reads)}",
            service=method.service,
            method=method.name,
            resource=resource,
            payload=self._encode(method, query, resource),
            deadline_s=deadline_s,
            traceparent=new_traceparent(traceparent),
        )

    def derive(
        self,
        method: Method[Any, Any],
        payload: Any,
        *,
        resource: str | None,
        parent: Request,
        calls: Calls,
        waits: bool,
        deadline_s: float | None = None,
    ) -> Request:
        """The request that the handler of `parent` makes; `waits`: for its outcome.

        Raises: ContractError, Deadlock, Draining.
        """
        body = self._encode(method, payload, resource)
        asked = method.request.canonical(body)  # a set has another order in the next process
        token = calls.next_token(method.service, method.name, resource, asked)
        request = Request(
            request_id=child_id(parent.request_id, token, waits=waits),
            service=method.service,
            method=method.name,
            resource=resource,
            payload=body,
            deadline_s=deadline_s,
            attempt=min(parent.attempt, 2),
            chain=_chain(parent, method, resource) if waits else (),
            traceparent=new_traceparent(parent.traceparent),
            tracestate=parent.tracestate,
        )
        calls.made(request)
        return request

    def later(
        self, method: Method[Any, Any], payload: Any, *, name: str, parent: Request
    ) -> Request:
        """What a timer of that name asks of its own resource, set by the handler of `parent`. Also in a handler's thread.

        Its size is bounded with the outcome that it is part of. Raises: ContractError.
        """
        return Request(
            request_id=timer_id(parent.request_id, method.name, name),
            service=method.service,
            method=method.name,
            resource=parent.resource,
            payload=method.request.encode(payload),
            traceparent=new_traceparent(parent.traceparent),
            tracestate=parent.tracestate,
        )

    def _encode(self, method: Method[Any, Any], payload: Any, resource: str | None) -> bytes:
        if self.is_closed:
            raise Draining(CLOSED)
        arguments.instance_of(method, Method, "method")
        resource_token(resource)
        body = method.request.encode(payload)
        if len(body) + HEADERS_BYTES > (limit := self._payload_bytes_max()):
            raise PayloadTooLarge(
                f"{method!r}: the payload has {len(body)} bytes; with headers, at most"
                f" {limit - HEADERS_BYTES} fit the server's max_payload"
            )
        return body


def _chain(parent: Request, method: Method[Any, Any], resource: str | None) -> tuple[str, ...]:
    """The resources that wait for a request to `resource`. Raises: Deadlock."""
    chain = parent.chain
    if parent.resource is not None:
        chain = (*chain, f"{parent.service}/{resource_token(parent.resource)}")
    if resource is not None and f"{method.service}/{resource_token(resource)}" in chain:
        raise Deadlock(
            f"{method!r} on {resource!r}: this call chain already holds it ({' > '.join(chain)});"
            " `submit` does not wait"
        )
    return chain
