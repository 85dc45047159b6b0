"""Control spreads AUTO resources: when it begins, what it waits for, what it leaves alone, and what operators ask for."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from aegis_control.domain.leading.spreading import LAG_ENTRIES_MAX, Policy
from aegis_sdk.contract.control import Ack, AdminReply, InstanceState, Role
from aegis_sdk.errors import Unavailable

from tests.unit.control.support import SERVICE, Office

ACCOUNTS = tuple(f"ACC-{n:02}" for n in range(30))
ABC = ("a", "b", "c")


class Desk(Office):
    """An office whose time passes in the steps of the spreading. `says`: what an instance's heartbeats have beside the usual."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.says: dict[str, dict[str, Any]] = {}

    def beats(self, *instance_ids: str, **beat: Any) -> None:
        for name in instance_ids:
            super().beats(name, **beat | self.says.get(name, {}))

    async def works(self, seconds: float, *beating: str) -> None:
        """Heartbeats come, and control looks twice a second."""
        for _ in range(round(seconds / 0.5)):
            await self.passes(0.5, *beating)
            await self.spread(self.table)
            await self.settled()

    @property
    def table(self) -> Any:
        return self.state.services[SERVICE]

    def active(self) -> dict[str, int]:
        return dict(sorted(Counter(self.lease(name).owner for name in ACCOUNTS).items()))

    async def ask(self, verb: str, **argument: Any) -> AdminReply:
        return await self.admin(verb, json.dumps(argument).encode())


async def three(role: Role = Role.AUTO) -> Desk:
    """The first has everything."""
    desk = Desk()
    for name in ABC:
        assert (await desk.registers(name, role, ACCOUNTS)).ok
    desk.beats(*ABC)
    return desk


async def spread_out() -> Desk:
    desk = await three()
    await desk.works(6.0, *ABC)
    assert desk.active() == {"a": 10, "b": 10, "c": 10}
    return desk


async def test_three_that_start_together_get_a_third_each_few_at_a_time() -> None:
    desk = await three()
    await desk.works(1.5, *ABC)
    assert desk.active() == {"a": 30}
    await desk.works(1.0, *ABC)
    assert desk.active()["a"] == 20
    await desk.works(2.0, *ABC)
    assert desk.active() == {"a": 10, "b": 10, "c": 10}
    assert desk.instances.kinds("a") == ["pause", "pause"]
    assert desk.events.last("spread_begun")["active"] == {"a": 30, "b": 0, "c": 0}
    assert "a for 30" in str(desk.events.last("spread_begun")["chosen"])
    done = desk.events.last("spread_done")
    assert (done["resources"], done["active"]) == (20, {"a": 10, "b": 10, "c": 10})
    assert desk.events.last("failover_done")["reason"] == "spread"


async def test_what_is_even_is_left_alone() -> None:
    desk = await spread_out()
    told = len(desk.events.seen)
    await desk.works(20.0, *ABC)
    assert len(desk.events.seen) == told


async def test_each_newcomer_starts_the_wait_anew() -> None:
    desk = Desk()
    for name in ABC:
        await desk.registers(name, Role.AUTO, ACCOUNTS)
        await desk.works(1.5, *ABC[: ABC.index(name) + 1])
    assert desk.active() == {"a": 30}


async def test_a_fourth_that_joins_gets_its_share() -> None:
    desk = await spread_out()
    await desk.registers("d", Role.AUTO, ACCOUNTS)
    await desk.works(5.0, *ABC, "d")
    assert sorted(desk.active().values()) == [7, 7, 8, 8]


async def test_capacity_weighs_at_a_spread_and_at_a_failover() -> None:
    desk = Desk()
    await desk.registers("a", Role.AUTO, ACCOUNTS)
    await desk.registers("b", Role.AUTO, ACCOUNTS, capacity=2.0)
    await desk.registers("c", Role.AUTO, ACCOUNTS, capacity=2.0)
    await desk.works(6.0, *ABC)
    assert desk.active() == {"a": 6, "b": 12, "c": 12}
    await desk.passes(1.0, "a", "b")
    assert desk.active() == {"a": 10, "b": 20}


async def test_what_a_failed_one_had_is_spread_and_comes_back_to_it() -> None:
    desk = await spread_out()
    await desk.passes(1.0, "a", "b")
    assert desk.active() == {"a": 15, "b": 15}
    await desk.registers("c", Role.AUTO, ACCOUNTS, run="run2")
    await desk.works(0.5, "a", "b")
    assert desk.active() == {"a": 15, "b": 15}
    desk.says["c"] = {"run": "run2"}
    await desk.works(5.0, *ABC)
    assert desk.active() == {"a": 10, "b": 10, "c": 10}


async def test_nothing_goes_to_one_that_lags() -> None:
    desk = await three()
    desk.says["c"] = {"lag_entries": LAG_ENTRIES_MAX + 1}
    await desk.works(6.0, *ABC)
    assert desk.active() == {"a": 15, "b": 15}
    desk.says.clear()
    await desk.works(3.0, *ABC)
    assert desk.active() == {"a": 10, "b": 10, "c": 10}


async def test_nothing_moves_while_one_drains() -> None:
    desk = await three()
    desk.says["c"] = {"draining": True}
    await desk.works(6.0, *ABC)
    assert desk.active() == {"a": 30}
    refused = await desk.ask("rebalance")
    assert (refused.code, "c drains" in refused.message) == ("refused", True)
    await desk.leaves("c")
    await desk.works(5.0, "a", "b")
    assert desk.active() == {"a": 15, "b": 15}


