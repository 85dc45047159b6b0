"""Judge a kept history again: `python -m bench.chaos.check FILE [--json]`.

Exit codes: 0 no violation, 1 violations, 2 usage, 3 the file is not there or no history.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.chaos.checkers import CHECKERS, check_all
from bench.chaos.checkers.recovery import recovery_s_max
from bench.chaos.history import BadHistory, History, Violation, read


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        with options.file.open(encoding="utf-8") as lines:
            history = read(lines)
    except (OSError, BadHistory) as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return 3
    chosen = [CHECKERS[name] for name in options.only] if options.only else None
    violations = check_all(history, chosen)
    if options.json:
        print(json.dumps(summary(history, violations)))
    else:
        print(describe(history, violations))
    return 1 if violations else 0


def summary(history: History, violations: Sequence[Violation]) -> dict[str, object]:
    """The run as one JSON object. `recovery_s_max` is null when a place never answered again."""
    recovery_s = recovery_s_max(history)
    statuses = Counter(operation.status.value for operation in history.operations)
    return {
        "seed": history.run.seed,
        "seconds": history.run.seconds,
        "nodes": history.run.nodes,
        "operations": len(history.operations),
        "outcomes": dict(Counter(entry.outcome for entry in history.outcomes)),
        "batched": sum(entry.batched for entry in history.outcomes),
        "ok": statuses["ok"],
        "fail": statuses["fail"],
        "unknown": statuses["unknown"],
        "faults": dict(Counter(fault.kind for fault in history.faults)),
        "recovery_s_max": None if recovery_s == float("inf") else round(recovery_s, 3),
        "violations": [str(violation) for violation in violations],
    }


def describe(history: History, violations: Sequence[Violation]) -> str:
    """The run for people: one line, then one for each violation."""
    found = summary(history, violations)
    head = (
        f"seed {found['seed']}: {found['operations']} operations ({found['ok']} ok, "
        f"{found['fail']} failed, {found['unknown']} unknown), {len(history.faults)} faults, "
        f"longest recovery {found['recovery_s_max']} s, {len(violations)} violations"
    )
    return "\n".join([head, *(f"  {violation}" for violation in violations)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos.check", description=__doc__)
    parser.add_argument("file", type=Path, help="a history: JSON lines")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument(
        "--only", action="append", choices=sorted(CHECKERS), help="this checker alone; repeatable"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
