"""`deploy/docker-compose.yaml`: it is valid, comes up healthy, does its work, and its demo survives faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import aegis_sdk
import pytest
from aegis_sdk import Method, ResourceContext, Role, Service

from tests.container.support import REPOSITORY, Stack, get_json, is_valid, running_stack, until
from tests.integration.cli.support import run_cli

pytestmark = pytest.mark.timeout(600)

FILE: Final = REPOSITORY / "deploy" / "docker-compose.yaml"
PAIR: Final = ("accounts-1", "accounts-2")

COUNT: Method[int, int] = Method("counters", "count", request=int, reply=int)


@pytest.fixture(scope="module")
def stack(engine: Any, image: str, demo_image: str) -> Iterator[Stack]:
    assert demo_image  # compose would build it, and leave it
    ports = ("NATS", "NATS_MONITOR", "CONTROL", "PROMETHEUS")
    with running_stack(engine, image, FILE, *ports) as running:
        yield running


def test_the_file_is_valid(engine: Any) -> None:
    is_valid(FILE)


def test_control_becomes_healthy(stack: Stack) -> None:
    """By the image's own health check, after it found NATS by itself."""
    stack.wait_healthy("control")


def test_the_cli_in_the_image_reaches_it(stack: Stack) -> None:
    code, said = stack.container("control").exec_run(["ipc-cli", "status", "-o", "json"])
    assert code == 0, said


async def test_a_service_on_the_host_works_with_it(stack: Stack) -> None:
    """The published ports are all that a service needs; a stored request survives a restart of NATS."""
    service = Service("counters")

    @service.handles(COUNT)
    async def count(ctx: ResourceContext, amount: int) -> int:
        total = (ctx.state.get("total", int) or 0) + amount
        ctx.state.set("total", total)
        return total

    url = stack.url("nats", "AEGIS_NATS_PORT")
    async with aegis_sdk.connect(url) as aegis:
        await aegis.serve(service, resources={"C-1": Role.AUTO})
        assert await aegis.request(COUNT, 2, resource="C-1", timeout_s=10.0) == 2
        stack.container("nats").kill()
        stack.compose("start", "nats")
        assert await aegis.request(COUNT, 3, resource="C-1", timeout_s=30.0) == 5


def test_prometheus_scrapes_control(stack: Stack) -> None:
    api = f"{stack.url('http', 'AEGIS_PROMETHEUS_PORT')}/api/v1"

    def up() -> bool:
        result = get_json(f"{api}/query?query=up%7Bjob%3D%22aegis-control%22%7D")["data"]["result"]
        return bool(result and result[0]["value"][1] == "1")

    until("the target is up", up)
    names = get_json(f"{api}/label/__name__/values")["data"]
    assert "aegis_build_info" in names


def test_prometheus_has_the_alerts_loaded(stack: Stack) -> None:
    api = f"{stack.url('http', 'AEGIS_PROMETHEUS_PORT')}/api/v1"
    groups = until("the rules are evaluated", lambda: get_json(f"{api}/rules")["data"]["groups"])
    alerts = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert "AegisNoControlLeader" in alerts
    assert "err" not in alerts.values(), alerts


# --- the demo: a pair of accounts, two of pricing, and a load that never ends ----------------------------


def test_the_demo_serves_and_trades(stack: Stack) -> None:
    stack.wait_healthy(*PAIR, "pricing-1", "pricing-2", "load")
    before = progress(stack)
    until("orders are executed", lambda: progress(stack)["executed"] > before["executed"])


async def test_the_cli_on_the_host_shows_the_pair(stack: Stack) -> None:
    url = stack.url("nats", "AEGIS_NATS_PORT")
    listed = await run_cli("list-instances", "-o", "json", "--url", url)
    assert listed.code == 0, listed.err
    assert {*PAIR, "pricing-1", "pricing-2"} <= {one["instance_id"] for one in listed.json}
    assert {one["host"] for one in listed.json}.isdisjoint({""})


async def test_a_killed_active_is_succeeded_without_an_error_for_the_caller(stack: Stack) -> None:
    """G8: a standby in another container answers what the dead one was asked."""
    old, epoch = await active(stack)
    before = progress(stack)
    stack.container(old).kill()
    until("the load goes on", lambda: progress(stack)["executed"] > before["executed"] + 50)
    new, new_epoch = await active(stack)
    assert {old, new} == set(PAIR)
    assert new_epoch > epoch
    assert progress(stack)["errors"] == 0
    stack.compose("start", old)
    stack.wait_healthy(old)
    back, back_epoch = await active(stack)
    assert (back, back_epoch) == (new, new_epoch) or back_epoch > new_epoch, "its share, in time"


async def test_a_stopped_active_drains_and_hands_over(stack: Stack) -> None:
    """SIGTERM, as an engine sends it."""
    old, epoch = await active(stack)
    container = stack.container(old)
    container.stop()
    assert container.wait()["StatusCode"] == 0
    assert len(stack.logged(old, "drained")) == 1
    new, new_epoch = await active(stack)
    assert {old, new} == set(PAIR)
    assert new_epoch > epoch


def test_prometheus_answers_questions_about_the_demo(stack: Stack) -> None:
    api = f"{stack.url('http', 'AEGIS_PROMETHEUS_PORT')}/api/v1"

    def value(query: str) -> float:
        result = get_json(f"{api}/query?query={query}")["data"]["result"]
        return float(result[0]["value"][1]) if result else 0.0

    executed = "sum(aegis_requests_total%7Bservice%3D%22accounts%22%2Coutcome%3D%22executed%22%7D)"
    until("requests are counted", lambda: value(executed) > 50)
    until("failovers are counted", lambda: value("sum(aegis_failovers_total)") >= 2)
    targets = get_json(f"{api}/targets")["data"]["activeTargets"]
    assert {target["health"] for target in targets} == {"up"}


def test_the_load_ends_with_an_answer_to_each_of_its_orders(stack: Stack) -> None:
    """Through a restart of NATS, a kill and a drain."""
    container = stack.container("load")
    container.stop()
    assert container.wait()["StatusCode"] == 0
    assert stack.logged("load", "order_failed") == []
    [ended] = stack.logged("load", "load_ended")
    assert ended["errors"] == 0
    assert ended["executed"] > 100


def progress(stack: Stack) -> dict[str, Any]:
    """What the load said last; it says so every five seconds."""
    told = stack.logged("load", "load_progress")
    return told[-1] if told else {"executed": 0, "rejected": 0, "errors": 0}


async def active(stack: Stack) -> tuple[str, int]:
    """(instance, epoch) of the first account."""
    url = stack.url("nats", "AEGIS_NATS_PORT")
    shown = await run_cli("show-route", "ACC-01", "-o", "json", "--url", url)
    assert shown.code == 0, shown.err
    [route] = shown.json
    return route["active"], route["epoch"]
