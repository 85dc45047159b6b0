"""What is stored can be read back the same, or is refused with nothing stored and the field named (G3, G6)."""

from __future__ import annotations

import dataclasses
import enum
import math
import uuid
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import pytest
from aegis_sdk import (
    AegisError,
    ContractError,
    HandlerFailed,
    InvalidPayload,
    Method,
    ReplyUnreadable,
    ResourceContext,
    Role,
    Service,
    State,
)
from aegis_sdk.contract.envelope import Change, Outcome, OutcomeKind
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.values import Codec
from aegis_sdk.domain.turns.checkpoints import restored
from aegis_sdk.domain.turns.work import Held
from aegis_sdk.testing import harness
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretBytes,
    SecretStr,
    computed_field,
    create_model,
    field_serializer,
)
from pydantic_core import to_json
from typing_extensions import TypedDict

NEW_YORK = ZoneInfo("America/New_York")
T = TypeVar("T")


class Side(enum.StrEnum):
    BUY = "buy"


class Grade(enum.IntEnum):
    A = 1


class Fill(BaseModel):
    quantity: int = 1
    price: float = 1.0
    amount: Decimal = Decimal("1.00")
    note: str = ""
    best: float | None = None
    more: Any = None


class Limited(Fill):
    limit: int = 5


class Same(Fill):
    """Nothing but another name."""


class Number(float):
    """As numpy's float64 is."""


def changed(**changes: Any) -> Fill:
    """A fill that was changed after it was made, which pydantic doesn't check."""
    fill = Fill()
    for name, value in changes.items():
        setattr(fill, name, value)
    return fill


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def holds_itself() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


