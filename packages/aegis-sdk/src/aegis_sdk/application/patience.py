"""Asks a store until it answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aegis_sdk.application.ports import StoreError
from aegis_sdk.domain.delivery import backoff_s

T = TypeVar("T")


async def until_answered(call: Callable[[], Awaitable[T]]) -> T:
    """What the store answers to `call`, which is made again, after ever longer waits, while it fails."""
    for n in itertools.count(1):
        try:
            return await call()
        except StoreError:
            await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.5))
    raise AssertionError("unreachable")
