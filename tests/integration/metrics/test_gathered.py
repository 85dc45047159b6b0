"""Control's /metrics on a real server: what callers and instances counted, over restarts of all of them."""

from __future__ import annotations

import asyncio
import contextlib
import urllib.error

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import AegisError, ContractError, Method, ResourceContext, Role

from tests.integration.control.support import control
from tests.integration.metrics.support import (
    BOOK,
    ECHO,
    Samples,
    accounts,
    get,
    get_json,
    observed,
    samples_of,
    scrape,
    serving,
    until_shown,
)

EXECUTED = "aegis_requests_total{method=echo,outcome=executed,route=any,service=accounts}"
ANSWERED = "aegis_request_duration_seconds_count{method=echo,route=any,service=accounts}"


async def test_a_scrape_shows_what_callers_and_instances_did(
    server: EmbeddedNats, prefix: str
) -> None:
    async with observed(server, prefix) as system:
        found = samples_of(system.text)
    assert "aegis_turn_outcomes_bucket{le=64.0,service=accounts}" in found  # of its own bounds
    at, group = "method=book,route=at,service=accounts", "method=echo,route=any,service=accounts"
    exact = {
        "aegis_requests_total{method=book,outcome=executed,route=at,service=accounts}": 1,
        "aegis_requests_total{method=book,outcome=rejected,route=at,service=accounts}": 1,
        EXECUTED: 1,
        "aegis_requests_total{method=echo,outcome=failed,route=any,service=accounts}": 1,
        "aegis_requests_stored_total{reason=submitted,service=accounts}": 1,
        f"aegis_request_duration_seconds_count{{{at}}}": 2,
        f"aegis_process_duration_seconds_count{{{at}}}": 2,
        f"aegis_commit_duration_seconds_count{{{group}}}": 2,
        f"aegis_queue_wait_seconds_count{{{group}}}": 2,
        "aegis_instances{service=accounts,state=live}": 1,
        "aegis_resources{role=active,service=accounts}": 1,
        "aegis_resources{role=standby,service=accounts}": 0,
        "aegis_leases{service=accounts,state=held}": 1,
        "aegis_failovers_total{reason=left,service=accounts}": 1,
        "aegis_failover_duration_seconds_count{service=accounts}": 1,
        "aegis_standby_lag_entries{service=accounts}": 0,
        "aegis_hand_ins_waiting{service=accounts}": 0,
        "aegis_dlq_messages{}": 0,
        "aegis_control_leader{}": 1,
        "aegis_control_connected{}": 1,
        "aegis_redeliveries_total{service=accounts}": 0,
        "aegis_fenced_commits_total{service=accounts}": 0,
        "aegis_ownership_moves_total{reason=registered,service=accounts}": 1,
        "aegis_gates_total{reason=claimed}": 2,
    }
    assert {name: found.get(name) for name in exact} == exact
    assert found["aegis_event_loop_lag_seconds_count{service=accounts}"] > 0
    turns = found["aegis_turns_total{service=accounts}"]
    assert 1 <= turns == found["aegis_turn_outcomes_count{service=accounts}"]
    wait_s = found[f"aegis_queue_wait_seconds_sum{{{group}}}"]
    # Both clocks are this machine's.
    assert 0 <= wait_s < 2


async def test_an_instance_that_goes_and_comes_back_does_not_turn_a_counter_back(
    server: EmbeddedNats, prefix: str
) -> None:
    async with (
        control(server.url, prefix) as replica,
        aegis_sdk.connect(server.url, prefix=prefix) as caller,
    ):
        seen = []
        for run in range(3):
            async with serving(server.url, prefix, instance_id="i-1"):
                for _ in range(5):
                    await caller.request(ECHO, "hi")
                found = await until_shown(replica.http_port, EXECUTED, 5 * (run + 1))
                seen.append(found[EXECUTED])
            seen.append((await scrape(replica.http_port))[EXECUTED])
        assert seen == [5, 5, 10, 10, 15, 15]


async def test_a_control_that_starts_again_begins_low_and_counts_what_comes(
    server: EmbeddedNats, prefix: str
) -> None:
    """Prometheus adds what it sees after a reset: that must not be the whole history."""
    async with contextlib.AsyncExitStack() as stack:
        async with control(server.url, prefix) as first:
            caller = await stack.enter_async_context(aegis_sdk.connect(server.url, prefix=prefix))
            await caller.serve(accounts())
            for _ in range(20):
                await caller.request(ECHO, "hi")
            await until_shown(first.http_port, EXECUTED, 20)
            await until_shown(first.http_port, ANSWERED, 20)
        async with control(server.url, prefix) as second:
            assert (await until_shown(second.http_port, EXECUTED, 0))[EXECUTED] == 0
            for _ in range(3):
                await caller.request(ECHO, "hi")
            await until_shown(second.http_port, ANSWERED, 3)
            found = await until_shown(second.http_port, EXECUTED, 3)
            assert (found[EXECUTED], found[ANSWERED]) == (3, 3)