# --- one value -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fill", "field"),
    [
        (changed(price=math.nan), "price"),
        (changed(best=math.inf), "best"),
        (changed(more={"bids": [1.5, math.nan]}), "more.bids.1"),
        (changed(amount=Decimal("NaN")), "amount"),
        (changed(quantity=1.5), "quantity"),
        (changed(quantity=2.0), "quantity"),
        (changed(quantity=True), "quantity"),
        (changed(quantity="2"), "quantity"),
        (changed(quantity=Grade.A), "quantity"),
        (changed(price=2**53 + 1), "price"),
        (changed(price=Decimal("0.1")), "price"),
        (changed(note=b"text"), "note"),
        (changed(note=Side.BUY), "note"),
        (changed(note="\ud800"), "note"),
        (changed(note=None), "note"),
        (changed(more=(1, 2)), "more"),
        (changed(more={1, 2}), "more"),
        (changed(more={1: "one"}), "more.1"),
        (changed(more={"1": 1, 1: 2}), "more"),
        (changed(more={True: 1}), "more.True"),
        (changed(more={"\ud800": 1}), "more.key"),
        (changed(more=Side.BUY), "more"),
        (changed(more=datetime(2026, 1, 1, tzinfo=UTC)), "more"),
        (changed(more=Decimal(1)), "more"),
        (changed(more=Fill()), "more"),
        (changed(more=object()), "more"),
        (changed(more=b"\xff"), "more"),
        (changed(quantity="many"), "quantity"),
        (Fill().model_copy(update={"price": "dear"}), "price"),
        (Limited(), "payload"),
        (Same(), "payload"),
        ({"quantity": 1, "limit": 2}, "limit"),
        (changed(more=nested(203)), "payload"),
        (changed(more=nested(253)), "payload"),
        (changed(more=holds_itself()), ""),
        (changed(more=nested(5000)), ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_that_would_not_come_back_the_same_is_refused_by_its_field(
    fill: Fill, field: str
) -> None:
    method = Method("fills", "book", request=Fill, reply=int)
    with pytest.raises(InvalidPayload) as caught:
        method.request.encode(fill)
    assert caught.value.fields[0].startswith(field)
    assert str(caught.value).startswith("request of fills.book: ")


@dataclasses.dataclass
class Leg:
    ratio: Annotated[Decimal, Field(alias="r")] = Decimal(1)
    tags: frozenset[str] = frozenset()
    made: int = dataclasses.field(default=3, init=False)


class Quote(NamedTuple):
    bid: float
    ask: float = 2.0


class Book(TypedDict):
    bids: Annotated[list[Quote], Field(alias="b")]


class Box(BaseModel, Generic[T]):
    inside: T


class Named(BaseModel):
    """Each name is the alias of the other."""

    first: int = Field(alias="second")
    second: int = Field(validation_alias=AliasChoices("first", "1st"), serialization_alias="2nd")


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)
    quantity: int = Field(2, alias="qty")

    @computed_field
    def twice(self) -> int:
        return self.quantity * 2


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    day: date = date(2026, 1, 1)
    clock: time = time(1, 2, 3, 4)
    took: timedelta = timedelta(days=-1, microseconds=1)
    amount: Decimal = Decimal("1.50")
    ids: set[int] = {3, 1}
    pair: tuple[int, str] = (1, "a")
    data: bytes = b"data"
    side: Side = Side.BUY
    grade: Grade = Grade.A
    token: uuid.UUID = uuid.UUID(int=7)


class Packed(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes = b"\xff\x00"


class Told(BaseModel):
    """As pydantic's documentation writes secrets on purpose."""

    word: SecretStr = SecretStr("open sesame")

    @field_serializer("word", when_used="json")
    def tell(self, word: SecretStr) -> str:
        return word.get_secret_value()


class Kept(BaseModel):
    shown: int = 1
    hidden: int = Field(1, exclude=True)
    _own: int = PrivateAttr(1)


def own(value: int) -> Kept:
    kept = Kept()
    kept._own = value
    return kept


VALUES: list[tuple[Any, Any]] = [
    (Named, Named(second=1, first=2)),
    (Computed, Computed(qty=4)),
    (Strict, Strict()),
    (Packed, Packed()),
    (Told, Told()),
    (Kept, Kept()),
    (Leg, Leg(tags=frozenset({"b", "a"}))),
    (Quote, Quote(1.0)),
    (list[Book], [{"bids": [Quote(1.0)]}]),
    (Box[Decimal], Box[Decimal](inside=Decimal("5.00"))),
    (dict[int, dict[Decimal, list[float]]], {1: {Decimal("1.50"): [2.5]}}),
    (dict[float, int], {1.5: 1, math.inf: 2}),
    (dict[bool, int], {True: 1}),
    (int | str, 5),
    (int | str, "5"),
    (Side | str, "sell"),
    (Any, [2**200, -0.0, 1e-320, None, {"": {}}]),
    (Any, nested(200)),
    (datetime, datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30)))),
    (datetime, datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC"))),
    (datetime, datetime(2026, 1, 1, 1, 2, 3, 4)),
    (timedelta, timedelta.max),
    (Decimal, Decimal("1E+500000")),
    (deque[int], deque([1, 2])),
    (defaultdict[str, int], defaultdict(int, {"a": 1})),
    (Fill, changed(price=2, amount=3, more=Number(1.5))),  # whole numbers, numbers of a library
]


class Trade(BaseModel):
    fill: Fill = Fill()
    others: list[Fill] = []


@pytest.mark.parametrize(("type_", "value"), VALUES, ids=lambda value: "")
def test_what_is_accepted_comes_back_the_same(type_: Any, value: Any) -> None:
    method = Method("values", "keep", request=type_, reply=type_)
    assert method.request.decode(method.request.encode(value)) == value
    assert method.request.schema() == method.reply.schema()


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (datetime, datetime(2026, 1, 1, tzinfo=NEW_YORK)),
        (datetime, datetime(2026, 1, 1, tzinfo=timezone(timedelta(seconds=17)))),
        (datetime, datetime(2026, 11, 1, 1, 30, fold=1)),
        (dict[datetime, int], {datetime(2026, 1, 1, tzinfo=NEW_YORK): 1}),
        (time, time(1, tzinfo=NEW_YORK)),
        (Side | str, Side.BUY),
        (list[Fill], [Fill(), Limited()]),
        (dict[str, Fill], {"a": Limited()}),
        (Book, {"b": [], "asks": []}),
        (Kept, Kept(hidden=2)),
        (Kept, own(2)),
        (deque[int], deque([1], maxlen=5)),
        (bytes, b"\xff"),
        (dict[str | None, int], {None: 1}),
        (dict[tuple[int, int], int], {(1, 2): 3}),
        (float, math.nan),
        (Any, 10**5000),
        (list[int], iter([1, 2])),
        (dict[str, list[int]], {"a": map(int, "12")}),
        (Trade, {"fill": {"price": 1.0, "prise": 2.0}}),
        (list[Trade], [{"others": [{"prise": 2.0}]}]),
    ],
    ids=lambda value: "",
)
def test_what_would_change_on_the_way_is_refused(type_: Any, value: Any) -> None:
    with pytest.raises(InvalidPayload):
        Method("values", "keep", request=type_, reply=int).request.encode(value)


