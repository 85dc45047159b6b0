"""Stores dead letters in the DLQ's stream.

A letter's subject is its request's, and its id is derived from it. So a letter that is stored twice (its owner died
between the letter and the outcome, and the next one gives up, too) is one letter while the stream's dedup window lasts.
"""

from __future__ import annotations

from typing import Final

from aegis_sdk.contract.bodies import ErrorBody
from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.nats.link import Link

STORE_TIMEOUT_S: Final = 2.0


class NatsLetters:
    """Letters (application/ports.py)."""

    def __init__(self, link: Link, subjects: Subjects) -> None:
        self._link = link
        self._subjects = subjects

    async def dead_letter(self, request: Request, outcome: Outcome) -> None:
        """`outcome` is a failure, whose body says why. Raises: StoreError; StoreTooLarge, when the letter's headers are too
        much.
        """
        error = ErrorBody.model_validate_json(outcome.body)
        await self._link.store(
            self._subjects.dead_letter(request.service, request.request_id),
            request.payload,
            DeadLetter(request, error.code, error.message).headers(),
            timeout_s=STORE_TIMEOUT_S,
        )
