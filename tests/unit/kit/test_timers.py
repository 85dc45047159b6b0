"""Timers, as a user's suite has them: virtual time, failovers, and what handlers may ask."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from aegis_sdk import HandlerFailed, Method, Rejected, ResourceContext, Service
from aegis_sdk.testing import Cluster

SET = Method("desks", "set", request=dict[str, Any], reply=str)
DROP = Method("desks", "drop", request=str, reply=bool)
FIRE = Method("desks", "fire", request=str, reply=int)
FIRE_PURE = Method("desks", "fire_pure", request=str, reply=int)
REFUSE = Method("desks", "refuse", request=str, reply=int)
CALL = Method("desks", "call", request=int, reply=int)
LOST = Method("desks", "lost", request=int, reply=int)
ELSEWHERE = Method("other", "fire", request=str, reply=int)
NEW_YORK = ZoneInfo("America/New_York")


def fire(ctx: ResourceContext, what: str) -> int:
    fired = ctx.state.get("fired", list[list[Any]]) or []
    ctx.state.set("fired", [*fired, [what, time.time()]])
    return len(fired) + 1


def desks() -> Service:
    service = Service("desks")
    known: dict[str, Method[Any, int]] = {
        "fire": FIRE,
        "fire_pure": FIRE_PURE,
        "refuse": REFUSE,
        "lost": LOST,
        "else": ELSEWHERE,
    }

    def set_one(ctx: ResourceContext, asked: dict[str, Any]) -> str:
        method = known[asked.pop("method", "fire")]
        ends = asked.pop("ends", "")
        if (zone := asked.pop("zone", None)) is not None:
            year, month, day, hour, minute = asked["at"]
            asked["at"] = datetime(year, month, day, hour, minute, tzinfo=ZoneInfo(zone))
        name = ctx.later(method, asked.pop("payload", "x"), **asked)
        if ends == "rejected":
            raise Rejected("no", "set, and refused")
        if ends == "failed":
            raise RuntimeError("set, and failed")
        return name

    service.handles(SET)(set_one)

    @service.handles(DROP, pure=True)
    def drop(ctx: ResourceContext, name: str) -> bool:
        return ctx.drop_timer(name)

    @service.handles(FIRE)
    async def fire_slowly(ctx: ResourceContext, what: str) -> int:
        await asyncio.sleep(0.001)
        return fire(ctx, what)

    service.handles(FIRE_PURE, pure=True)(fire)

    @service.handles(REFUSE)
    async def refuse(ctx: ResourceContext, what: str) -> int:
        raise Rejected("closed", what)

    @service.handles(CALL, pure=True)
    def call(ctx: ResourceContext, n: int) -> int:
        return n

    return service


async def pair(cluster: Cluster) -> None:
    for name in ("one", "two"):
        await cluster.serve(desks(), resources={"D-1"}, instance_id=name)


async def later(cluster: Cluster, **asked: Any) -> str:
    return await cluster.aegis.request(SET, asked, resource="D-1")


def fired(cluster: Cluster) -> list[str]:
    return [what for what, _ in cluster.state("D-1").get("fired", [])]


async def test_a_timer_fires_once_at_its_time(cluster: Cluster) -> None:
    await pair(cluster)
    begun_s = time.time()
    assert await later(cluster, after_s=30, name="close", payload="closed") == "close"
    assert cluster.timers("D-1")["close"] == pytest.approx(begun_s + 30.0, abs=0.1)
    await asyncio.sleep(29.9)
    assert fired(cluster) == []
    await asyncio.sleep(60.0)
    [(what, at_s)] = cluster.state("D-1")["fired"]
    assert what == "closed"
    assert 30.0 <= at_s - begun_s < 30.05
    assert cluster.timers("D-1") == {}
    cluster.assert_exactly_once()


@pytest.mark.parametrize("method", ["fire", "fire_pure"])
async def test_one_that_came_due_while_nobody_served_fires_at_the_takeover(
    cluster: Cluster, method: str
) -> None:
    await cluster.serve(desks(), resources={"D-1"}, instance_id="one")
    await later(cluster, after_s=5, method=method)
    await cluster.kill("one")
    await asyncio.sleep(60.0)
    await cluster.serve(desks(), resources={"D-1"}, instance_id="two")
    await asyncio.sleep(0.2)
    assert fired(cluster) == ["x"]
    await asyncio.sleep(10.0)
    assert fired(cluster) == ["x"]
    cluster.assert_exactly_once()


async def test_a_standby_fires_what_the_active_that_died_had_set(cluster: Cluster) -> None:
    await pair(cluster)
    await later(cluster, after_s=5, name="a")
    await later(cluster, after_s=500, name="b")
    await cluster.failover("D-1")
    await asyncio.sleep(5.1)
    assert fired(cluster) == ["x"]
    assert list(cluster.timers("D-1")) == ["b"]


async def test_who_was_cut_off_over_the_due_time_fires_nothing_more(cluster: Cluster) -> None:
    """It goes on with its own clock, and computes; its gate refuses what it stores."""
    await pair(cluster)
    await later(cluster, after_s=3, method="fire_pure")
    await asyncio.sleep(2.5)
    cluster.partition("one")
    await asyncio.sleep(10.0)
    assert fired(cluster) == ["x"]
    await cluster.heal("one")
    await asyncio.sleep(10.0)
    assert fired(cluster) == ["x"]
    assert cluster.active("D-1") == "two"
    cluster.assert_exactly_once()


async def test_a_name_set_again_replaces_and_a_dropped_one_never_fires(cluster: Cluster) -> None:
    await pair(cluster)
    await later(cluster, after_s=5, name="a", payload="old")
    await later(cluster, after_s=8, name="a", payload="new")
    await later(cluster, after_s=5, name="b")
    assert await cluster.aegis.request(DROP, "b", resource="D-1")
    assert not await cluster.aegis.request(DROP, "b", resource="D-1")
    await asyncio.sleep(20.0)
    assert fired(cluster) == ["new"]
    assert not await cluster.aegis.request(DROP, "a", resource="D-1")


@pytest.mark.parametrize("ends", ["rejected", "failed"])
async def test_a_handler_that_fails_has_set_nothing(cluster: Cluster, ends: str) -> None:
    await pair(cluster)
    with pytest.raises((Rejected, HandlerFailed)):
        await later(cluster, after_s=1, ends=ends)
    assert cluster.timers("D-1") == {}
    await asyncio.sleep(5.0)
    assert fired(cluster) == []


async def test_one_that_is_refused_when_it_fires_is_over(cluster: Cluster) -> None:
    await pair(cluster)
    await later(cluster, after_s=1, method="refuse")
    await asyncio.sleep(2.0)
    assert cluster.timers("D-1") == {}
    await cluster.failover("D-1")
    await asyncio.sleep(2.0)
    outcomes = [
        r.outcome.kind.value for r in cluster.bus.log("desks").records() if r.method == "refuse"
    ]
    assert outcomes == ["rejected"]


async def test_one_whose_method_this_version_lacks_is_over_and_told(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    await cluster.serve(desks(), resources={"D-1"}, instance_id="one")
    await later(cluster, after_s=5, method="refuse")
    await cluster.kill("one")
    older = desks()
    del older.handlers["refuse"]
    await cluster.serve(older, resources={"D-1"}, instance_id="two")
    await asyncio.sleep(10.0)
    assert cluster.timers("D-1") == {}
    assert "timer_not_executed" in caplog.text
    [(letter, outcome)] = cluster.bus.dead_letters.values()
    assert (letter.method, outcome.kind.value) == ("refuse", "cancelled")


async def test_an_unnamed_timer_has_a_name_of_its_own(cluster: Cluster) -> None:
    await pair(cluster)
    names = {await later(cluster, after_s=1) for _ in range(3)}
    assert len(names) == 3
    await asyncio.sleep(2.0)
    assert fired(cluster) == ["x"] * 3


async def test_a_time_that_has_passed_fires_soon(cluster: Cluster) -> None:
    await pair(cluster)
    await later(cluster, at=[2001, 9, 11, 9, 0], zone="UTC")
    await later(cluster, after_s=0)
    await asyncio.sleep(0.1)
    assert fired(cluster) == ["x", "x"]


@pytest.mark.parametrize(
    ("eve", "hours", "close_utc"),
    [
        (datetime(2026, 10, 31, 16, tzinfo=NEW_YORK), 25, "21:00"),
        (datetime(2026, 3, 7, 16, tzinfo=NEW_YORK), 23, "20:00"),
    ],
    ids=["autumn", "spring"],
)
async def test_a_desk_closes_at_16_00_in_new_york_on_the_day_the_clocks_change(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, eve: datetime, hours: int, close_utc: str
) -> None:
    """From close to close it is not 24 hours. All the day but its last seconds is passed by setting the clock."""
    clock, virtual = {"shift_s": eve.timestamp() - time.time()}, time.time
    monkeypatch.setattr(time, "time", lambda: virtual() + clock["shift_s"])
    await pair(cluster)
    day = datetime.fromtimestamp(eve.timestamp() + 12 * 3600, NEW_YORK)
    at = [day.year, day.month, day.day, 16, 0]
    await later(cluster, at=at, zone="America/New_York", name="close", payload="closed")
    assert cluster.timers("D-1")["close"] - eve.timestamp() == hours * 3600
    clock["shift_s"] += hours * 3600 - 10.0
    await asyncio.sleep(5.0)
    assert fired(cluster) == []
    await asyncio.sleep(10.0)
    [(what, at_s)] = cluster.state("D-1")["fired"]
    assert what == "closed"
    assert datetime.fromtimestamp(at_s, UTC).strftime("%H:%M") == close_utc
    assert datetime.fromtimestamp(at_s, NEW_YORK).strftime("%H:%M:%S") == "16:00:00"


async def test_a_clock_that_is_set_back_makes_a_timer_late_and_never_early(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, virtual = {"shift_s": 0.0}, time.time
    monkeypatch.setattr(time, "time", lambda: virtual() + clock["shift_s"])
    await pair(cluster)
    await later(cluster, after_s=2.0)
    await asyncio.sleep(1.0)
    clock["shift_s"] = -30.0
    await asyncio.sleep(30.0)
    assert fired(cluster) == []
    await asyncio.sleep(2.0)
    assert fired(cluster) == ["x"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "after_s= .* or at="),
        ({"after_s": 1, "at": [2030, 1, 1, 9, 0], "zone": "UTC"}, "after_s= .* or at="),
        ({"after_s": -1}, "from 0 to"),
        ({"after_s": "soon"}, "must be a number of seconds"),
        ({"after_s": 1, "name": ""}, "is empty"),
        ({"after_s": 1, "name": "n" * 201}, "at most 200"),
        ({"after_s": 1, "name": 7}, "must be text"),
        ({"at": "16:00"}, "must be a datetime"),
        ({"after_s": 1, "method": "else"}, "of another service"),
        ({"after_s": 1, "method": "lost", "payload": 1}, "has no handler here"),
        ({"after_s": 1, "payload": 7}, "valid string"),
    ],
)
async def test_wrong_use_is_refused_where_it_is_written(
    cluster: Cluster, asked: dict[str, Any], says: str
) -> None:
    await pair(cluster)
    with pytest.raises(HandlerFailed, match=f"(?s){says}"):
        await later(cluster, **asked)
    assert cluster.timers("D-1") == {}


@pytest.mark.parametrize(
    ("given", "says"),
    [(datetime(2026, 11, 2, 16), "names no zone"), (math.nan, "must be a datetime")],
)
async def test_a_wall_clock_time_names_its_zone(cluster: Cluster, given: Any, says: str) -> None:
    service = Service("desks")

    @service.handles(SET)
    async def set_one(ctx: ResourceContext, asked: dict[str, Any]) -> str:
        return ctx.later(SET, {}, at=given)

    await cluster.serve(service, resources={"D-1"})
    with pytest.raises(HandlerFailed, match=says):
        await later(cluster)


async def test_a_handler_sees_what_it_has_set_and_dropped(cluster: Cluster) -> None:
    service, seen = Service("desks"), []

    @service.handles(SET, pure=True)
    def set_some(ctx: ResourceContext, asked: dict[str, Any]) -> str:
        ctx.later(SET, {}, after_s=10, name="a")
        ctx.later(SET, {}, after_s=20, name="a")
        ctx.later(SET, {}, after_s=30, name="b")
        seen.append((ctx.drop_timer("b"), ctx.drop_timer("c"), list(ctx.timers)))
        ctx.drop_timer("a")
        ctx.later(SET, {}, after_s=40, name="a")
        return ""

    await cluster.serve(service, resources={"D-1"})
    calls = [cluster.aegis.request(SET, {}, resource="D-1") for _ in range(3)]
    await asyncio.gather(*calls)
    assert seen[0] == (True, False, ["a"])
    assert list(cluster.timers("D-1")) == ["a"]


async def test_many_that_are_due_together_leave_calls_their_turn(cluster: Cluster) -> None:
    """A hundred and fifty come due while nobody serves; a call waits for a few of them."""
    await cluster.serve(desks(), resources={"D-1"}, instance_id="one")
    calls = [
        cluster.aegis.request(SET, {"after_s": 5, "name": str(n)}, resource="D-1", timeout_s=60)
        for n in range(150)
    ]
    await asyncio.gather(*calls)
    await cluster.kill("one")
    await asyncio.sleep(30.0)
    await cluster.serve(desks(), resources={"D-1"}, instance_id="two")
    assert await cluster.aegis.request(CALL, 7, resource="D-1") == 7
    assert len(fired(cluster)) <= 64
    await asyncio.sleep(10.0)
    assert len(fired(cluster)) == 150
    cluster.assert_exactly_once()


async def test_a_resource_has_a_bound_of_timers(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aegis_sdk.timers.TIMERS_MAX", 3)
    await pair(cluster)
    for n in range(3):
        await later(cluster, after_s=60, name=str(n))
    await later(cluster, after_s=60, name="0")
    with pytest.raises(HandlerFailed, match="has 3 timers, as many as a resource can have"):
        await later(cluster, after_s=60, name="3")
    await cluster.aegis.request(DROP, "0", resource="D-1")
    await later(cluster, after_s=60, name="3")


async def test_timers_outlive_checkpoints_and_restarts(cluster: Cluster) -> None:
    """A checkpoint is made when the resource is given away."""
    await pair(cluster)
    await later(cluster, after_s=100, name="a")
    await cluster.instance("one").drain()
    await cluster.serve(desks(), resources={"D-1"}, instance_id="three")
    await cluster.failover("D-1")
    assert cluster.active("D-1") == "three"
    await asyncio.sleep(101.0)
    assert fired(cluster) == ["x"]


async def test_a_timer_sets_itself_again_for_ever(cluster: Cluster) -> None:
    service = Service("desks")

    @service.handles(SET, pure=True)
    def tick(ctx: ResourceContext, asked: dict[str, Any]) -> str:
        ctx.state.set("ticks", (ctx.state.get("ticks", int) or 0) + 1)
        return ctx.later(SET, {}, after_s=1, name="tick")

    for name in ("one", "two"):
        await cluster.serve(service, resources={"D-1"}, instance_id=name)
    await later(cluster)
    await asyncio.sleep(50.5)
    await cluster.failover("D-1")
    await asyncio.sleep(50.0)
    assert cluster.value("D-1", "ticks", int) == pytest.approx(101, abs=2)
    cluster.assert_exactly_once()


@pytest.mark.aegis(seed=11)
async def test_a_bad_network_makes_none_twice(cluster: Cluster) -> None:
    cluster.faults.lost, cluster.faults.lost_answers, cluster.faults.delay_s_max = 0.1, 0.05, 0.02
    await pair(cluster)
    for n in range(30):
        method = "fire" if n % 2 else "fire_pure"
        await cluster.aegis.request(
            SET,
            {"after_s": n / 10, "payload": str(n), "method": method},
            resource="D-1",
            timeout_s=60,
        )
        if n == 15:
            await cluster.failover("D-1")
    await asyncio.sleep(30.0)
    assert sorted(map(int, fired(cluster))) == list(range(30))
    cluster.assert_exactly_once()