class Secret(BaseModel):
    user: str
    word: SecretStr


class Hidden(BaseModel):
    number: int = Field(exclude=True)


class Undefined(BaseModel):
    later: Later  # type: ignore[name-defined] # noqa: F821


class Odd:
    """Pydantic knows nothing of it."""


class Arbitrary(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    odd: Odd


@pytest.mark.parametrize(
    ("type_", "named"),
    [
        (Secret, "word"),
        (dict[str, list[Secret]], "word"),
        (SecretBytes | None, "its value"),
        (Hidden, "number"),
        (Undefined, "Undefined"),
        (Odd, "Odd"),
        (Arbitrary, "Odd"),
        (Callable[[], int], "Callable"),
    ],
)
def test_a_type_that_can_not_be_read_back_is_refused_where_it_is_declared(
    type_: Any, named: str
) -> None:
    for sides in ({"request": type_, "reply": int}, {"request": int, "reply": type_}):
        with pytest.raises(ContractError, match=named) as caught:
            Method("values", "keep", **sides)
        assert "of values.keep: " in str(caught.value)


# --- any value -------------------------------------------------------------------------------------
_texts = st.text(max_size=8)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)


def _boxed(inside: int) -> Any:
    return Box[int].model_construct(inside=inside)


_zones = st.sampled_from([None, UTC, timezone(timedelta(hours=-4)), NEW_YORK])
FIELDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (float, st.floats()),
    (float | None, st.none() | st.floats()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False) | st.decimals()),
    (str, st.text(st.characters(), max_size=5)),
    (bytes, st.binary(max_size=5)),
    (bool, st.booleans()),
    (int | str, st.integers() | _texts),
    (int | float | bool, st.integers() | st.floats() | st.booleans()),
    (Side | str, st.sampled_from(Side) | _texts),
    (datetime, st.datetimes(timezones=_zones)),
    (datetime | date | str, st.datetimes() | st.dates() | _texts),
    (time, st.times(timezones=_zones)),
    (timedelta, st.timedeltas()),
    (uuid.UUID, st.uuids()),
    (set[int], st.sets(st.integers())),
    (frozenset[Decimal], st.frozensets(st.decimals(allow_nan=False))),
    (tuple[int, ...], st.lists(st.integers()).map(tuple)),
    (list[float], st.lists(st.floats())),
    (dict[int, float], st.dictionaries(st.integers(), st.floats())),
    (dict[Decimal, str], st.dictionaries(st.decimals(allow_nan=False), _texts)),
    (Any, _json),
    (dict[str, Any], st.dictionaries(_texts, _json)),
    (list[tuple[str, float | None]], st.lists(st.tuples(_texts, st.none() | st.floats()))),
    (Annotated[int, Field(gt=0, le=9)], st.integers(0, 10)),
    (Annotated[float, Field(ge=0)], st.floats()),
    (Annotated[Decimal, Field(lt=1)], st.decimals(allow_nan=False, allow_infinity=False)),
    (Literal["a", "b"], st.sampled_from("abc")),
    (Side, st.sampled_from(Side) | st.just("buy")),
    (Grade, st.sampled_from(Grade) | st.just(1)),
    (list[Fill], st.lists(st.builds(Fill) | st.builds(Limited), max_size=3)),
    (dict[str, Box[int]], st.dictionaries(_texts, st.integers().map(_boxed), max_size=2)),
    (Fill, st.builds(Fill) | st.builds(Limited)),
    (Quote, st.builds(Quote, st.floats(), st.floats())),
    (Leg, st.builds(Leg, st.decimals(allow_nan=False), st.frozensets(_texts))),
]
_anything = st.one_of(*(values for _, values in FIELDS))


