"""What is submitted for later: accepted at once, begun not before its time, kept in its resource's state until then."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aegis_sdk import (
    Cancelled,
    Expired,
    InvalidArgument,
    Method,
    OutcomeUnknown,
    Rejected,
    ResourceContext,
    Service,
)
from aegis_sdk.application import outcomes
from aegis_sdk.contract.envelope import OutcomeKind, Request
from aegis_sdk.testing import Cluster

ADD = Method("desks", "add", request=int, reply=list[float])
ADD_PURE = Method("desks", "add_pure", request=int, reply=list[float])
DROP = Method("desks", "drop", request=str, reply=list[str])


def desks() -> Service:
    service = Service("desks")

    def add(ctx: ResourceContext, n: int) -> list[float]:
        total = (ctx.state.get("total", int) or 0) + n
        ctx.state.set("total", total)
        return [total, time.time()]

    @service.handles(ADD)
    async def add_slowly(ctx: ResourceContext, n: int) -> list[float]:
        await asyncio.sleep(0.001)
        return add(ctx, n)

    service.handles(ADD_PURE, pure=True)(add)

    @service.handles(DROP, pure=True)
    def drop(ctx: ResourceContext, name: str) -> list[str]:
        return list(ctx.timers)

    return service


async def pair(cluster: Cluster) -> None:
    for name in ("one", "two"):
        await cluster.serve(desks(), resources={"D-1"}, instance_id=name)


@pytest.mark.parametrize("method", [ADD, ADD_PURE], ids=["waits", "pure"])
async def test_it_begins_at_its_time_and_others_do_not_wait(
    cluster: Cluster, method: Method[int, list[float]]
) -> None:
    await pair(cluster)
    begun_s = time.time()
    ticket = await cluster.aegis.submit(method, 5, resource="D-1", not_before=60)
    assert time.time() - begun_s < 1.0
    total, _ = await cluster.aegis.request(ADD, 1, resource="D-1")
    assert total == 1
    total, at_s = await cluster.aegis.attach(ticket.id, method, timeout_s=120.0)
    assert total == 6
    assert 60.0 <= at_s - begun_s < 60.1
    cluster.assert_exactly_once()


async def test_it_takes_a_datetime_with_its_zone(cluster: Cluster) -> None:
    await pair(cluster)
    at = datetime.fromtimestamp(time.time(), UTC) + timedelta(seconds=30)
    ticket = await cluster.aegis.submit(ADD, 5, resource="D-1", not_before=at)
    _, at_s = await cluster.aegis.attach(ticket.id, ADD, timeout_s=60.0)
    assert 0.0 <= at_s - at.timestamp() < 0.1


async def test_it_survives_failovers_and_restarts_and_is_done_once(cluster: Cluster) -> None:
    await pair(cluster)
    tickets = [
        await cluster.aegis.submit(ADD, 1, resource="D-1", not_before=n) for n in (5, 20, 40, 60)
    ]
    await asyncio.sleep(10.0)
    await cluster.failover("D-1")
    await asyncio.sleep(15.0)
    await cluster.serve(desks(), resources={"D-1"}, instance_id="three")
    await cluster.instance("two").drain()
    await asyncio.sleep(10.0)
    await cluster.kill("three")
    await asyncio.sleep(30.0)
    await cluster.serve(desks(), resources={"D-1"}, instance_id="four")
    totals = [(await cluster.aegis.attach(each.id, ADD, timeout_s=60.0))[0] for each in tickets]
    assert totals == [1, 2, 3, 4]
    await asyncio.sleep(60.0)
    assert cluster.value("D-1", "total", int) == 4
    cluster.assert_exactly_once()


async def test_it_can_be_cancelled_until_then(cluster: Cluster) -> None:
    await pair(cluster)
    ticket = await cluster.aegis.submit(ADD, 5, resource="D-1", not_before=60)
    await asyncio.sleep(1.0)
    assert await cluster.aegis.cancel(ticket.id) is OutcomeKind.CANCELLED
    await asyncio.sleep(0.1)
    assert cluster.timers("D-1") == {}
    await asyncio.sleep(90.0)
    assert cluster.state("D-1") == {}
    with pytest.raises(Cancelled):
        await cluster.aegis.attach(ticket.id, ADD)


async def test_the_request_stream_need_not_keep_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is a timer by now is found by its ticket all the same: to attach, and to cancel."""
    await pair(cluster)
    ticket = await cluster.aegis.submit(ADD, 5, resource="D-1", not_before=60)
    other = await cluster.aegis.submit(ADD, 7, resource="D-1", not_before=90)
    await asyncio.sleep(1.0)
    instance = cluster.instance("one")
    assert instance._serving.requests_done == 2
    monkeypatch.setattr(cluster.bus.requests("desks"), "get", lambda seq: None)
    with pytest.raises(OutcomeUnknown, match="waits for its time"):
        await cluster.aegis.attach(ticket.id, ADD, timeout_s=1.0)
    assert await cluster.client().cancel(other.id) is OutcomeKind.CANCELLED
    assert (await cluster.aegis.attach(ticket.id, ADD, timeout_s=90.0))[0] == 5
    await asyncio.sleep(60.0)
    assert cluster.value("D-1", "total", int) == 5


