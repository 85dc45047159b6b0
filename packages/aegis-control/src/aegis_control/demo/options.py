"""What the demo is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The demo's options, as checked by the command line.

    `kills` and `pauses` are spread evenly over the session, kills first. `speed` 0 sends as fast as
    callers get answers; 60 plays a minute of the orders' time in a second.
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
