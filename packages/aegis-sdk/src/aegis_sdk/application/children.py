"""Has a handler that runs again ask what its earlier runs asked: it holds, and refuses in the end, what they did not ask.

What the runs of one handler have made stands in `Calls` (calls.py), whose theory this executes: it reads what earlier runs asked
in the log of the service that was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import Protocol

from aegis_sdk.application.calls import HOLD_S_MAX, Calls
from aegis_sdk.application.ports import StoreError
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.ids import children_of, parent_of
from aegis_sdk.errors import CallChanged, Unavailable


class ChildrenLog(Protocol):
    """What a service's log says of the requests that handlers made to it."""

    async def children(self, service: str, parent_token: str) -> list[str]:
        """Ids of those that have an outcome: `parent_token` is the first token of their ids. Raises: StoreError."""

    async def outcome(self, request: Request, *, anywhere: bool = False) -> Outcome | None:
        """`anywhere`: whatever the resource. Raises: StoreError."""


class Children:
    """`log_` is that of whatever service is asked."""

    def __init__(self, log_: ChildrenLog) -> None:
        self._log = log_

    async def unless_changed(self, request: Request, calls: Calls) -> None:
        """Wait until this run has made what earlier ones asked of this method and what took effect, or may.

        Raises: CallChanged when it does not, Unavailable.
        """
        if not calls.is_new(request) or not (calls.before or calls.has_past):
            return
        left_s = HOLD_S_MAX
        if request.deadline_s is not None:
            left_s = min(left_s, (request.deadline_s - time.time()) / 2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                while await self._others(request, calls):
                    await calls.more()
        if others := await self._others(request, calls):
            raise CallChanged(
                f"{request.service}.{request.method} on {request.resource!r}: an earlier run of this handler"
                f" asked {others[0]} of this method, which took effect or may, and this run does not: what a"
                " handler asks has to come from its request, its state and earlier replies, not from a clock"
                " or chance"
            )

    async def _others(self, request: Request, calls: Calls) -> list[str]:
        service = request.service
        try:
            if calls.has_past and service not in calls.listed:
                calls.listed[service] = await self._log.children(
                    service, children_of(parent_of(request.request_id) or "")
                )
            for child in calls.others(request):
                last = replace(request, request_id=calls.last_of(child, service))
                outcome = await self._log.outcome(last, anywhere=True)
                if outcome is not None and outcome.kind is not OutcomeKind.EXECUTED:
                    calls.is_harmless(child)
        except StoreError as error:
            raise Unavailable(f"the journal of {service} could not be read: {error}") from error
        return calls.others(request)
