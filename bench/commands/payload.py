"""Latency and throughput by the size of the request; the reply stays small."""

from __future__ import annotations

import argparse
from typing import Any, Final

from bench import targets
from bench.block import Block
from bench.document import make_document
from bench.options import Options
from bench.runner import Part, run_side_by_side
from bench.workload import account_names

HELP = "latency and throughput by payload size, up to nearly max_payload"
IN_ALL = 6
DEFAULT_SYSTEMS = ("aegis", targets.RIVAL)
ACCOUNTS = 16
MAX_PAYLOAD: Final = 1024 * 1024
"""nats-server's default; it counts headers too, for which AegisIPC keeps 4 KiB."""
SIZES: Final = (0, 256, 4096, 65_536, 524_288, MAX_PAYLOAD - 8192)
"""Bytes of the note, which adds to the 150 bytes or so that every fill has."""
IN_FLIGHT: Final = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def parts(*, quick: bool) -> list[Part]:
    duration_s, repeats = (0.4, 2) if quick else (0.8, 3)
    return [
        Part(
            Block("targeted", "closed", duration_s, in_flight, spread="even", note_bytes=size),
            repeats,
        )
        for size in SIZES
        for in_flight in (1, IN_FLIGHT)
    ]


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    accounts = account_names(ACCOUNTS)
    beds = [options.bed(name, accounts) for name in options.systems or DEFAULT_SYSTEMS]
    results = await run_side_by_side(
        beds, parts(quick=options.quick), warm_up_s=0.6, seed=options.seed
    )
    return make_document("payload", options, results, [])
