"""`deploy/docker-compose.cluster.yaml`: three copies of everything, and one of each may be killed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import aegis_sdk
import pytest
from aegis_control.entrypoints.cli.errors import Exit
from aegis_sdk import Method, ResourceContext, Role, Service

from tests.container.support import REPOSITORY, Stack, is_valid, running_stack, until
from tests.integration.cli.support import run_cli

pytestmark = pytest.mark.timeout(600)

FILE: Final = REPOSITORY / "deploy" / "docker-compose.cluster.yaml"
NODES: Final = ("NATS_1", "NATS_2", "NATS_3")

COUNT: Method[int, int] = Method("counters", "count", request=int, reply=int)


@pytest.fixture(scope="module")
def stack(engine: Any, image: str) -> Iterator[Stack]:
    with running_stack(engine, image, FILE, *NODES, "CONTROL_1", "CONTROL_2") as running:
        running.wait_healthy("control-1", "control-2")
        yield running


def urls(stack: Stack) -> str:
    return ",".join(stack.url("nats", f"AEGIS_{node}_PORT") for node in NODES)


def test_the_file_is_valid(engine: Any) -> None:
    is_valid(FILE)


async def test_it_is_safe_for_money_by_the_doctors_word(stack: Stack) -> None:
    """Three copies, each synced, and a system account that answers."""
    said = await run_cli("doctor", "-o", "json", "--url", urls(stack))
    assert said.code == 0, said.out + said.err
    levels = {finding["check"]: finding["level"] for finding in said.json["findings"]}
    assert {levels[name] for name in ("replicas", "sync", "system account")} == {"ok"}


async def test_a_node_and_the_leading_control_may_be_killed(stack: Stack) -> None:
    """G1, G8: what was accepted ends, and callers wait a little longer."""
    service = Service("counters")

    @service.handles(COUNT)
    async def count(ctx: ResourceContext, amount: int) -> int:
        total = (ctx.state.get("total", int) or 0) + amount
        ctx.state.set("total", total)
        return total

    async with aegis_sdk.connect(urls(stack)) as aegis:
        await aegis.serve(service, resources={"C-1": Role.AUTO})
        assert await aegis.request(COUNT, 2, resource="C-1", timeout_s=20.0) == 2
        stack.container("nats-1").kill()
        leader = await leading(stack)
        stack.container(leader).kill()
        assert await aegis.request(COUNT, 3, resource="C-1", timeout_s=40.0) == 5
        [left] = {"control-1", "control-2"} - {leader}
        until("the other control leads", lambda: stack.logged(left, "leader_elected"))


async def leading(stack: Stack) -> str:
    """The control whose id the leader has; ids begin with the container's name."""
    for _ in range(3):  # streams elect their leaders meanwhile
        said = await run_cli("status", "-o", "json", "--timeout", "10", "--url", urls(stack))
        if said.code != Exit.UNREACHABLE:
            break
    assert said.code in (0, 6), said.err  # without a standby it is degraded
    leader = str(said.json["control"]["leader"])
    [name] = [
        name
        for name in ("control-1", "control-2")
        if leader.startswith(stack.container(name).id[:12])
    ]
    return name
