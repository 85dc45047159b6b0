"""A day at the desk: accounts open, orders come by HTTP, one process is killed, results follow, and a timer closes the day.

aegis-control serve --embedded        # in another terminal
python examples/desk/day.py           # needs flask
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from contracts import OPEN
from gateway import aegis, app

HERE = Path(__file__).parent
DAY_S = 6.0
"""The desk closes so long after it has opened; a real one says `at=` 16:00 in its zone."""


def serve() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "services.py")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()  # it serves
    return process


class Desk:
    """The gateway, as its HTTP clients see it."""

    def __init__(self) -> None:
        self._client = app.test_client()

    def place(
        self, account: str, quantity: int, *, price: str = "190.50", key: str | None = None
    ) -> dict[str, Any]:
        order = {"account": account, "symbol": "AAPL", "quantity": quantity, "price": price}
        headers = {"Idempotency-Key": key} if key else {}
        return dict(self._client.post("/orders", json=order, headers=headers).get_json())

    def result(self, account: str) -> dict[str, Any]:
        return dict(self._client.get(f"/results/{account}").get_json())


def until(true: Callable[[], bool], what: str) -> None:
    give_up_s = time.monotonic() + 30.0
    while not true():
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"waited for {what}")
        time.sleep(0.05)


def main() -> None:
    os.chdir(HERE)
    processes, desk = [serve(), serve()], Desk()
    try:
        closes_at = datetime.now(UTC) + timedelta(seconds=DAY_S)
        for account in ("ACC-1", "ACC-2"):
            print(aegis().request(OPEN, closes_at, resource=account, timeout_s=30.0))
        first, again = desk.place("ACC-1", 100, key="a"), desk.place("ACC-1", 100, key="a")
        print(f"the same order twice: {first == again}, position {again['position']}")
        print(f"an order that is too large: {desk.place('ACC-1', 1_000)['refused']}")
        processes.pop(0).kill()
        print("one of two processes is killed")
        for quantity, price in ((10, "10"), (20, "10"), (30, "11")):
            filled = desk.place("ACC-2", quantity, price=price)
        print(f"ACC-2 holds {filled['position']}")
        until(lambda: desk.result("ACC-2")["fills"] == 3, "the results")
        print(f"its profit, by its events: {desk.result('ACC-2')['total']}")
        until(lambda: "refused" in desk.place("ACC-1", 1), "the close")
        print(f"an order after the close: {desk.place('ACC-1', 1)['refused']}")
    finally:
        aegis().close()
        for process in processes:
            process.terminate()
            process.wait(20)


if __name__ == "__main__":
    main()
