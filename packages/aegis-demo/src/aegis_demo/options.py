"""What the demo is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The demo's options, as checked by the command line.

    `kills` and `pauses` are spread evenly over the session, kills first. `speed` 0 sends as fast as
    callers get answers; 60 plays a minute of the orders' time in a second. `cash` and
    `position_limit` None: the generated day's, or what fits the file. `console` leaves the system up. With more than two
    `instances`, or with `grow`, these share the accounts, which they take on demand.
    """

    orders: int = 1_000
    seed: int = 1
    input: Path | None = None
    kills: int = 0
    pauses: int = 0
    heartbeats_only: bool = False
    json_output: bool = False
    log_dir: Path | None = None
    speed: float = 0.0
    in_flight: int = 64
    cash: Decimal | None = None
    position_limit: Decimal | None = None
    console: bool = False
    instances: int = 2
    grow: bool = False