def alike(one: Any, other: Any) -> bool:  # noqa: PLR0911 - a table
    """Equal and of the same types, told in another way than by the code under test."""
    if type(one) is not type(other):
        return type(one) is int and type(other) in (float, Decimal) and one == other
    if isinstance(one, BaseModel):
        return alike(dict(one), dict(other))
    if isinstance(one, Leg):
        return alike((one.ratio, one.tags, one.made), (other.ratio, other.tags, other.made))
    if isinstance(one, dict):
        return alike(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, datetime | time) and one.tzinfo is not None:
        fixed = one.tzinfo is not NEW_YORK and one.utcoffset() == other.utcoffset()
        return fixed and one == other
    return one == other if isinstance(one, set | frozenset) else repr(one) == repr(other)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_model_and_value_comes_back_the_same_or_is_refused(data: st.DataObject) -> None:
    """G3: also of models that were changed to what their fields don't allow."""
    fields = data.draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=4))
    types = {f"f{n}": (type_, Field(alias=f"a{n}")) for n, (type_, _) in enumerate(fields)}
    model = create_model("Drawn", **types)  # type: ignore[call-overload]
    codec: Codec[Any] = Method("any", "value", request=model, reply=int).request
    values = {f"f{n}": data.draw(drawn) for n, (_, drawn) in enumerate(fields)}
    value = model.model_construct(**values)
    if data.draw(st.booleans()):
        setattr(value, data.draw(st.sampled_from(sorted(values))), data.draw(_anything))
    try:
        encoded = codec.encode(value)
    except InvalidPayload as error:
        refused = error.fields
        assert refused
    else:
        assert alike(value, codec.decode(encoded))


# --- the state ----------------------------------------------------------------------------------------
class Word(str):
    """A user's own kind of text."""

    def __str__(self) -> str:
        return "something else"


BAD_KEYS: list[Any] = [
    7,
    1.5,
    True,
    None,
    b"k",
    (1,),
    Decimal(1),
    Grade.A,
    date(2026, 1, 1),
    "\ud800",
]


@pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
def test_a_key_of_the_state_is_text_or_refused(key: Any) -> None:
    state = State({})
    for use in (state.get, state.delete, lambda key: state.set(key, 1)):
        with pytest.raises(ContractError, match="state key"):
            use(key)
    assert not state.change()


def test_keys_of_other_kinds_of_text_are_the_text_they_hold() -> None:
    state = State({"buy": 1})
    state.set(Side.BUY, 2)
    state.set(Word("w"), 3)
    assert (state.get("buy"), state.get("w"), state.keys()) == (2, 3, ["buy", "w"])
    assert list(map(type, state.keys())) == [str, str]
    state.delete(Side.BUY)
    assert state.keys() == ["w"]


def fold(change: Change, *, at_hand: bool) -> dict[str, Any]:
    held = Held("R")
    outcome = Outcome(
        OutcomeKind.EXECUTED, b"1", change.encode(), changed=change if at_hand else None
    )
    held.fold("c", 1, outcome, 0.0)
    return held.values


_keys = st.text(st.characters(), max_size=5) | st.integers() | st.none() | st.sampled_from(Side)
_state_values = _anything | st.sampled_from([nested(n) for n in (196, 198, 199, 200, 201, 253)])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(_keys, _state_values), max_size=4))
def test_active_and_standby_fold_the_same_of_whatever_is_accepted(
    sets: list[tuple[Any, Any]],
) -> None:
    """G6: the active from what it has at hand, a standby from the bytes, the next one from a checkpoint."""
    state = State({})
    accepted: dict[str, Any] = {}
    for key, value in sets:
        try:
            state.set(key, value)
        except ContractError:
            continue
        accepted[key] = value
    active = fold(state.change(), at_hand=True)
    standby = fold(state.change(), at_hand=False)
    fresh = restored("R", Checkpoint("w", "R", values=to_json(standby)))
    assert alike(active, standby)
    assert alike(active, fresh.values)
    for key, value in accepted.items():
        if value is not None:
            assert alike(value, State(fresh.values).get(key, type(value)))


def test_a_dict_or_list_in_the_state_holds_json_unless_a_type_says_what_else() -> None:
    state = State({})
    for value in ([Fill()], {1: 2}, {"at": datetime(2026, 1, 1, tzinfo=UTC)}, [(1, 2)], Odd()):
        with pytest.raises(ContractError, match="state 'k'"):
            state.set("k", value)
    assert not state.change()
    state.set("fills", [Fill()], list[Fill])
    state.set("by id", {1: Decimal("2.0")}, dict[int, Decimal])
    assert state.get("fills", list[Fill]) == [Fill()]
    assert state.get("by id", dict[int, Decimal]) == {1: Decimal("2.0")}


