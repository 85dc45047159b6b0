"""What handlers of the second form ask for on behalf of the request that they serve: so far they only hand in."""

from __future__ import annotations

from typing import Any

from aegis_sdk.application.calls import Calls
from aegis_sdk.context import Ticket
from aegis_sdk.contract import arguments
from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.ids import child_id
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.trace import new_traceparent
from aegis_sdk.errors import ContractError


class HandIns:
    """Asks (context.py)."""

    async def ask(self, *_: Any, **__: Any) -> Any:
        raise ContractError("a handler can't wait for other requests in the second form yet")

    async def hand_in(
        self,
        method: Method[Any, Any],
        payload: Any,
        *,
        resource: Any,
        parent: Request,
        calls: Calls,
    ) -> Ticket:
        resource = arguments.optional_text(resource, "resource")
        body = method.request.encode(payload)
        asked = method.request.canonical(body)  # a set has another order in the next process
        token = calls.next_token(method.service, method.name, resource, asked)
        request = Request(
            request_id=child_id(parent.request_id, token, waits=False),
            service=method.service,
            method=method.name,
            resource=resource,
            payload=body,
            traceparent=new_traceparent(parent.traceparent),
            tracestate=parent.tracestate,
        )
        calls.hand_in(request)
        return Ticket(request.request_id, request.service, request.resource)
