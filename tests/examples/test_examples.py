"""Each example runs as a user runs it, against a real NATS and control, says what it should, and ends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_demo import witness
from aegis_sdk.contract.subjects import Subjects

pytestmark = pytest.mark.timeout(90)

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "examples"
DEADLINE_S: Final = 30.0

EXPECTED: Final = {
    "quickstart.py": [
        "ACC-1 holds 100 AAPL, cost 19050.00",
        "ACC-1 holds 60 AAPL, cost 11430.00",
    ],
    "group.py": ["pricing-1 answered", "pricing-2 answered", "pricing-3 answered"],
    "standby.py": [
        "+1 makes 1, by totals-1 in epoch 1",
        "+10 makes 11, by totals-1 in epoch 1",
        "+100 makes 111, by totals-2 in epoch 2",
    ],
    "idempotency_key.py": [
        "the balance is 50",
        "the balance is 50",
        "another payload under the same key: key_reused",
    ],
    "cancelling.py": [
        "the working order: cancelled",
        "the one before it: executed",
        "the one that its client left: cancelled",
        "the book holds [1, 4]",
    ],
    "order_ids.py": [
        "the first run sends ",
        "the second run sends the same two: True",
        "the venue has 2 orders",
    ],
    "reads.py": [
        "the active has 100 AAPL",
        "its own booking, from a standby: 100 AAPL",
        "another client, which was given the trader's position: 100 AAPL",
    ],
    "events.py": [
        "audited: ACC-1 +100, ACC-1 -40",
        "risk has an exposure of 140",
        'any NATS client: {"account":"ACC-1","quantity":100}',
        'any NATS client: {"account":"ACC-1","quantity":-40}',
    ],
    "close.py": [
        "the desk is open",
        "orders: A expired, B filled",
        "an order after the close: closed",
    ],
    "threads.py": [
        "50 deposits by 8 threads: 50 different balances, the last 500",
        "after a withdrawal: 380",
    ],
    "rejection.py": [
        "P-1 -30: 70 left",
        "P-1 -500: rejected, insufficient_funds {'balance': 70}",
        "P-2 -30: certainly not executed, no_route",
    ],
}


DESK: Final = [
    "ACC-1 trades",
    "ACC-2 trades",
    "the same order twice: True, position 100",
    "an order that is too large: risk",
    "one of two processes is killed",
    "ACC-2 holds 60",
    "its profit, by its events: 30",
    "an order after the close: closed",
]


@pytest.fixture
def control(tmp_path: Path) -> Iterator[str]:
    """The URL of a NATS with a control beside it, both this test's own."""
    with EmbeddedNats(tmp_path / "nats") as server, (tmp_path / "control.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "aegis_control.entrypoints.service", "serve"],
            env={
                **os.environ,
                "AEGIS_URL": server.url,
                "AEGIS_SYSTEM_URL": server.system_url,
                "AEGIS_HTTP_PORT": "0",
            },
            stdout=log,
            stderr=log,
        )
        try:
            yield server.url
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


def test_every_example_is_tested_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)


async def _control_answers(url: str) -> None:
    async with witness.observer(url) as client:
        await witness.control_is_there(client, Subjects())


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_says_what_it_should_and_ends(control: str, name: str) -> None:
    _says(control, EXAMPLES / name, EXPECTED[name])


def test_the_desk_has_its_day(control: str) -> None:
    """G1, G3: an order that is sent again has one effect, and a killed process costs nothing but time."""
    _says(control, EXAMPLES / "desk" / "day.py", DESK)


def _says(control: str, program: Path, wanted: list[str]) -> None:
    asyncio.run(_control_answers(control))
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "AEGIS_URL": control},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("{")]
    assert len(lines) == len(wanted), done.stdout
    for line, expected in zip(lines, wanted, strict=True):
        assert expected in line
