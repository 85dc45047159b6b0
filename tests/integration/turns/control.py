"""Control in a process of its own: `python -m tests.integration.turns.control SETTINGS [NUMBER]`

With a NUMBER it stops itself (SIGSTOP) when it has decided on that ownership entry, and has not sent it. It says `decided N`
before each entry, and then what became of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from aegis_control import bootstrap
from aegis_control.application.ports import NotWritten
from aegis_control.infrastructure.nats_own import NatsOwnLog
from aegis_control.settings import load
from aegis_sdk.contract.turns.entries import Moves

from tests.integration.turns.worker import say


class Hesitating(NatsOwnLog):
    stops_at = 0

    async def write(self, service: str, number: int, entry: Moves) -> int | NotWritten:
        say(f"decided {number}")
        if number == self.stops_at:
            os.kill(os.getpid(), signal.SIGSTOP)
        result = await super().write(service, number, entry)
        say(f"{number} {'stored' if isinstance(result, int) else result}")
        return result


def main(settings: str, number: str = "0") -> None:
    Hesitating.stops_at = int(number)
    bootstrap.NatsOwnLog = Hesitating  # type: ignore[attr-defined]
    replica = bootstrap.Control(load(json.loads(settings)).settings)
    asyncio.run(replica.run())


if __name__ == "__main__":
    main(*sys.argv[1:])
