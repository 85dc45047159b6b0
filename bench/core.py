"""What a writer's decisions cost: CPU a request in the pure core, without loop, NATS or encoding.

    python -m bench.core                                          # on plain Python
    PYTHONPATH=$(python -m bench.compiled) python -m bench.core   # as the wheels have it

The requests' own making is part of it, and so is a handler that does nearly nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any, Final

from aegis_sdk.contract.envelope import Change, Outcome, OutcomeKind, Request
from aegis_sdk.domain.turns.entries import Gate, Own, Turn
from aegis_sdk.domain.turns.work import Work
from aegis_sdk.domain.turns.writer import Writer

SHAPES: Final = ((16, 64), (1, 64), (16, 256), (1, 1))
"""(resources, requests in flight)."""
REQUESTS: Final = 20_000
NOW_S: Final = 100.0


def handled(request: Request, values: Mapping[str, Any], epoch: int) -> Outcome:
    change = Change({"n": values.get("n", 0) + 1})
    return Outcome(OutcomeKind.EXECUTED, b"1", b"{}", epoch=epoch, changed=change)


def cost_us(resources: int, in_flight: int, *, pure: bool) -> float:
    """CPU a request, in microseconds."""
    names = [f"r{n}" for n in range(resources)]
    writer = Writer("w1", handled, ends_kept_s=600.0)
    for name in names:
        writer.restore(name)
    writer.read(Own(1, 1, dict.fromkeys(names, "w1")))
    writer.read(Gate(2, "w1"))
    made, position = 0, 2

    def send() -> None:
        nonlocal made
        made += 1
        request = Request(f"c.{made}", "s", "add", names[made % resources], b"1")
        writer.accept(Work(request, sent_s=NOW_S, pure=pure))

    for _ in range(in_flight):
        send()
    begun_s, done = time.process_time(), 0
    while done < REQUESTS:
        writer.compose(NOW_S)
        out = writer.take_output()
        for work in out.run:
            writer.computed(
                work, handled(work.request, writer.held[work.request.resource or ""].values, 1)
            )
        for write in out.store:
            position += 1
            writer.stored(write, NOW_S)
            writer.read(Turn(position, "w1", write.name, (), write.content, NOW_S))
        for _ in out.answer:
            done += 1
            send()
    return (time.process_time() - begun_s) / done * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.core", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print("| handlers | resources | in flight | CPU a request |\n| --- | ---: | ---: | ---: |")
    for pure in (True, False):
        for resources, in_flight in SHAPES:
            best = min(cost_us(resources, in_flight, pure=pure) for _ in range(options.repeats))
            kind = "pure" if pure else "that wait"
            print(f"| {kind} | {resources} | {in_flight} | {best:.1f} us |")


if __name__ == "__main__":
    main()
