"""How late a loop is, as another thread sees it."""

from __future__ import annotations

import asyncio
import threading
import time

from aegis_sdk.infrastructure.pulse import Lag

BLOCKED_S = 0.2


async def test_a_loop_that_is_blocked_is_seen_to_be_late_while_it_is() -> None:
    answered: list[float] = []
    lag = Lag(asyncio.get_running_loop(), answered.append)
    seen: list[float] = []

    def watch() -> None:
        lag.ask()
        for _ in range(2):
            time.sleep(BLOCKED_S / 4)
            lag.ask()  # one question at a time: the lag is that of the first
            seen.append(lag.seconds)

    thread = threading.Thread(target=watch)
    thread.start()
    time.sleep(BLOCKED_S)  # noqa: ASYNC251 - that is the point
    thread.join()
    assert BLOCKED_S / 4 <= seen[0] < seen[1]
    assert answered == []
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(answered) == 1
    assert answered[0] >= seen[1]
    assert lag.seconds == 0.0, "it is on time again"


async def test_a_loop_that_has_ended_is_asked_in_vain() -> None:
    ended = asyncio.new_event_loop()
    ended.close()
    Lag(ended, lambda _: None).ask()
