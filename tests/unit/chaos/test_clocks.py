"""A process reads the clock that it is given, and time goes on evenly for its timers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.chaos.clocks import JUMPS_S, LIBRARY, Clocks

needs_library = pytest.mark.skipif(
    LIBRARY is None and "CI" not in os.environ, reason="libfaketime is not installed"
)
PROBE = """
import sys, time
for line in sys.stdin:
    print(time.time(), time.monotonic(), flush=True)
"""


@needs_library
def test_a_clock_jumps_while_its_process_runs_and_the_monotonic_one_does_not(
    tmp_path: Path,
) -> None:
    clocks = Clocks(tmp_path / "clocks", seed=1)
    probe = subprocess.Popen(
        [sys.executable, "-u", "-c", PROBE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clocks.environment("a"),
        text=True,
    )
    assert probe.stdin is not None
    assert probe.stdout is not None
    with probe:
        for offset_s in (0.0, 3600.0, -3600.0, 0.0):
            clocks.set("a", offset_s)
            probe.stdin.write("\n")
            probe.stdin.flush()
            wall_s, monotonic_s = map(float, probe.stdout.readline().split())
            assert wall_s - time.time() == pytest.approx(offset_s, abs=2.0)
            assert monotonic_s == pytest.approx(time.monotonic(), abs=2.0)
        probe.stdin.close()


def test_the_seed_decides_how_clocks_jump(tmp_path: Path) -> None:
    one, same, other = (
        Clocks(tmp_path / name, seed) for name, seed in (("1", 1), ("2", 1), ("3", 2))
    )
    jumps = [one.jump("a") for _ in range(20)]
    assert jumps == [same.jump("a") for _ in range(20)]
    assert jumps != [other.jump("a") for _ in range(20)]
    assert set(jumps) == set(JUMPS_S)
