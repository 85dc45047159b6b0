"""A key stands for what the service reads: the same request is known again whatever its bytes are (G2)."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Context, KeyReused, Method, ResourceContext, Retries, Service
from aegis_sdk.testing import harness
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from tests.integration.control.support import control


class Order(BaseModel):
    symbols: set[str] = set()
    limits: dict[str, Decimal] = {}
    price: float = 1.0
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    more: Any = None


class Older(BaseModel):
    """The first version of a request."""

    model_config = ConfigDict(extra="ignore")
    symbol: str


class Newer(Older):
    """The next one."""

    note: str = ""
    venues: frozenset[str] = frozenset({"X", "Y"})


@dataclass
class Amount:
    value: Decimal


PLACE: Method[Any, int] = Method("orders", "place", request=Order, reply=int)
CANCEL: Method[Any, int] = Method("orders", "cancel", request=Order, reply=int)
OLDER: Method[Any, int] = Method("orders", "send", request=Older, reply=int)
NEWER: Method[Any, int] = Method("orders", "send", request=Newer, reply=int)
WORDS = [f"symbol-{n}" for n in range(20)]


def orders(runs: list[object]) -> Service:
    service = Service("orders")

    @service.handles(PLACE)
    @service.handles(CANCEL)
    async def place(ctx: Context, order: Order) -> int:
        runs.append(order)
        return len(runs)

    @service.handles(NEWER)
    async def send(ctx: ResourceContext, order: Newer) -> int:
        runs.append(order)
        return len(runs)

    return service


def backwards(order: Order) -> Order:
    return Order(
        symbols={*sorted(order.symbols, reverse=True)},
        limits={key: order.limits[key] for key in reversed(list(order.limits))},
    )


FIRST = Order(symbols=set(WORDS), limits={"a": Decimal(5), "b": Decimal("0.10")})


@pytest.mark.parametrize(
    "again",
    [
        backwards(FIRST),
        FIRST.model_copy(update={"limits": {"b": Decimal("0.1"), "a": Decimal("5.00")}}),
        FIRST.model_copy(update={"price": 1}),
        FIRST.model_copy(
            update={"at": datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))}
        ),
    ],
    ids=["another order", "5 and 5.00", "1 and 1.0", "another zone"],
)
async def test_the_same_request_in_other_bytes_gets_the_stored_outcome(again: Order) -> None:
    runs: list[object] = []
    async with harness(orders(runs)) as aegis:
        assert await aegis.request(PLACE, FIRST, key="k") == 1
        assert await aegis.request(PLACE, again, key="k") == 1
        ticket = await aegis.submit(PLACE, again, key="k")
        assert await aegis.attach(ticket.id, PLACE) == 1
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("method", "again"),
    [
        (PLACE, FIRST.model_copy(update={"price": 1.5})),
        (PLACE, FIRST.model_copy(update={"symbols": set(WORDS[1:])})),
        (PLACE, FIRST.model_copy(update={"more": False})),
        (PLACE, FIRST.model_copy(update={"more": []})),
        (CANCEL, FIRST),
    ],
)
async def test_another_request_under_the_key_is_refused(method: Any, again: Order) -> None:
    runs: list[object] = []
    async with harness(orders(runs)) as aegis:
        await aegis.request(PLACE, FIRST, key="k")
        with pytest.raises(KeyReused):
            await aegis.request(method, again, key="k")
        with pytest.raises(KeyReused):
            await aegis.submit(method, again, key="k")
    assert len(runs) == 1


@pytest.mark.parametrize(("first", "second"), [(OLDER, NEWER), (NEWER, OLDER)])
async def test_a_version_with_a_default_more_is_the_same_request(
    first: Method[Any, int], second: Method[Any, int]
) -> None:
    """G2: also while the first is still open, and for a caller that hands it in."""
    runs: list[object] = []
    async with harness(orders(runs), resources={"R"}) as aegis:
        made = [method.request.type(symbol="AAPL") for method in (first, second)]
        others = second.request.type(symbol="MSFT")
        asked = [
            aegis.request(method, order, resource="R", key="k")
            for method, order in zip((first, second), made, strict=True)
        ]
        assert await asyncio.gather(*asked) == [1, 1]
        assert await aegis.request(second, made[1], resource="R", key="k") == 1
        await aegis.submit(second, made[1], resource="R", key="k")
        with pytest.raises(KeyReused):
            await aegis.request(second, others, resource="R", key="k")
        with pytest.raises(KeyReused):
            await aegis.request(NEWER, Newer(symbol="AAPL", note="x"), resource="R", key="k")
    assert len(runs) == 1


async def test_a_handler_that_runs_again_asks_the_same_in_other_bytes_once() -> None:
    """G3: the next run may be in another process, where a set has another order."""
    runs: list[object] = []
    desk, attempts = Service("desk"), list[int]()
    ask: Method[int, int] = Method("desk", "ask", request=int, reply=int)

    @desk.handles(ask, retries=Retries(2))
    async def handle(ctx: Context, n: int) -> int:
        attempts.append(ctx.attempt)
        placed = await ctx.request(PLACE, FIRST if ctx.attempt == 1 else backwards(FIRST))
        if ctx.attempt == 1:
            raise ValueError("once more")
        return placed

    async with harness(desk) as aegis:
        await aegis.serve(orders(runs))
        assert await aegis.request(ask, 1) == 1
    assert (attempts, len(runs)) == ([1, 2], 1)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


class Drawn(BaseModel):
    any_: Any = None
    amounts: dict[int, Decimal] = Field(default={})
    names: frozenset[str] = frozenset()
    amount: Amount = Amount(Decimal(0))


DRAWN: Method[Drawn, int] = Method("drawn", "ask", request=Drawn, reply=int)
_drawn = st.builds(
    Drawn,
    any_=_json,
    amounts=st.dictionaries(st.integers(0, 3), st.decimals(allow_nan=False, allow_infinity=False)),
    names=st.frozensets(st.text(max_size=3)),
    amount=st.builds(Amount, st.decimals(allow_nan=False, allow_infinity=False)),
)


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(part) for key, part in reversed(value.items())}
    return [shuffled(part) for part in value] if isinstance(value, list) else value


def longer(number: Decimal) -> Decimal:
    """5 as 5.0."""
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    return Decimal((sign, (*digits, 0), exponent - 1))


def strictly_equal(one: Any, other: Any) -> bool:
    """Python's `==`, but True is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(strictly_equal(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(strictly_equal, one, other))
    return bool(one == other)