def test_strict_types_and_bytes_come_back_from_the_state() -> None:
    state = State({})
    state.set("strict", Strict())
    state.set("packed", Packed())
    stored = State(Change.decode(state.change().encode()).set)
    assert stored.get("strict", Strict) == Strict()
    assert stored.get("packed", Packed) == Packed()


def test_a_state_that_is_no_value_of_the_type_is_an_error_with_its_key_and_field() -> None:
    with pytest.raises(InvalidPayload, match="state 'fill': quantity: "):
        State({"fill": {"quantity": 1.5}}).get("fill", Fill)


# --- what callers see --------------------------------------------------------------------------------------
BOOK: Method[float, Any] = Method("positions", "book", request=float, reply=Fill)
READ: Method[str, Any] = Method("positions", "read", request=str, reply=Fill)


def positions() -> Service:
    """As the README does it: a model that is changed in place, stored and returned."""
    service = Service("positions")

    @service.handles(BOOK)
    async def book(ctx: ResourceContext, price: float) -> Fill:
        fill = ctx.state.get("fill", Fill) or Fill()
        fill.price += price
        if price == 13:
            fill.quantity += 0.5  # type: ignore[assignment]
        if price == 14:
            ctx.state.set("fill", Fill(price=-1))
            return Limited()
        ctx.state.set("fill", fill)
        return fill

    @service.handles(READ)
    async def read(ctx: ResourceContext, key: str) -> Fill:
        return ctx.state.get(key, Fill) or Fill()

    return service


@pytest.mark.parametrize(("price", "field"), [(13.0, "quantity"), (14.0, "Limited")])
async def test_a_handler_whose_value_can_not_be_stored_has_failed_and_changed_nothing(
    price: float, field: str
) -> None:
    """G3: neither the reply nor the state, and the caller hears that it is the service's fault."""
    async with harness(positions(), resources={"R"}) as aegis:
        await aegis.serve(positions(), resources={"R": Role.STANDBY})
        await aegis.request(BOOK, 1.0, resource="R")
        with pytest.raises(HandlerFailed, match=field):
            await aegis.request(BOOK, price, resource="R")
        assert (await aegis.request(READ, "fill", resource="R")).price == 2.0
        await aegis.instances[0].kill()
        assert (await aegis.request(READ, "fill", resource="R")).price == 2.0


async def test_a_caller_whose_value_can_not_be_sent_hears_so_and_nothing_is_stored() -> None:
    async with harness(positions(), resources={"R"}) as aegis:
        with pytest.raises(InvalidPayload, match=r"request of positions\.book"):
            await aegis.request(BOOK, math.nan, resource="R")
        assert (await aegis.request(READ, "fill", resource="R")).price == 1.0


async def test_a_reply_of_another_version_says_that_the_request_took_effect() -> None:
    """G4: never that nothing was stored."""

    class Older(BaseModel):
        model_config = ConfigDict(extra="forbid")
        quantity: int

    older = Method("positions", "book", request=float, reply=Older)
    async with harness(positions(), resources={"R"}) as aegis:
        with pytest.raises(ReplyUnreadable, match="took effect") as caught:
            await aegis.request(older, 1.0, resource="R", key="k")
        error: AegisError = caught.value
        assert not isinstance(error, ContractError)
        assert any(line.startswith("price") for line in caught.value.fields)
        assert (await aegis.request(BOOK, 1.0, resource="R", key="k")).price == 2.0
        assert (await aegis.request(READ, "fill", resource="R")).price == 2.0


class Unknown(Enum):
    """A member of it is written as null."""

    VALUE = None


def test_a_value_that_is_written_as_null_is_refused_in_the_state() -> None:
    """There it would be no value."""
    with pytest.raises(ContractError, match=r"state 'k'.*would come back as None"):
        State({}).set("k", Unknown.VALUE)


def test_a_number_that_json_has_no_word_for_is_named() -> None:
    """Not what was read in its place."""
    method = Method("values", "keep", request=list[float], reply=int)
    with pytest.raises(InvalidPayload, match="1: nan has no JSON form"):
        method.request.encode([1.0, math.nan])
