"""What goes on beside everything else for as long as the process lives, whatever happens to one round of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from aegis_sdk.errors import Unavailable


async def keep_doing(what: str, step: Callable[[], Awaitable[None]], *, pause_s: float) -> None:
    """`step` again and again, until cancelled. An error is told, and the next round comes all the same.

    That NATS is away is told elsewhere.
    """
    log = structlog.stdlib.get_logger("aegis_control")
    while True:
        try:
            await step()
        except Unavailable as error:
            log.debug("side_loop_waits", loop=what, reason=str(error))
        except Exception as error:
            log.exception("side_loop_failed", loop=what, reason=f"{type(error).__name__}: {error}")
        await asyncio.sleep(pause_s)
