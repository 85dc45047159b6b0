"""What it costs to be sure that a value is read back the same: CPU an encoded value, beside its writing alone.

    python -m bench.values                                          # on plain Python
    PYTHONPATH=$(python -m bench.compiled) python -m bench.values   # as the wheels have it

Both in turns, the best of several rounds each. A call encodes two values: the request and its reply.
"""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from aegis_sdk.contract.method import Method
from pydantic import BaseModel

CALLS: Final = 2_000


class Fill(BaseModel):
    account: str = "ACC-1"
    symbol: str = "AAPL"
    quantity: float = 5.5
    price: float = 190.25


class Order(BaseModel):
    account: str = "ACC-1"
    quantity: Decimal = Decimal("5.50")
    fills: list[Fill] = []


VALUES: Final[dict[str, tuple[Any, Any]]] = {
    "an int": (int, 42),
    "a dict of 4": (dict[str, float], {"a": 1.5, "b": 2.5, "c": 3.5, "d": 4.5}),
    "a model of 4 fields": (Fill, Fill()),
    "with a Decimal and 5 models": (Order, Order(fills=[Fill() for _ in range(5)])),
    "the same, 50 models": (Order, Order(fills=[Fill() for _ in range(50)])),
}


def costs_us(type_: Any, value: Any, *, repeats: int) -> tuple[float, float]:
    """(encoded, written alone), in microseconds."""
    codec = Method("bench", "encode", request=type_, reply=type_).request
    ways: tuple[Callable[[], object], ...] = (
        lambda: codec.encode(value),
        lambda: codec._write(value),
    )
    best = [float("inf"), float("inf")]
    for _ in range(repeats):
        for n, way in enumerate(ways):
            best[n] = min(best[n], timeit.timeit(way, number=CALLS) / CALLS * 1e6)
    return best[0], best[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.values", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print("| value | encoded | written alone |\n| --- | ---: | ---: |")
    for name, (type_, value) in VALUES.items():
        encoded, written = costs_us(type_, value, repeats=options.repeats)
        print(f"| {name} | {encoded:.2f} us | {written:.2f} us |")


if __name__ == "__main__":
    main()
