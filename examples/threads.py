"""Threads, scripts, Flask, Django, cron: the same verbs without an event loop.

    aegis-control serve --embedded        # in another terminal
    python examples/threads.py

One client is enough for a process: any number of threads share it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import aegis_sdk
from aegis_sdk import Method, ResourceContext, Role, Service

DEPOSIT = Method("cash", "deposit", request=int, reply=int)

cash = Service("cash")


@cash.handles(DEPOSIT)
def deposit(ctx: ResourceContext, amount: int) -> int:
    balance: int = (ctx.state.get("balance", int) or 0) + amount
    ctx.state.set("balance", balance)
    return balance


def main() -> None:
    url = os.environ.get("AEGIS_URL", "nats://127.0.0.1:4222")
    with aegis_sdk.blocking.connect(url, name="threads") as aegis:
        aegis.serve(cash, resources={"CASH-1": Role.AUTO})  # most often elsewhere, in async code

        def work(amount: int) -> int:
            return aegis.request(DEPOSIT, amount, resource="CASH-1", timeout_s=5.0)

        with ThreadPoolExecutor(8) as threads:
            balances = list(threads.map(work, [10] * 50))
        print(
            f"50 deposits by 8 threads: {len(set(balances))} different balances, the last {max(balances)}"
        )

        ticket = aegis.submit(DEPOSIT, -120, resource="CASH-1")
        print(f"after a withdrawal: {aegis.attach(ticket.id, DEPOSIT)}")


if __name__ == "__main__":
    main()
