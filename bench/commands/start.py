"""How soon a process is of use: an instance's start to its first reply, and the import of the SDK."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from statistics import median
from typing import Any, Final

from bench import targets
from bench.bed import START_TIMEOUT_S, Bed, BedError, Process, broker
from bench.document import make_document
from bench.ledger import Verdict
from bench.options import Options
from bench.runner import Results, say

HELP = "an instance's start to its first reply; import of the SDK"
IN_ALL = 8
_IMPORT: Final = (
    "import time; began = time.perf_counter(); import aegis_sdk; alone = time.perf_counter();"
    " from aegis_sdk import *; print(alone - began, time.perf_counter() - began)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    """Raises: BedError."""
    times = 3 if options.quick else 9
    imports = [await _import() for _ in range(times)]
    async with broker(options.bed("aegis", [])) as bed:
        await _first_reply_s(bed, 0)  # control may still be starting: not counted
        replies = [await _first_reply_s(bed, n) for n in range(1, times + 1)]
    alone_s, whole_s = (median(each[n] for each in imports) for n in (0, 1))
    first_s = median(replies)
    say(f"first reply {first_s:.2f} s, import {whole_s:.3f} s (the bare module {alone_s:.3f} s)")
    sent = times + 1
    return make_document(
        "start",
        options,
        Results(losses={"aegis": Verdict(sent, sent, 0, 0, 0, 0, 0, 0)}),
        targets.start(first_s, whole_s),
        start={
            "first_reply_s": replies,
            "import_s": [each[1] for each in imports],
            "import_bare_s": [each[0] for each in imports],
        },
    )


async def _first_reply_s(bed: Bed, n: int) -> float:
    """From the process' start to its first reply. Raises: BedError, also for a wrong reply."""
    options = {
        "url": bed.url,
        "resource": f"ACC-{n:04d}",
        "id": n + 1,
        "loop": bed.settings.loop,
    }
    began_s = time.monotonic()
    process = await Process.start(
        f"first-{n}", ["-m", "bench.first", json.dumps(options)], bed.folder
    )
    try:
        said = await process.read(START_TIMEOUT_S)
    finally:
        await process.stop()
    if (said["id"], said["count"]) != (n + 1, 1):
        raise BedError(f"the first reply is wrong: {said}")
    return float(said["replied_s"]) - began_s


async def _import() -> tuple[float, float]:
    """Seconds of the bare module, and of all public names. Raises: BedError."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _IMPORT, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise BedError("the SDK can't be imported")
    alone, whole = output.split()
    return float(alone), float(whole)
