"""Control and members in the protocol's second form, each in a process: `python -m bench.failover.turns control SETTINGS`, `… member`.

The product does not use the second form yet (docs/protocol.md), so neither has a command of its own. A member is told
its options in one JSON line and says what bench.failover.member says.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import time
from typing import Any

import aegis_sdk
from aegis_control.bootstrap import Control
from aegis_control.settings import load
from aegis_sdk import Role
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.infrastructure.turns.member import TurnMember
from aegis_sdk.nats.login import Server

from bench.model import Book
from bench.systems.aegis import service
from bench.worker import say


async def control(options: dict[str, Any]) -> None:
    """`options` are settings of aegis-control."""
    replica = Control(load({"http_port": 0, "log_level": "warning"} | options).settings)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, replica.stop)
    await replica.run()


async def member(options: dict[str, Any]) -> None:
    """`url`, `id`, `resources`."""
    ended = asyncio.Event()
    made = await TurnMember.start(
        Server(options["url"]),
        Subjects(),
        service(Book()),
        instance_id=options["id"],
        resources=dict.fromkeys(options["resources"], Role.AUTO),
        on_moved=lambda serving, left: say(
            {"promoted": serving, "demoted": left, "at_s": time.monotonic()}
        ),
        on_ended=lambda why: ended.set(),
    )
    gc.freeze()  # as `serve_forever` does
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: loop.create_task(made.leave()))
    say({"ready": True})
    await ended.wait()
    say({"orders": [0, 0, 0]})


def main() -> None:
    what = {"control": control, "member": member}[sys.argv[1]]
    options = json.loads(sys.argv[2] if len(sys.argv) > 2 else sys.stdin.readline())
    aegis_sdk.configure_logs(level="WARNING")
    if options.pop("loop", "") == "uvloop":
        import uvloop

        uvloop.run(what(options))
    else:
        asyncio.run(what(options))


if __name__ == "__main__":
    main()
