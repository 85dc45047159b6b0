"""A dead letter: a request that failed for good, as kept with the reason.

Its body is the request's, and its headers are the request's with those named here beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from aegis_sdk.contract.envelope import MSG_ID, Request, header_text
from aegis_sdk.contract.ids import redriven_id
from aegis_sdk.contract.names import decode_token, encode_token

SERVICE: Final = "aegis-service"
RESOURCE: Final = "aegis-resource"
"""`<service>.<resource token>`, the key of the resource's lease; group requests have none."""
ERROR_CODE: Final = "aegis-error-code"
ERROR: Final = "aegis-error"
PAYLOAD_LEFT_OUT: Final = "payload_left_out"
"""The error code of a letter that would have been over max_payload: it can't be redriven."""
_MSG_ID_PREFIX: Final = "dlq."


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The request as it was, and why it was given up."""

    request: Request
    error_code: str
    error: str

    def headers(self) -> dict[str, str]:
        request = self.request
        headers = request.headers() | {
            MSG_ID: f"{_MSG_ID_PREFIX}{request.request_id}",
            SERVICE: request.service,
            ERROR_CODE: header_text(self.error_code),
            ERROR: header_text(self.error),
        }
        if request.resource is not None:
            headers[RESOURCE] = f"{request.service}.{encode_token(request.resource)}"
        return headers

    @classmethod
    def parse(cls, headers: Mapping[str, str], payload: bytes) -> DeadLetter:
        """Raises: KeyError, ValueError when it was not written by an AegisIPC instance."""
        service, key = headers[SERVICE], headers.get(RESOURCE)
        request_id = headers[MSG_ID].removeprefix(_MSG_ID_PREFIX)
        return cls(
            Request.parse(
                {**headers, MSG_ID: request_id},
                payload,
                service=service,
                resource=None if key is None else decode_token(key.removeprefix(f"{service}.")),
            ),
            error_code=headers.get(ERROR_CODE, ""),
            error=headers.get(ERROR, ""),
        )

    def redriven(self, traceparent: str) -> Request:
        """The request that sends this one again: a new id, which is the same at every call, no deadline.

        `traceparent` is of the hop to come, in the trace of the old ones.
        It says that it may have been sent before, so whoever is given it looks for its outcome first.
        """
        return replace(
            self.request,
            request_id=redriven_id(self.request.request_id),
            deadline_s=None,
            attempt=2,
            chain=(),  # nobody above waits for it any more
            traceparent=traceparent,
        )
