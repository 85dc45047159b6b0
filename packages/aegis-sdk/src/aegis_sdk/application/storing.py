"""Stores a request until the stream has it for certain: what `submit` returns for."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import replace

from aegis_sdk.application.outcomes import left_open
from aegis_sdk.application.ports import (
    Accepted,
    RequestLog,
    StoreError,
    StoreForbidden,
    StoreFull,
)
from aegis_sdk.contract.envelope import Request
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.errors import OutcomeUnknown, Overloaded, RefusedByNats


async def stored(
    log_: RequestLog, request: Request, *, timeout_s: float, is_gone: Callable[[], bool]
) -> Accepted:
    """`is_gone`: whether the client is closed by then.

    Raises: Overloaded, RefusedByNats: it is not stored; OutcomeUnknown: nobody said so in time.
    """
    give_up_s = time.monotonic() + timeout_s
    for n in itertools.count(1):
        try:
            return await log_.append(
                request, timeout_s=max(0.05, min(2.0, give_up_s - time.monotonic()))
            )
        except StoreFull as error:
            raise Overloaded(f"{request.service}: {error}") from error
        except StoreError as error:
            if is_gone():
                raise left_open(request) from error
            forbidden = isinstance(error, StoreForbidden)
            if forbidden and n == 1:
                raise RefusedByNats(f"{request.service}: {error}") from error
            if forbidden or time.monotonic() >= give_up_s:
                raise OutcomeUnknown(
                    f"{request.request_id} was not acknowledged within {timeout_s:g} s ({error})",
                    request.request_id,
                ) from error
            await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.5))
            request = replace(request, attempt=request.attempt + 1)
    raise AssertionError("unreachable")
