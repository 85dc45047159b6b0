"""A resource's state as a handler sees it: an overlay that reaches nobody until it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from aegis_sdk import ContractError, State
from aegis_sdk.contract.envelope import Change
from pydantic import BaseModel


class Position(BaseModel):
    quantity: int
    cost: Decimal
    at: datetime


@dataclass
class Fill:
    price: Decimal
    tags: tuple[str, ...] = ()


POSITION = Position(quantity=3, cost=Decimal("1.10"), at=datetime(2026, 1, 2, tzinfo=UTC))


def test_what_was_set_is_seen_before_it_is_stored() -> None:
    base = {"a": 1, "b": 2}
    state = State(base)
    state.set("a", 10)
    state.delete("b")
    state.set("c", 3)
    assert (state.get("a"), state.get("b"), state.get("c")) == (10, None, 3)
    assert state.keys() == ["a", "c"]
    assert base == {"a": 1, "b": 2}


def test_set_after_delete_and_delete_after_set_count_as_the_last_one() -> None:
    state = State({"a": 1})
    state.delete("a")
    state.set("a", 2)
    assert state.get("a") == 2
    assert state.change() == Change({"a": 2})
    state.delete("a")
    assert state.get("a") is None
    assert state.keys() == []
    assert state.change() == Change({}, ("a",))


def test_a_change_holds_only_what_was_changed() -> None:
    state = State({"a": 1, "b": 2, "c": 3})
    state.get("a")
    state.set("b", 20)
    state.delete("c")
    assert state.change() == Change({"b": 20}, ("c",))
    assert not State({"a": 1}).change()


def test_values_come_back_as_the_type_asked_for() -> None:
    state = State({})
    state.set("position", POSITION)
    state.set("fill", Fill(Decimal("2.5"), ("x",)))
    stored = State(Change.decode(state.change().encode()).set)
    for seen in (state, stored):
        assert seen.get("position", Position) == POSITION
        assert seen.get("fill", Fill) == Fill(Decimal("2.5"), ("x",))
        assert seen.get("nothing", Position) is None


@pytest.mark.parametrize("type_", [None, dict, dict[str, Any], Any, dict[str, list[int]]])
@pytest.mark.parametrize("own", [False, True])
def test_changing_a_value_that_was_got_changes_nothing(type_: Any, own: bool) -> None:
    """G5: a refused or rejected request leaves nothing to undo."""
    base: dict[str, Any] = {} if own else {"book": {"bids": [1, 2]}}
    state = State(base)
    if own:
        state.set("book", {"bids": [1, 2]})
    value: Any = state.get("book") if type_ is None else state.get("book", type_)
    value["bids"].append(3)
    value["asks"] = []
    assert state.get("book") == {"bids": [1, 2]}
    assert base in ({}, {"book": {"bids": [1, 2]}})


@pytest.mark.parametrize("type_", [list, list[Any], list[dict[str, int]]])
def test_changing_an_item_of_a_list_that_was_got_changes_nothing(type_: Any) -> None:
    """G3: only what is set, and so stored, is in the state."""
    state = State({"fills": [{"quantity": 1}]})
    fills: Any = state.get("fills", type_)
    fills[0]["quantity"] = 5
    assert state.get("fills") == [{"quantity": 1}]


def test_changing_a_value_after_it_was_set_changes_nothing() -> None:
    state, value = State({}), {"bids": [1]}
    state.set("book", value)
    value["bids"].append(2)
    assert state.get("book") == {"bids": [1]}


def test_a_change_that_was_taken_stays_as_it_was() -> None:
    """G5: a task that a handler left behind must not change what is about to be stored."""
    state = State({})
    state.set("a", 1)
    change = state.change()
    state.set("b", 2)
    state.delete("a")
    assert change == Change({"a": 1})


def test_a_value_without_a_json_form_is_refused() -> None:
    with pytest.raises(ContractError, match="state 'a'"):
        State({}).set("a", object())


def test_none_is_a_value_that_is_kept() -> None:
    state = State({})
    state.set("a", None)
    assert state.get("a") is None
    assert state.keys() == ["a"]
    assert state.change()


def test_items_are_those_of_a_prefix_in_the_order_of_their_keys_with_this_requests_changes() -> (
    None
):
    state = State({"fill/2": 2, "fill/1": 1, "fills": 9, "cash": 5, "fill/3": 3})
    state.set("fill/0", 0)
    state.set("fill/2", 20)
    state.delete("fill/3")
    assert list(state.items("fill/", int).items()) == [("fill/0", 0), ("fill/1", 1), ("fill/2", 20)]
    assert list(state.items()) == ["cash", "fill/0", "fill/1", "fill/2", "fills"]
    assert state.items("order/") == {}
    assert "fill/4" not in state.items("fill/")
    with pytest.raises(ContractError, match="fill/0"):
        state.items("fill/", Position)
    with pytest.raises(ContractError, match="keys are text"):
        state.items(7)  # type: ignore[call-overload]


def test_an_item_with_a_key_of_its_own_is_all_that_is_stored_of_it() -> None:
    state = State({f"fill/{n:06}": {"price": "1.10"} for n in range(1_000)})
    state.set("fill/001000", {"price": "1.20"})
    assert state.change().set == {"fill/001000": {"price": "1.20"}}
    assert len(state.change().encode()) < 100