@settings(max_examples=200, deadline=None)
@given(_drawn, _drawn)
def test_any_two_requests_are_the_same_exactly_when_they_are_read_as_equal(
    one: Drawn, other: Drawn
) -> None:
    prints = [DRAWN.fingerprint("R", DRAWN.request.encode(drawn)) for drawn in (one, other)]
    equal = one == other and strictly_equal(one.any_, other.any_)
    assert (prints[0] == prints[1]) is equal
    turned = one.model_copy(
        update={
            "any_": shuffled(one.any_),
            "amounts": {key: longer(one.amounts[key]) for key in reversed(one.amounts)},
        }
    )
    assert DRAWN.fingerprint("R", DRAWN.request.encode(turned)) == prints[0]


# --- real processes ---------------------------------------------------------------------------------
PLACE_ONCE = """
import asyncio, sys
import aegis_sdk
from tests.adverse.test_same_request import FIRST, PLACE

async def main():
    async with aegis_sdk.connect(sys.argv[1], prefix=sys.argv[2]) as aegis:
        print(await aegis.request(PLACE, FIRST, key="k"))

asyncio.run(main())
"""


async def test_another_process_knows_the_request_again(server: EmbeddedNats) -> None:
    """Each process has sets in an order of its own: PYTHONHASHSEED."""
    prefix, runs = f"t{secrets.token_hex(4)}", list[object]()
    async with control(server.url, prefix), aegis_sdk.connect(server.url, prefix=prefix) as aegis:
        await aegis.serve(orders(runs))
        for seed in ("1", "2"):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                PLACE_ONCE,
                server.url,
                prefix,
                env={**os.environ, "PYTHONHASHSEED": seed},
                cwd=Path(__file__).parents[2],
                stdout=subprocess.PIPE,
            )
            out, _ = await process.communicate()
            assert out.split() == [b"1"]
    assert len(runs) == 1
