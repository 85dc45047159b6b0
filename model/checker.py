"""Drives spin and gcc: one search of a model, and what it found.

It knows nothing of what a model says; it builds in a directory of its own that goes away again.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MODELS = Path(__file__).parent
DEPTH_MAX = 100_000
"""Steps in one run of a model; the deepest seen is under a thousand."""
BUILD_TIMEOUT_S = 600.0
"""Seconds are enough on an idle machine; a busy one takes its time."""
HASH_LARGE = "-w24"
HASH_SMALL = "-w18"
"""Slots of spin's hash table, as a power of two: 128 MB, and 2 MB for what ends within thousands."""


class ToolMissing(Exception):
    """spin or gcc is not installed."""


class CheckFailed(Exception):
    """spin, gcc or the search itself broke: nothing is known about the model."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found. `broken` is the condition that was untrue, empty when all held."""

    states: int
    transitions: int
    depth: int
    memory_mb: float
    search_s: float
    broken: str = ""
    steps: tuple[str, ...] = ()
    """The counterexample, a line a step."""


def require_tools() -> None:
    """Raises: ToolMissing, with what to install."""
    missing = [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]
    if missing:
        raise ToolMissing(
            f"{' and '.join(missing)} not found: the model needs the model checker spin (6.5 or "
            "newer) and a C compiler; on Debian and Ubuntu: apt-get install spin gcc"
        )


def search(model: str, flags: Sequence[str], *, timeout_s: float, fast: bool = True) -> Found:
    """Search all runs of `model`, a file of this directory, depth first; `fast` pays for a search of over a few seconds.

    Raises: CheckFailed, also when the search did not end within `timeout_s`.
    """
    with tempfile.TemporaryDirectory(prefix="aegis-model-") as directory:
        level = "-O2" if fast else "-O0"
        return _search(Path(directory), model, flags, [level, "-DCOLLAPSE"], HASH_LARGE, timeout_s)


def shortest(model: str, flags: Sequence[str], *, timeout_s: float) -> Found:
    """Search breadth first: the counterexample, if there is one, is a shortest one, with its steps.

    Raises: CheckFailed, also when the search did not end within `timeout_s`.
    """
    with tempfile.TemporaryDirectory(prefix="aegis-model-") as name:
        directory = Path(name)
        told = ["-DTELL", *flags]
        found = _search(directory, model, told, ["-O0", "-DBFS"], HASH_SMALL, timeout_s)
        if not found.broken:
            return found
        steps = _replay(directory, model, told)
    return Found(
        found.states,
        found.transitions,
        found.depth,
        found.memory_mb,
        found.search_s,
        found.broken,
        steps,
    )


def has_cycle(model: str, flags: Sequence[str], *, timeout_s: float) -> bool:
    """Whether a run of `model` can go round for ever: then coming to rest would prove little.

    No model has a progress label, so every cycle is one without progress.
    """
    with tempfile.TemporaryDirectory(prefix="aegis-model-") as name:
        directory = Path(name)
        _build(directory, model, flags, ["-O0", "-DNP", "-DNOFAIR"])
        output = _run(directory, ["./pan", "-l", f"-m{DEPTH_MAX}", HASH_LARGE], timeout_s)
    return bool(_read(output, 0.0).broken)


def _search(
    directory: Path,
    model: str,
    flags: Sequence[str],
    options: Sequence[str],
    hash_size: str,
    timeout_s: float,
) -> Found:
    _build(directory, model, flags, ["-DSAFETY", *options])
    started = time.monotonic()
    output = _run(directory, ["./pan", f"-m{DEPTH_MAX}", hash_size], timeout_s)
    return _read(output, time.monotonic() - started)


def _build(directory: Path, model: str, flags: Sequence[str], options: Sequence[str]) -> None:
    shutil.copy(MODELS / model, directory)
    _run(directory, ["spin", "-a", *flags, model], BUILD_TIMEOUT_S)
    if not (directory / "pan.c").exists():
        raise CheckFailed("spin wrote no verifier: is the model's syntax right?")
    _run(
        directory, ["gcc", "-w", "-DVECTORSZ=4096", *options, "-o", "pan", "pan.c"], BUILD_TIMEOUT_S
    )


def _replay(directory: Path, model: str, flags: Sequence[str]) -> tuple[str, ...]:
    trail = f"{model}.trail"
    output = _run(directory, ["spin", "-T", "-k", trail, *flags, model], BUILD_TIMEOUT_S)
    told = re.compile(
        r"\s*((?:server|leader|network|control|caller|trim|(?:instance|writer)(?: \d+)?): .*)"
    )
    return tuple(match[1] for line in output.splitlines() if (match := told.match(line)))


def _run(directory: Path, command: Sequence[str], timeout_s: float) -> str:
    try:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CheckFailed(f"{command[0]} did not end within {timeout_s:.0f} s") from error
    if done.returncode != 0 and command[0] != "./pan":
        raise CheckFailed(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _read(output: str, search_s: float) -> Found:
    errors = re.search(r"errors: (\d+)", output)
    cut_short = "Search not completed" in output and errors is not None and errors[1] == "0"
    if errors is None or cut_short or "max search depth too small" in output:
        raise CheckFailed(f"the search did not complete: {output[-2000:]}")
    broken = re.search(r"pan:\d+: (.*)", output)
    if errors[1] != "0" and broken is None:
        raise CheckFailed(f"errors without a reason: {output[-2000:]}")
    return Found(
        states=int(_number(r"(\S+) states, stored", output)),
        transitions=int(_number(r"(\S+) transitions", output)),
        depth=int(_number(r"depth reached (\d+)", output)),
        memory_mb=_number(r"(\S+)\s+total actual memory usage", output),
        search_s=search_s,
        broken=broken[1] if broken else "",
    )


def _number(pattern: str, output: str) -> float:
    match = re.search(pattern, output)
    return float(match[1]) if match else 0.0