async def test_the_sum_over_replicas_is_the_system(server: EmbeddedNats, prefix: str) -> None:
    """Over a change of the leader too: nothing is shown twice, nothing twice missed."""

    def total(replicas: list[Samples], name: str) -> float:
        return sum(samples.get(name, 0.0) for samples in replicas)

    async with (
        control(server.url, prefix) as one,
        control(server.url, prefix) as two,
        aegis_sdk.connect(server.url, prefix=prefix) as caller,
    ):
        await caller.serve(accounts())
        leader, other = (one, two) if one.leading else (two, one)
        for _ in range(10):
            await caller.request(ECHO, "hi")
        await until_shown(leader.http_port, ANSWERED, 10)
        found = [await scrape(port) for port in (leader.http_port, other.http_port)]
        assert (total(found, EXECUTED), total(found, "aegis_control_leader{}")) == (10, 1)
        assert found[1][EXECUTED] == 0, "shown at zero, so that its rate begins there"
        shown_by_the_old = found[0]
        leader.stop()
        await until_shown(other.http_port, "aegis_control_leader{}", 1)
        for _ in range(4):
            await caller.request(ECHO, "hi")
        after = await until_shown(other.http_port, ANSWERED, 4)
        assert total([shown_by_the_old, after], EXECUTED) == 14


async def test_a_process_that_is_told_not_to_counts_nothing(
    server: EmbeddedNats, prefix: str
) -> None:
    async with (
        control(server.url, prefix) as replica,
        aegis_sdk.connect(server.url, prefix=prefix, metrics=False) as quiet,
        aegis_sdk.connect(server.url, prefix=prefix) as caller,
    ):
        await quiet.serve(accounts())
        await caller.request(ECHO, "hi")
        found = await until_shown(replica.http_port, ANSWERED, 1)
        assert EXECUTED not in found
        assert found["aegis_metrics_sources{}"] == 1


async def test_the_last_counts_of_a_process_that_ends_are_heard(
    server: EmbeddedNats, prefix: str
) -> None:
    async with control(server.url, prefix) as replica:
        async with serving(server.url, prefix) as (aegis, _):
            await aegis.request(ECHO, "hi")
        await until_shown(replica.http_port, EXECUTED, 1)
        found = await until_shown(replica.http_port, ANSWERED, 1)
        assert found["aegis_metrics_sources{}"] == 0


async def test_what_a_handler_hands_in_and_nobody_takes_is_shown(
    server: EmbeddedNats, prefix: str
) -> None:
    """Until somebody registers the service that it is for."""
    service, order = accounts(), Method("accounts", "order", request=int, reply=int)
    bill = Method("billing", "bill", request=int, reply=int)

    @service.handles(order)
    async def handle(ctx: ResourceContext, n: int) -> int:
        await ctx.submit(bill, n)
        return n

    async with (
        control(server.url, prefix) as replica,
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        await aegis.serve(service, resources={"R1": Role.ACTIVE})
        assert await aegis.request(order, 1, resource="R1") == 1
        await until_shown(replica.http_port, "aegis_hand_ins_waiting{service=accounts}", 1)


async def test_a_process_serves_its_own_metrics(server: EmbeddedNats, prefix: str) -> None:
    async with control(server.url, prefix), aegis_sdk.connect(server.url, prefix=prefix) as aegis:
        await aegis.serve(accounts(), resources={"R1": Role.ACTIVE})
        port = aegis.serve_metrics(0)
        await aegis.request(BOOK, 1, resource="R1")
        with pytest.raises(AegisError):
            await aegis.request(BOOK, 1, resource="nobody's", timeout_s=0.5)
        found = await scrape(port)
        at = "method=book,outcome={},route=at,service=accounts"
        assert found[f"aegis_requests_total{{{at.format('executed')}}}"] == 1
        assert found[f"aegis_requests_total{{{at.format('refused')}}}"] == 1
        assert "aegis_standby_lag_entries{service=accounts}" in found
        with pytest.raises(ContractError, match="served on port"):
            aegis.serve_metrics(0)
    with pytest.raises(urllib.error.URLError):
        await get(port, "/metrics")


async def test_the_last_minutes_are_told_as_json(server: EmbeddedNats, prefix: str) -> None:
    async with control(server.url, prefix) as replica, serving(server.url, prefix) as (aegis, _):
        await aegis.request(ECHO, "hi")
        async with asyncio.timeout(15):
            while True:
                told = await get_json(replica.http_port, "/api/history?service=accounts")
                points = told["services"]["accounts"]
                if any(p["requests_per_s"] and p["p99_ms"] for p in points):
                    break
                await asyncio.sleep(0.1)
        last = points[-1]["time_s"]
        told = await get_json(replica.http_port, f"/api/history?after_s={last}")
        assert all(p["time_s"] > last for p in told["services"]["accounts"])
        with pytest.raises(urllib.error.HTTPError, match="400"):
            await get(replica.http_port, "/api/history?after_s=yesterday")
