"""Asking control for a resource that nobody has, and that instances take on demand.

Callers side by side that ask for the same resource share one question. Without control there is no answer: a resource that
has an active needs none.

A question is asked again until control says yes or refuses for good, for DEMAND_S; to ask twice for one resource does no
harm. What control granted is put into the caller's Routes here: the bucket will say the same in a moment, and the request need
not wait for it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Final

from pydantic import ValidationError

from aegis_sdk.application.ports import StoreMissing, StoreUnreachable
from aegis_sdk.contract.control import Ack, Demand, LeaseState
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.domain.routes import Routes
from aegis_sdk.errors import AegisError, LogLost, NoRoute, Unavailable
from aegis_sdk.nats.link import Link, may_fail_unheard

ANSWER_S: Final = 3.0
"""For one answer, before which control has an instance add the resource."""
DEMAND_S: Final = 5.0
"""Control may have no leader for a moment."""
_REFUSED: Final[dict[str, type[AegisError]]] = {NoRoute.code: NoRoute, LogLost.code: LogLost}


class Demands:
    """Of one client. `_asked` has a task for each resource that is asked for now, which ends by itself."""

    def __init__(self, link: Link, subjects: Subjects) -> None:
        self._link = link
        self._subject = subjects.demand
        self._asked: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def demand(self, known: Routes, resource: str) -> None:
        """Return when an instance has it; `known` says so then.

        A caller that is cancelled leaves the question to the others. It sets no deadline: the question has its own.
        Raises: NoRoute, LogLost: for good; Unavailable, StoreError: not in this time.
        """
        key = known.service, resource
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.create_task(self._ask(known, resource))
            task.add_done_callback(lambda _: self._asked.pop(key, None))
            task.add_done_callback(may_fail_unheard)
        await asyncio.wait({task})  # a caller that gives up leaves it to the others
        if task.cancelled():
            raise StoreUnreachable("the client was closed")
        task.result()

    def stop(self) -> None:
        for task in self._asked.values():
            task.cancel()

    async def _ask(self, known: Routes, resource: str) -> None:
        data = Demand(service=known.service, resource=resource).model_dump_json().encode()
        give_up_s = time.monotonic() + DEMAND_S
        for n in itertools.count(1):
            try:
                ack = await self._answer(data)
            except (Unavailable, StoreUnreachable):
                if time.monotonic() > give_up_s:
                    raise
                ack = Ack(ok=False)
            if ack.ok:
                # Until the bucket says so: it may be on its way.
                known.leases[resource] = LeaseState.HELD
                return
            if refused := _REFUSED.get(ack.code):
                raise refused(ack.message)
            if time.monotonic() > give_up_s:
                raise Unavailable(
                    f"resource {resource!r} of service {known.service!r} could not be placed: {ack.message}"
                )
            await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.5))

    async def _answer(self, data: bytes) -> Ack:
        try:
            return Ack.model_validate_json(
                await self._link.request(self._subject, data, timeout_s=ANSWER_S)
            )
        except StoreMissing as error:
            raise Unavailable(
                f"no control service answers, which has to place a resource that nobody has ({error}): start one"
                " with `aegis-control serve`"
            ) from error
        except ValidationError as error:
            raise Unavailable("control's answer can't be read: it is of another version") from error
