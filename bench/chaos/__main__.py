"""`python -m bench.chaos`: the chaos command by itself. Exit codes: 0 passed, 1 violations, 2 usage."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from bench.chaos.command import HELP, add_arguments, perform


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=HELP)
    parser.add_argument("--seed", type=int, default=1, help="of faults and operations")
    parser.add_argument(
        "--json", action="store_true", help="kept for symmetry: JSON is printed anyway"
    )
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=1, help="of NATS")
    add_arguments(parser)
    parsed = parser.parse_args()
    result = asyncio.run(perform(parsed.seed, parsed))
    print(json.dumps(result))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
