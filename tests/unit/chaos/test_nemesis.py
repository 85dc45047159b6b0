"""Faults are drawn from a seed, and each that is struck is healed and told."""

from __future__ import annotations

import pytest

from bench.chaos.history import Fault
from bench.chaos.nemesis import Kind, Nemesis, Planned, plan

SIZES = dict.fromkeys(Kind, 3)


def test_the_same_seed_gives_the_same_faults() -> None:
    assert plan(7, 60.0, list(Kind), SIZES) == plan(7, 60.0, list(reversed(Kind)), SIZES)
    assert plan(7, 60.0, list(Kind), SIZES) != plan(8, 60.0, list(Kind), SIZES)


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    shorter = plan(7, 30.0, list(Kind), SIZES)
    assert plan(7, 60.0, list(Kind), SIZES)[: len(shorter)] == shorter


def test_every_kind_strikes_before_one_strikes_again() -> None:
    first = plan(3, 100.0, list(Kind), SIZES)[: len(Kind)]
    assert {planned.kind for planned in first} == set(Kind)


def test_only_the_chosen_faults_strike_within_the_time_and_the_targets() -> None:
    planned = plan(1, 60.0, [Kind.KILL_NATS, Kind.CUT], {Kind.KILL_NATS: 1, Kind.CUT: 2})
    assert {each.kind for each in planned} == {Kind.KILL_NATS, Kind.CUT}
    assert all(0 < each.at_s < 60.0 and each.lasts_s > 0 for each in planned)
    assert all(each.target == 0 for each in planned if each.kind is Kind.KILL_NATS)
    assert plan(1, 60.0, [], {}) == []


class Victims:
    def __init__(self, down: int | None = None) -> None:
        self.calls: list[tuple[str, Kind, int]] = []
        self._down = down

    async def strike(self, kind: Kind, target: int) -> str | None:
        self.calls.append(("strike", kind, target))
        return None if target == self._down else f"t{target}"

    async def heal(self, kind: Kind, target: int) -> None:
        self.calls.append(("heal", kind, target))


async def carried_out(victims: Victims, *planned: Planned) -> list[Fault]:
    faults: list[Fault] = []
    await Nemesis(planned, victims, faults.append).run()
    return faults


async def test_each_fault_is_healed_and_told() -> None:
    victims = Victims()
    faults = await carried_out(
        victims, Planned(0.0, Kind.CUT, 0, 0.02), Planned(0.0, Kind.KILL_NATS, 1, 0.01)
    )
    assert sorted(fault.kind for fault in faults) == ["cut", "kill_nats"]
    assert all(fault.healed_s > fault.began_s for fault in faults)
    assert [call[0] for call in victims.calls] == ["strike", "strike", "heal", "heal"]


@pytest.mark.parametrize("second", [Kind.PAUSE_INSTANCE, Kind.KILL_INSTANCE, Kind.DELAY])
async def test_what_is_struck_is_not_struck_again_before_it_has_healed(second: Kind) -> None:
    victims = Victims()
    faults = await carried_out(
        victims, Planned(0.0, Kind.CUT, 0, 0.05), Planned(0.0, second, 0, 0.01)
    )
    assert [fault.kind for fault in faults] == ["cut"]


async def test_what_is_down_already_is_no_fault() -> None:
    assert await carried_out(Victims(down=2), Planned(0.0, Kind.CUT, 2, 0.01)) == []
