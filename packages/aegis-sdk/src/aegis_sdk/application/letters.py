"""Dead letters: copies of requests that failed for good, kept until an operator looks at them."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Final

from pydantic_core import from_json

from aegis_sdk.application.ports import Letters, StoreError, StoreTooLarge, StoreUnreachable
from aegis_sdk.contract.dead_letter import PAYLOAD_LEFT_OUT
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.telemetry import about, log

WAIT_S_MAX: Final = 0.5
LETTER_TRIES: Final = 10
"""Two seconds of a DLQ that is full or gone."""
STALLED: Final = "stalled"
"""Why control replaced an active whose event loop did not run."""


async def keep_letter(letters: Letters, request: Request, outcome: Outcome) -> None:
    """Store the copy in the DLQ. It must not keep the request from its outcome: one that is too large is stored without
    its payload, and where no DLQ takes it, the log has it alone.
    """
    for n in itertools.count(1):
        try:
            await letters.dead_letter(request, outcome)
            return
        except StoreTooLarge as error:
            if not request.payload:
                _not_kept(request, error)
                return
            size, request = len(request.payload), replace(request, payload=b"")
            why = from_json(outcome.body)["message"]
            left_out = f"payload of {size} bytes left out, over max_payload; {why}"
            body = Outcome.error(outcome.kind, PAYLOAD_LEFT_OUT, left_out).body
            outcome = replace(outcome, body=body)
            log.error("dead_letter_shortened", **about(request), error=str(error))
        except StoreError as error:
            if n >= LETTER_TRIES and not isinstance(error, StoreUnreachable):
                _not_kept(request, error)
                return
            await asyncio.sleep(backoff_s(n, first_s=0.01, max_s=WAIT_S_MAX))


def why_given_up(request: Request, begins: int, replaced: str) -> str:
    """`replaced` says why the active before this one was."""
    method = f"{request.service}.{request.method}"
    if replaced == STALLED:
        return (
            f"begun {begins} times without an end, and the last time nothing died: the handler of {method} blocked its"
            " instance's event loop for longer than stall_limit_s, so another took over. Make it a plain `def`,"
            " which runs in a thread, or let it await"
        )
    if request.resource is None:
        return (
            f"begun {begins} times, and each time its process died, or the handler of {method} blocked the"
            " event loop for longer than ack_wait_s (a plain `def`, which runs in a thread, does not)"
        )
    return f"begun {begins} times, and its process died each time"


def _not_kept(request: Request, error: StoreError) -> None:
    log.error("dead_letter_not_kept", **about(request), error=f"{type(error).__name__}: {error}")