async def test_a_key_makes_it_one(cluster: Cluster) -> None:
    await pair(cluster)
    for _ in range(2):
        ticket = await cluster.aegis.submit(ADD, 5, resource="D-1", key="close", not_before=30)
        await asyncio.sleep(1.0)
    assert (await cluster.aegis.attach(ticket.id, ADD, timeout_s=60.0))[0] == 5
    again = await cluster.aegis.request(ADD, 5, resource="D-1", key="close")
    assert again[0] == 5
    assert cluster.value("D-1", "total", int) == 5


async def test_it_may_expire_before_its_turn(cluster: Cluster) -> None:
    await cluster.serve(desks(), resources={"D-1"}, instance_id="one")
    ticket = await cluster.aegis.submit(ADD, 5, resource="D-1", not_before=10, expires_s=20)
    await asyncio.sleep(1.0)
    await cluster.kill("one")
    await asyncio.sleep(60.0)
    await cluster.serve(desks(), resources={"D-1"}, instance_id="two")
    with pytest.raises(Expired):
        await cluster.aegis.attach(ticket.id, ADD, timeout_s=5.0)
    assert cluster.timers("D-1") == {}


async def test_handlers_neither_see_nor_drop_it(cluster: Cluster) -> None:
    await pair(cluster)
    await cluster.aegis.submit(ADD, 5, resource="D-1", not_before=30)
    await asyncio.sleep(1.0)
    assert await cluster.aegis.request(DROP, "x", resource="D-1") == []
    assert len(cluster.timers("D-1")) == 1


async def test_a_resource_has_a_bound_of_what_waits(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    if outcomes.__file__.endswith(".so"):
        pytest.skip("compiled, a constant can't be set")
    monkeypatch.setattr(outcomes, "TIMERS_MAX", 2)
    await pair(cluster)
    submit = cluster.aegis.submit
    tickets = [await submit(ADD, 1, resource="D-1", not_before=30 + n) for n in range(3)]
    with pytest.raises(Rejected, match="has 2 timers") as refused:
        await cluster.aegis.attach(tickets[2].id, ADD, timeout_s=1.0)
    assert refused.value.code == "too_many_timers"
    assert await cluster.client().cancel(tickets[2].id) is OutcomeKind.REJECTED
    for ticket in tickets[:2]:
        await cluster.aegis.attach(ticket.id, ADD, timeout_s=60.0)
    assert cluster.value("D-1", "total", int) == 2


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"not_before": 5}, "not_before needs a resource"),
        ({"not_before": -1, "resource": "D-1"}, "from 0 to"),
        ({"not_before": "16:00", "resource": "D-1"}, "a number of seconds"),
        ({"not_before": datetime(2030, 1, 1), "resource": "D-1"}, "names no zone"),
        ({"not_before": 20, "expires_s": 10, "resource": "D-1"}, "expire before it may begin"),
    ],
)
async def test_wrong_use_is_refused(cluster: Cluster, more: dict[str, Any], says: str) -> None:
    await pair(cluster)
    with pytest.raises(InvalidArgument, match=says):
        await cluster.aegis.submit(ADD, 5, **more)


def test_the_header_comes_back_and_a_strange_one_is_refused() -> None:
    request = Request("K.1t", "desks", "add", "D-1", b"1", not_before_s=1793739600.25)
    read = Request.parse(request.headers(), b"1", service="desks", resource="D-1")
    assert read.not_before_s == request.not_before_s
    assert read.until_its_time().waits == read
    for wrong in ("soon", "nan", "inf"):
        headers = request.headers() | {"aegis-not-before": wrong}
        with pytest.raises(ValueError, match=r"no time|could not convert"):
            Request.parse(headers, b"1", service="desks", resource="D-1")
    long = request.headers() | {"Nats-Msg-Id": "K." + "1" * 2046}
    with pytest.raises(ValueError, match="at most"):
        Request.parse(long, b"1", service="desks", resource="D-1")