@pytest.mark.parametrize("role", [Role.STANDBY, Role.ACTIVE])
async def test_only_auto_is_spread(role: Role) -> None:
    desk = Desk()
    await desk.registers("a", Role.ACTIVE if role is Role.ACTIVE else Role.AUTO, ACCOUNTS)
    await desk.registers("b", Role.AUTO if role is Role.ACTIVE else Role.STANDBY, ACCOUNTS)
    await desk.works(5.0, "a", "b")
    assert desk.active() == {"a": 30}


async def test_nothing_moves_in_a_failover_or_after_a_loss() -> None:
    desk = await three()
    async with desk.table.lock:
        await desk.works(5.0, *ABC)
    assert desk.active() == {"a": 30}
    desk.table.handovers = 1
    await desk.works(5.0, *ABC)
    assert desk.active() == {"a": 30}


async def test_what_cannot_pause_is_left_alone_for_a_while_and_others_move() -> None:
    """Its handler runs for long: it would be run again elsewhere."""
    desk = await three()
    desk.instances.answer = Ack(ok=False, message="a request is still running")
    await desk.works(2.5, *ABC)
    assert desk.active() == {"a": 30}
    assert desk.instances.kinds("a") == ["pause", "resume"]
    desk.instances.answer = Ack(ok=True)
    await desk.works(2.0, *ABC)
    assert desk.active() == {"a": 10, "b": 10, "c": 10}
    first = desk.instances.sent[0][1].resources
    assert {desk.lease(name).owner for name in first} == {"a"}


async def test_one_that_is_lost_during_the_pause_is_given_nothing() -> None:
    desk = await three()

    async def dies(*_: object, **__: object) -> Ack:
        desk.member("b").enter(InstanceState.LOST)
        return Ack(ok=True)

    desk.instances.command = dies  # type: ignore[method-assign]
    await desk.works(2.5, *ABC)
    assert "b" not in desk.active()


async def test_a_log_that_does_not_answer_leaves_everything_where_it_is() -> None:
    desk = await three()
    await desk.works(1.5, *ABC)
    desk.own_log.away = True
    with pytest.raises(Unavailable):
        await desk.works(1.0, *ABC)
    assert desk.instances.kinds("a") == ["pause", "resume"]
    assert (desk.active(), desk.table.handovers) == ({"a": 30}, 0)


@pytest.mark.parametrize("capacity", [0.0, -1.0, 1e308])
async def test_a_capacity_that_is_none_is_refused(capacity: float) -> None:
    """Also from clients that are not the SDK."""
    reply = await Office().registers("a", Role.AUTO, ACCOUNTS, capacity=capacity)
    assert (reply.ok, reply.code) == (False, "invalid")


# --- operators ---------------------------------------------------------------------------------------
async def test_what_an_operator_moved_stays_until_its_owner_goes() -> None:
    desk = await spread_out()
    mine = [name for name in ACCOUNTS if desk.lease(name).owner != "c"]
    reply = await desk.ask("failover", resources=mine, to="c", by="eve")
    assert len(reply.data["moved"]) == 20
    await desk.works(5.0, *ABC)
    assert all(desk.lease(name).owner == "c" for name in mine)
    await desk.passes(1.0, "a", "b")
    assert desk.active() == {"a": 15, "b": 15}


async def test_rebalance_moves_what_an_operator_moved_and_says_so_first() -> None:
    desk = await spread_out()
    mine = [name for name in ACCOUNTS if desk.lease(name).owner != "c"]
    await desk.ask("failover", resources=mine, to="c", by="eve")
    planned = await desk.ask("rebalance", service=SERVICE, dry_run=True)
    [moves] = planned.data["services"]
    assert (moves["service"], Counter(moves["moves"].values())) == (SERVICE, {"a": 10, "b": 10})
    assert desk.active() == {"c": 30}
    assert (await desk.ask("rebalance", by="eve", reason="it is night")).ok
    assert desk.events.last("operator_change")["result"] == "20 move"
    await desk.works(1.5, *ABC)
    assert desk.active() == {"a": 10, "b": 10, "c": 10}
    assert desk.events.last("spread_done")["reason"] == "rebalanced by eve: it is night"
    assert (await desk.ask("rebalance")).data["services"] == []


async def test_switched_off_it_spreads_only_when_asked() -> None:
    desk = Desk(policy=Policy(on=False, wait_s=2.0, moves_max=30, difference=0.25))
    for name in ABC:
        await desk.registers(name, Role.AUTO, ACCOUNTS)
    await desk.works(5.0, *ABC)
    assert desk.active() == {"a": 30}
    assert (await desk.ask("rebalance")).ok
    await desk.works(1.0, *ABC)
    assert desk.active() == {"a": 10, "b": 10, "c": 10}


async def test_rebalance_of_a_service_that_never_was_is_not_found() -> None:
    assert (await Desk().ask("rebalance", service="nope")).code == "not_found"
    assert (await Desk().ask("rebalance")).data["services"] == []


async def test_failover_of_several_moves_all_or_says_why_before_it_begins() -> None:
    desk = await three()
    reply = await desk.ask("failover", resources=["ACC-00", "nope"], to="b")
    assert (reply.code, desk.active()) == ("not_found", {"a": 30})
    assert (await desk.ask("failover", resources=[])).code == "invalid"
    reply = await desk.ask("failover", resources=["ACC-00", "ACC-01", "ACC-00"])
    assert len(reply.data["moved"]) == 2
    assert desk.instances.kinds("a") == ["pause"]
    assert desk.lease("ACC-00").epoch == desk.lease("ACC-01").epoch
