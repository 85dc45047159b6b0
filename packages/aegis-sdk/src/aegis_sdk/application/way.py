"""The way of a call: how a composed request becomes an outcome. For a caller, the protocol's two forms differ in nothing else.

The first form stores each request (stored_way.py), the second sends it and stores it in doubt (turns/caller.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from aegis_sdk.application.calls import Calls
from aegis_sdk.application.children import ChildrenLog
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.method import Method
from aegis_sdk.errors import NeverAccepted, OutcomeUnknown

RESOLVE_S: Final = 3.0
"""How long past its deadline a caller tries to end the doubt before it says OutcomeUnknown."""

HAND_IN_S: Final = 5.0
"""How long a handler without a deadline tries to store what it hands in."""

BeforeSending = Callable[[Request], Awaitable[None]]


class Way(ChildrenLog, Protocol):
    async def settle(
        self,
        request: Request,
        method: Method[Any, Any],
        *,
        again: bool,
        before: BeforeSending | None = None,
    ) -> Outcome:
        """Its one outcome, at its deadline or soon after.

        `again`: this id may have an outcome already. `before` is awaited before the request is sent, if it has none.

        Raises: NotExecuted, ContractError, Unavailable: certainly without effect; OutcomeUnknown; what `before` does.
        """

    async def store(self, request: Request, method: Method[Any, Any], *, timeout_s: float) -> None:
        """Return when it is stored. Raises: as `settle`; OutcomeUnknown, when nobody says so within `timeout_s`."""

    async def hand_in(
        self, request: Request, method: Method[Any, Any], *, parent: Request, calls: Calls
    ) -> None:
        """The handler of `parent` hands it in, to be done later. Raises: as `store`, CallChanged."""

    async def find(self, request_id: str, method: Method[Any, Any], *, timeout_s: float) -> Outcome:
        """The outcome of a request that anybody made. Raises: OutcomeUnknown, NeverAccepted, RefusedByNats, Draining."""

    async def close(self, *, drain_s: float) -> None:
        """Take nothing new, wait up to `drain_s` for what is open, and end what is left: each is told what is known."""


def never_accepted(service: str, request_id: str) -> NeverAccepted:
    return NeverAccepted(
        f"{request_id}: neither the requests of {service} nor its journal have it;"
        " it was never accepted, is past its retention, or was lost",
        request_id,
    )


def left_open(request: Request) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"the client was closed while {request.request_id} was open: attach to it later",
        request.request_id,
    )


def open_still(request_id: str, waited_s: float, why: str = "") -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{request_id} has no outcome yet after {waited_s:g} s{why}: attach again", request_id
    )
