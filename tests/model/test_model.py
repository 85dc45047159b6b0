"""The protocol's model holds, and breaks when a rule is taken away: the short form of `python -m model`."""

from __future__ import annotations

import os

import pytest

from model.checker import ToolMissing, has_cycle, require_tools, search, shortest
from model.configurations import (
    CYCLES,
    MUTATIONS,
    SHORT,
    Mutation,
    Search,
    Size,
    TurnBudget,
)

pytestmark = pytest.mark.timeout(1_800)

LIMIT_S = 600.0


@pytest.fixture(autouse=True, scope="module")
def _tools() -> None:
    """Without spin and gcc these tests skip on a developer's machine and fail in CI (`CI` is set)."""
    try:
        require_tools()
    except ToolMissing as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("wanted", SHORT, ids=lambda wanted: wanted.name)
def test_all_promises_hold_in_every_run(wanted: Search) -> None:
    """G1 to G6."""
    budget = wanted.budget
    found = search(budget.model, budget.flags(), timeout_s=LIMIT_S, fast=wanted.fast)
    assert found.broken == ""


@pytest.mark.parametrize("size", CYCLES, ids=lambda size: size.model)
def test_every_run_comes_to_rest_and_is_checked_there(size: Size) -> None:
    """Without it, "each accepted request has an outcome at rest" would be an empty promise (G1)."""
    assert not has_cycle(size.model, size.flags(), timeout_s=LIMIT_S)
    assert search(size.model, [*size.flags(), "-DPROBE"], timeout_s=LIMIT_S, fast=False).broken


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_promise_breaks_without_its_rule(mutation: Mutation) -> None:
    found = shortest(mutation.budget.model, mutation.flags(), timeout_s=LIMIT_S)
    assert found.broken
    assert found.steps


def test_the_rule_makes_the_difference() -> None:
    """The unchanged model holds where the first mutation breaks it."""
    rule = MUTATIONS[0]
    flags = [*rule.budget.flags(), f"-DONLY={rule.promise}"]
    assert shortest(rule.budget.model, flags, timeout_s=LIMIT_S).broken == ""


def test_a_budget_names_every_size() -> None:
    assert "-DCRASHES=2" in TurnBudget(crashes=2).flags()
    assert "-DEXPIRES" in TurnBudget(expires=True).flags()
    assert "-DEXPIRES" not in TurnBudget().flags()
