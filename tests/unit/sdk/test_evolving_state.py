"""State through versions: what a type does not know of a stored value is kept, or refused by name, and never lost in silence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from aegis_sdk import ContractError, InvalidPayload, Service, State
from aegis_sdk.evolution import Evolution
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel, create_model, model_validator
from typing_extensions import TypedDict


class Leg(BaseModel):
    size: int = 0


class FrozenLeg(BaseModel):
    model_config = ConfigDict(frozen=True)
    size: int = 0


class Position(BaseModel):
    quantity: int = 0
    leg: Leg = Leg()
    legs: list[Leg] = []
    by_id: dict[str, Leg] = {}
    last: Leg | None = None


@dataclasses.dataclass
class OfDataclass:
    quantity: int
    leg: Leg


class OfTypedDict(TypedDict):
    quantity: int
    leg: Leg


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    quantity: int = 0
    leg: Leg = Leg()


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    quantity: int = 0


def read_and_set(stored: Any, type_: Any, change: Callable[[Any], Any] = lambda read: read) -> Any:
    """What is stored when a handler has read `stored` as `type_`, and sets what `change` makes of it."""
    state = State({"key": stored})
    state.set("key", change(state.get("key", type_)), type_)
    assert state.dropped == []
    return state.get("key")


def with_quantity(read: Any) -> Any:
    if isinstance(read, dict):
        return {**read, "quantity": 2}
    return (
        read.model_copy(update={"quantity": 2})
        if isinstance(read, BaseModel)
        else dataclasses.replace(read, quantity=2)
    )


def made_anew(read: Any) -> Any:
    """As handlers of frozen models do, which know their own fields alone."""
    kind = dict if isinstance(read, dict) else type(read)
    leg = read["leg"] if isinstance(read, dict) else read.leg
    return kind(quantity=2, leg=Leg(size=leg.size + 1))


STORED = {"quantity": 1, "venue": "XETR", "leg": {"size": 5, "fees": {"clearing": 0.5}}}


@pytest.mark.parametrize("type_", [Position, OfDataclass, OfTypedDict, Open])
def test_what_the_type_does_not_know_is_kept(type_: Any) -> None:
    kept = read_and_set(STORED, type_, with_quantity)
    assert (kept["quantity"], kept["venue"], kept["leg"]) == (2, "XETR", STORED["leg"])


@pytest.mark.parametrize("type_", [Position, OfDataclass, OfTypedDict])
def test_it_is_kept_by_a_value_that_was_made_anew(type_: Any) -> None:
    kept = read_and_set(STORED, type_, made_anew)
    assert (kept["quantity"], kept["venue"]) == (2, "XETR")
    assert kept["leg"] == {"size": 6, "fees": {"clearing": 0.5}}


def test_a_type_that_forbids_more_refuses_to_read_it_and_names_the_field() -> None:
    with pytest.raises(InvalidPayload, match=r"state 'key': venue: Extra"):
        State({"key": {"quantity": 1, "venue": "XETR"}}).get("key", Closed)


def test_as_plain_json_a_handler_sees_all_and_sets_all() -> None:
    assert read_and_set(STORED, dict[str, Any], lambda read: {"quantity": 3}) == {"quantity": 3}
    state = State({"key": STORED})
    state.set("key", {"quantity": 3})
    assert (state.get("key"), state.dropped) == ({"quantity": 3}, [])


def test_a_model_that_is_set_as_the_dict_that_it_dumps_keeps_it() -> None:
    state = State({"key": STORED})
    read = state.get("key", Position)
    assert read is not None
    state.set("key", read.model_dump())
    assert state.get("key")["venue"] == "XETR"
    state.set("key", {"quantity": "all of it"})
    assert state.get("key") == {"quantity": "all of it"}, "no Position, so it is another thing"


def test_a_second_set_keeps_it_and_a_read_between_changes_nothing() -> None:
    state = State({"key": STORED})
    for quantity in (2, 3):
        state.set("key", Position(quantity=quantity))
        assert state.get("key") == Position(quantity=quantity).model_dump(), "never read: see below"
    state = State({"key": STORED})
    for quantity in (2, 3):
        read = state.get("key", Position)
        assert read is not None
        assert state.get("key")["venue"] == "XETR"  # a look at the JSON is no reading of it
        state.set("key", read.model_copy(update={"quantity": quantity}))
        state.set("key", read.model_copy(update={"quantity": quantity}))
    assert (state.get("key")["quantity"], state.get("key")["venue"]) == (3, "XETR")


def test_deleting_the_key_first_begins_anew() -> None:
    state = State({"key": STORED})
    assert state.get("key", Position)
    state.delete("key")
    state.set("key", Position(quantity=7))
    state.set("key", Position(quantity=8))
    assert state.get("key") == Position(quantity=8).model_dump()


def test_a_key_that_is_renamed_or_copied_takes_it_along() -> None:
    state = State({"old": STORED})
    read = state.get("old", Position)
    assert read is not None
    read.quantity = 2
    state.delete("old")
    state.set("new", read)
    assert (state.get("new")["quantity"], state.get("new")["venue"]) == (2, "XETR")


def test_a_key_set_without_having_been_read_is_new_and_what_goes_is_named() -> None:
    state = State({"key": STORED, "closed": {"quantity": 1, "venue": "X"}})
    state.set("key", Position(quantity=2))
    state.set("closed", Closed(quantity=2))
    assert state.get("key") == Position(quantity=2).model_dump()
    assert [(one.key, one.fields) for one in state.dropped] == [
        ("key", ["venue", "leg.fees"]),
        ("closed", ["venue"]),
    ]


class Opening(BaseModel):
    shares: int
    price: float


class Holding(BaseModel):
    shares: int


def test_a_value_that_became_another_is_not_mixed_with_the_one_before() -> None:
    state = State({"phase": {"shares": 1, "price": 2.5}})
    assert isinstance(state.get("phase", Opening | Holding), Opening)  # type: ignore[arg-type]
    state.set("phase", Holding(shares=1))
    assert isinstance(state.get("phase", Opening | Holding), Holding)  # type: ignore[arg-type]
    assert state.dropped == []


def test_what_a_validator_takes_away_is_known() -> None:
    class Renamed(BaseModel):
        quantity: int = 0

        @model_validator(mode="before")
        @classmethod
        def from_lots(cls, stored: Any) -> Any:
            if "lots" in stored:
                stored = {**stored, "quantity": stored["lots"] * 100}
                del stored["lots"]
            return stored

    stored = {"lots": 3, "venue": "XETR"}
    assert read_and_set(stored, Renamed, with_quantity) == {"quantity": 2, "venue": "XETR"}


# --- parts ----------------------------------------------------------------------------------------------------
def legs(*sizes: int) -> list[Leg]:
    return [Leg(size=size) for size in sizes]


def named_legs(*sizes: int) -> list[dict[str, Any]]:
    return [{"size": size, "venue": f"V{size}"} for size in sizes]


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ((1, 2, 3), (1, 2, 3, 4), ["V1", "V2", "V3", None]),
        ((1, 2, 3), (4, 1, 2, 3), [None, "V1", "V2", "V3"]),
        ((1, 2, 3), (2, 3), ["V2", "V3"]),
        ((1, 2, 3), (1, 3), ["V1", "V3"]),
        ((1, 2, 3), (1, 9, 3), ["V1", "V2", "V3"]),
        ((1, 2, 3), (3, 1, 2), ["V3", "V1", "V2"]),
        ((1, 2, 3), (), []),
        ((1, 2, 3), (1, 2, 3), ["V1", "V2", "V3"]),
        ((1, 1, 2), (1, 1, 2, 3), ["V1", "V1", "V2", None]),
        ((1, 1, 2), (1, 2), ["V1", "V2"]),
    ],
)
def test_items_of_a_list_keep_theirs_wherever_they_are(
    before: tuple[int, ...], after: tuple[int, ...], kept: list[str | None]
) -> None:
    stored = read_and_set(named_legs(*before), list[Leg], lambda _: legs(*after))
    assert [(item["size"], item.get("venue")) for item in stored] == [
        *zip(after, kept, strict=True)
    ]


@pytest.mark.parametrize(
    ("after", "names"),
    [((8, 9), "0.venue, 1.venue"), ((2, 9), "0.venue"), ((9, 1, 8), "1.venue")],
)
def test_items_that_can_not_be_told_from_new_ones_are_refused_by_name(
    after: tuple[int, ...], names: str
) -> None:
    with pytest.raises(InvalidPayload) as refused:
        read_and_set(named_legs(1, 2), list[Leg], lambda _: legs(*after))
    assert f"state 'key': another version stored {names}, which this one" in str(refused.value)
    assert "delete the key before you set it" in str(refused.value)


def test_of_items_that_look_alike_none_gets_what_was_anothers() -> None:
    stored = [{"size": 1, "venue": "X"}, {"size": 1, "venue": "Y"}]
    with pytest.raises(InvalidPayload, match=r"0\.venue, 1\.venue"):
        read_and_set(stored, list[Leg], lambda read: read[1:])
    assert read_and_set(stored, list[Leg], lambda read: []) == []


def test_members_of_a_set_have_no_place() -> None:
    stored = [{"size": size, "venue": f"V{size}"} for size in range(1, 9)]
    try:
        kept = read_and_set(stored, set[FrozenLeg])
    except InvalidPayload:
        return
    assert all(item["venue"] == f"V{item['size']}" for item in kept)


def test_entries_of_a_dict_keep_theirs_by_their_key() -> None:
    stored = {"a": {"size": 1, "venue": "X"}, "b": {"size": 2, "venue": "Y"}}

    def change(read: dict[str, Leg]) -> dict[str, Leg]:
        return {"b": Leg(size=9), "c": Leg(size=1)}

    assert read_and_set(stored, dict[str, Leg], change) == {
        "b": {"size": 9, "venue": "Y"},
        "c": {"size": 1},
    }


def test_a_part_that_is_taken_away_takes_its_unknown_fields_with_it() -> None:
    stored = {"quantity": 1, "last": {"size": 1, "venue": "X"}}
    kept = read_and_set(stored, Position, lambda read: read.model_copy(update={"last": None}))
    assert kept["last"] is None


class Stock(BaseModel):
    kind: Literal["kind"] = "kind"
    leg: Leg = Leg()


class Bond(BaseModel):
    kind: Literal["leg"] = "leg"
    leg: Leg = Leg()


@pytest.mark.parametrize("kind", ["kind", "leg"])
@pytest.mark.parametrize(
    "type_",
    [
        list[Stock | Bond],
        list[Annotated[Stock | Bond, Field(discriminator="kind")]],
        RootModel[list[Stock | Bond]],
    ],
)
def test_members_of_a_union_keep_theirs_also_where_they_are_named_like_fields(
    kind: str, type_: Any
) -> None:
    stored = [{"kind": kind, "venue": "X", "leg": {"size": 1, "fees": 2}}]
    assert read_and_set(stored, type_) == stored


SIMPLE = st.integers(0, 3) | st.text("ab", max_size=2) | st.none()
FIELDS = st.dictionaries(st.sampled_from("pqrstu"), SIMPLE, max_size=6)


@given(
    known=st.sets(st.sampled_from("pqrstu")),
    top=FIELDS,
    parts=st.lists(FIELDS, max_size=4),
    change=SIMPLE,
)
def test_whatever_two_versions_know_nothing_of_the_newer_is_lost(
    known: set[str], top: dict[str, Any], parts: list[dict[str, Any]], change: Any
) -> None:
    """The older sets its own fields, top and in a dict of models; the newer one reads all that it had stored."""
    fields: dict[str, Any] = dict.fromkeys(known, (Any, None))
    part = create_model("Part", **fields)
    older = create_model("Older", **fields, parts=(dict[str, part], {}))
    stored = {**top, "parts": {str(n): one for n, one in enumerate(parts)}}

    def changed(read: Any) -> Any:
        new = read.model_copy(deep=True)
        for one in [new, *new.parts.values()]:
            for name in known:
                setattr(one, name, change)
        return new

    kept = read_and_set(stored, older, changed)
    wanted = [{**one, **dict.fromkeys(known, change)} for one in [top, *parts]]
    assert [{k: v for k, v in kept.items() if k != "parts"}, *kept["parts"].values()] == wanted


# --- migrations ---------------------------------------------------------------------------------------------------
class InLots(BaseModel):
    lots: int = 0


class InShares(BaseModel):
    shares: int = 0
    unit: str = "share"


class Holdings(BaseModel):
    by_account: dict[str, int]


def evolving() -> State:
    accounts = Service("accounts")

    @accounts.migrates(InLots, InShares)
    def in_shares(old: InLots) -> InShares:
        return InShares(shares=old.lots * 100)

    @accounts.migrates(InShares, Holdings)
    def by_account(old: InShares) -> Holdings:
        return Holdings(by_account={"main": old.shares})

    return State(
        {"p": {"lots": 3}, "now": {"shares": 5, "unit": "share"}, "later": {"shares": 5, "x": 1}},
        accounts.evolution,
    )


def test_an_old_form_is_migrated_where_it_is_read_and_stored_where_it_is_set() -> None:
    state = evolving()
    assert state.get("p", InShares) == InShares(shares=300)
    assert state.get("p") == {"lots": 3}
    assert state.change().set == {}
    state.set("p", InShares(shares=200))
    assert state.get("p") == {"shares": 200, "unit": "share"}
    assert state.dropped == []


def test_migrations_make_a_chain_and_leave_other_forms_alone() -> None:
    state = evolving()
    assert state.get("p", Holdings) == Holdings(by_account={"main": 300})
    assert state.get("now", InShares) == InShares(shares=5)
    later = state.get("later", InShares)
    assert later == InShares(shares=5)
    state.set("later", later)
    assert state.get("later") == {"shares": 5, "x": 1, "unit": "share"}
    with pytest.raises(InvalidPayload, match="by_account: Field required"):
        state.get("later", Holdings)


def test_a_migration_that_fails_says_so_and_nothing_is_changed() -> None:
    evolution = Service("accounts")

    @evolution.migrates(InLots, InShares)
    def broken(old: InLots) -> InShares:
        raise KeyError("lots")

    with pytest.raises(ContractError, match=r"state 'p': migration .*broken failed: KeyError"):
        State({"p": {"lots": 1}}, evolution.evolution).get("p", InShares)


async def waits(old: InLots) -> InShares:
    return InShares()


def quick(old: Any) -> InShares:
    return InShares()


@pytest.mark.parametrize(
    ("old", "function", "why"),
    [
        (InLots, waits, "plain function"),
        (InLots, 5, "plain function"),
        (dict, quick, "takes any form"),
        (dict[str, Any], quick, "takes any form"),
        (Any, quick, "takes any form"),
        (Open, quick, "takes any form"),
        (object(), quick, "can't be stored"),
    ],
)
def test_a_migration_that_can_not_work_is_refused_when_it_is_registered(
    old: Any, function: Any, why: str
) -> None:
    with pytest.raises(ContractError, match=why):
        Service("accounts").migrates(old, InShares)(function)


def test_a_second_migration_between_two_types_is_refused_and_a_way_back_is_no_circle() -> None:
    service = Service("accounts")
    service.migrates(InLots, InShares)(quick)
    service.migrates(InShares, InLots)(lambda new: InLots())
    with pytest.raises(ContractError, match="there is one from"):
        service.migrates(InLots, InShares)(quick)
    with pytest.raises(InvalidPayload):
        State({"p": "many"}, service.evolution).get("p", InShares)


def test_a_plain_old_type_can_become_a_model() -> None:
    service = Service("accounts")
    service.migrates(int, InShares)(lambda old: InShares(shares=old))
    state = State({"p": 7}, service.evolution)
    assert state.get("p", InShares) == InShares(shares=7)


def test_what_is_told_is_told_once() -> None:
    evolution = Evolution()
    assert [evolution.is_news("Position", "venue") for _ in range(2)] == [True, False]


def test_a_migration_back_lets_a_rollback_read_the_new_form() -> None:
    """As docs/howto/evolve.md advises."""
    service = Service("accounts")
    service.migrates(InLots, InShares)(lambda old: InShares(shares=old.lots * 100))
    service.migrates(InShares, InLots)(lambda new: InLots(lots=new.shares // 100))
    state = State({"p": {"shares": 300, "unit": "share"}}, service.evolution)
    assert state.get("p", InLots) == InLots(lots=3)
    state.set("p", InLots(lots=4))
    assert state.get("p", InShares) == InShares(shares=400)
