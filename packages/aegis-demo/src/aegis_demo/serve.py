"""The demo's services and a steady caller, each as a container's one process.

    python -m aegis_demo.serve accounts|pricing|load

Settings come from the environment: AEGIS_URL, AEGIS_INSTANCE_ID (a new one at each start without it),
AEGIS_METRICS_PORT, AEGIS_DEMO_RATE (orders a second) and AEGIS_LOG_LEVEL. SIGTERM drains: what has begun is
finished, leases are handed over, open requests get their answers.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

import aegis_sdk
from aegis_control.infrastructure.logs import set_up
from aegis_sdk import Aegis, Role, Service

from aegis_demo.accounts import accounts
from aegis_demo.load import keep_trading
from aegis_demo.market import GENERATED
from aegis_demo.orders import account_names
from aegis_demo.pricing import pricing

WAIT_S: Final = 90.0
"""For NATS and control, which start at the same moment."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the environment says."""

    url: str
    instance_id: str | None
    metrics_port: int
    rate: float

    @classmethod
    def from_environment(cls) -> Options:
        """Raises: ValueError for a number that is none."""
        env = os.environ
        return cls(
            url=env.get("AEGIS_URL", "nats://127.0.0.1:4222"),
            instance_id=env.get("AEGIS_INSTANCE_ID") or None,
            metrics_port=int(env.get("AEGIS_METRICS_PORT", "0")),
            rate=float(env.get("AEGIS_DEMO_RATE", "20")),
        )


async def serve_accounts(options: Options) -> None:
    """Active for its share, standby for the rest."""
    await _serve(options, accounts(GENERATED), dict.fromkeys(account_names(), Role.AUTO))


async def serve_pricing(options: Options) -> None:
    """One more of the group."""
    await _serve(options, pricing(GENERATED), {})


async def trade(options: Options) -> None:
    """Orders for ever, at a gentle pace."""
    async with _connected(options, "load") as aegis:
        _show_metrics(aegis, options)
        await keep_trading(aegis, rate=options.rate)


async def _serve(options: Options, service: Service, resources: dict[str, Role]) -> None:
    async with _connected(options, options.instance_id or service.name) as aegis:
        instance = await aegis.serve(
            service, resources=resources, instance_id=options.instance_id, wait_s=WAIT_S
        )
        _show_metrics(aegis, options)
        await instance.serve_forever()


def _connected(options: Options, name: str) -> AbstractAsyncContextManager[Aegis]:
    return aegis_sdk.connect(options.url, name=name, wait_s=WAIT_S)


def _show_metrics(aegis: Aegis, options: Options) -> None:
    """Served when there is something to show: the container's health check asks for it."""
    aegis.serve_metrics(options.metrics_port, host="0.0.0.0")


ROLES: Final = {"accounts": serve_accounts, "pricing": serve_pricing, "load": trade}


def main(arguments: list[str]) -> int:
    """The program. Exit codes: 0 drained, 1 failed, 2 usage."""
    if len(arguments) != 1 or arguments[0] not in ROLES:
        print(f"usage: python -m aegis_demo.serve {'|'.join(ROLES)}", file=sys.stderr)
        return 2
    level = os.environ.get("AEGIS_LOG_LEVEL", "info")
    set_up("json", level)
    aegis_sdk.configure_logs(level=level)
    return _run(ROLES[arguments[0]](Options.from_environment()))


def _run(work: Coroutine[Any, Any, None]) -> int:
    try:
        asyncio.run(work)
    except aegis_sdk.AegisError as error:
        print(f"aegis_demo.serve: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
