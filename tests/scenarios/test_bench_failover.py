"""`bench failover` on real processes: every kind strikes, callers wait and lose nothing (G6, G8)."""

from __future__ import annotations

import pytest

from bench.failover.rolling import CALM, GROUP, REGISTERED, TARGETED, run_rolling
from bench.failover.run import Plan, run_kind, run_many
from bench.failover.strikes import Kind
from bench.options import Options

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(120)]

PLAN = Plan(count=2, resources=4, rate_per_s=100.0)


@pytest.mark.parametrize(
    "kind",
    [
        Kind.KILL,
        pytest.param(Kind.PAUSE, marks=pytest.mark.slow),
        pytest.param(Kind.HANDOVER, marks=pytest.mark.slow),
    ],
)
async def test_callers_see_a_gap_and_no_loss(kind: Kind) -> None:
    found = await run_kind(kind, PLAN, Options(seed=5))

    assert len(found.gaps_s) == PLAN.count
    assert all(0 < gap < 5.0 for gap in found.gaps_s)
    assert all("the last gate is stored" in steps for steps in found.steps_s)
    assert found.verdict is not None
    assert found.verdict.clean
    assert found.verdict.ok > 100


@pytest.mark.slow
async def test_a_rolling_restart_has_a_gap_on_each_route_and_no_loss() -> None:
    found = await run_rolling(PLAN, Options(seed=5))

    assert set(found) == {TARGETED, GROUP, CALM}
    assert all(len(each.gaps_s) == PLAN.count for each in found.values())
    assert all(0 < gap < 5.0 for each in found.values() for gap in each.gaps_s)
    assert all(REGISTERED in steps for steps in found[GROUP].steps_s)
    verdict = found[TARGETED].verdict
    assert verdict is not None
    assert verdict.clean
    assert verdict.ok > 200


async def test_all_resources_of_a_dead_instance_are_served_again() -> None:
    found = await run_many(40, 1, Options(seed=5))

    assert len(found.gaps_s) == 1
    assert found.verdict is not None
    assert found.verdict.clean
    assert found.verdict.ok == 80
