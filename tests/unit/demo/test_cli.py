"""The demo's command line: counts with and without a number, and refusals."""

from __future__ import annotations

from decimal import Decimal

import pytest
from aegis_demo import command
from aegis_demo.cli import main, with_counts
from aegis_demo.options import DemoOptions


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[DemoOptions]:
    """What the command line made of its arguments."""
    options: list[DemoOptions] = []

    def note(given: DemoOptions) -> int:
        options.append(given)
        return 0

    monkeypatch.setattr(command, "run_demo", note)
    return options


def run(*arguments: str) -> int:
    return main(arguments)


@pytest.mark.parametrize(
    ("arguments", "kills", "pauses"),
    [
        ([], 0, 0),
        (["--kill"], 1, 0),
        (["--kill", "3"], 3, 0),
        (["--kill=3"], 3, 0),
        (["--kill", "--kill"], 2, 0),
        (["--kill", "2", "--kill", "--json"], 3, 0),
        (["--kill", "--pause"], 1, 1),
        (["--pause", "2", "--kill", "0"], 0, 2),
    ],
)
def test_strikes_are_counted(
    asked: list[DemoOptions], arguments: list[str], kills: int, pauses: int
) -> None:
    assert run(*arguments) == 0
    (options,) = asked
    assert (options.kills, options.pauses) == (kills, pauses)


def test_the_options_have_the_defaults_of_the_help(asked: list[DemoOptions]) -> None:
    assert run() == 0
    assert asked == [DemoOptions()]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--orders", "0"],
        ["--orders", "many"],
        ["--kill", "-1"],
        ["--speed", "-1"],
        ["--in-flight", "0"],
        ["--cash", "0"],
        ["--position-limit", "much"],
        ["--nonsense"],
    ],
)
def test_a_wrong_value_ends_with_2_before_anything_starts(
    asked: list[DemoOptions], arguments: list[str]
) -> None:
    assert run(*arguments) == 2
    assert asked == []


def test_the_rules_of_the_market_can_be_set(asked: list[DemoOptions]) -> None:
    assert run("--cash", "1,250.50", "--position-limit", "0.001", "--console") == 0
    (options,) = asked
    assert (options.cash, options.position_limit) == (Decimal("1250.50"), Decimal("0.001"))
    assert options.console


def test_a_count_follows_only_where_it_is_missing() -> None:
    assert with_counts(["--kill", "2", "--pause"]) == ["--kill", "2", "--pause", "1"]
