"""An event on its way: as its outcome's change lists it (`Change.send`), and as the stream of events keeps it.

    {"event":"accounts.filled","id":"Kq3v9x2m.17.0","payload":"{\\"qty\\":5}"}

Its id is that of the request that was served, and its place among what that handler emitted. So each try to send it has the
same one, and the stream takes one message of each:

    <prefix>.evt.<service>.<event>.<resource>.<caller>.<n>.<i>

The body is the payload's JSON and nothing else. Who emitted as one of the group has `-` for its resource.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aegis_sdk.contract.envelope import MSG_ID, TRACEPARENT, TRACEPARENT_FORM, Request
from aegis_sdk.contract.ids import check_request_id
from aegis_sdk.contract.names import check_service
from aegis_sdk.errors import InvalidName

EVENT: Final = "event"
"""The key that tells an event from a request that is handed in."""


@dataclass(slots=True)
class Emitted:
    """One event. `resource` is its emitter's."""

    id: str
    service: str
    event: str
    resource: str | None
    payload: bytes
    traceparent: str = ""

    def headers(self) -> dict[str, str]:
        headers = {MSG_ID: self.id}
        if self.traceparent:
            headers[TRACEPARENT] = self.traceparent
        return headers


def content_of(request: Request, event: str, payload: bytes, n: int) -> dict[str, Any]:
    """The `n`-th event that the handler of `request` emits (from 0), as a change lists it."""
    content = {
        EVENT: f"{request.service}.{event}",
        "id": f"{request.request_id}.{n}",
        "payload": payload.decode(),
    }
    if request.traceparent:
        content[TRACEPARENT] = request.traceparent
    return content


def emitted_of(content: Mapping[str, Any], resource: str | None) -> Emitted:
    """The event that is to be stored. Raises: ValueError when there is none in it."""
    try:
        service, _, event = str(content[EVENT]).partition(".")
        event_id = str(content["id"])
        check_request_id(event_id.rpartition(".")[0])
        int(event_id.rpartition(".")[2])
        traceparent = str(content.get(TRACEPARENT, ""))
        return Emitted(
            event_id,
            check_service(service),
            check_service(event),
            resource,
            content["payload"].encode(),
            traceparent if TRACEPARENT_FORM.fullmatch(traceparent) else "",
        )
    except (KeyError, TypeError, AttributeError, InvalidName) as error:
        raise ValueError(f"what a handler emitted: {error!r}") from error
