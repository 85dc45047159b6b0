"""A run's result as one JSON document: what `--json` prints, and what reports are made from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench import systems
from bench.machine import description
from bench.options import Options
from bench.rows import compare
from bench.runner import Results
from bench.targets import Target, nothing_lost

Document = dict[str, Any]


def make_document(
    command: str, options: Options, results: Results, targets: Sequence[Target], **extra: Any
) -> Document:
    """`passed` is about losses alone: a slow run is a result, a lossy one is a failure."""
    lossless = nothing_lost(results.losses)
    measured = sorted({row["system"] for row in results.rows})
    return {
        "command": command,
        "again": options.command_line(command),
        "seed": options.seed,
        "quick": options.quick,
        "settings": {
            "loop": options.loop,
            "sync_interval": options.sync or "server's default",
            "nodes": options.nodes,
            "aegis_sdk": "plain Python" if options.pure else "compiled, as in its wheels",
        },
        "machine": description(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "systems": {name: _about(name) for name in measured},
        "rows": results.rows,
        "comparisons": compare(results.rows),
        "losses": {
            name: asdict(verdict) | {"clean": verdict.clean}
            for name, verdict in results.losses.items()
        },
        "targets": [asdict(target) for target in (lossless, *targets)],
        "passed": lossless.met,
        **extra,
    }


def _about(name: str) -> dict[str, Any]:
    system = systems.find(name)
    return {"promises": system.promises, "settings": dict(system.settings)}
