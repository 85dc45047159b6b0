"""What would be lost, would never end or would come back changed is refused, and the error shows it (G3)."""

from __future__ import annotations

import collections
import dataclasses
import enum
import itertools
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import datetime
from ipaddress import IPv4Network
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypeVar, cast
from zoneinfo import ZoneInfo

import pytest
from aegis_sdk import (
    ContractError,
    HandlerFailed,
    InvalidPayload,
    Method,
    ResourceContext,
    Service,
    State,
    testing,
)
from aegis_sdk.contract.plain import look_at
from aegis_sdk.contract.values import Codec
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    RootModel,
    SecretStr,
    Tag,
    TypeAdapter,
    field_serializer,
    field_validator,
)
from pydantic.dataclasses import dataclass as checked_dataclass
from typing_extensions import TypedDict

T = TypeVar("T")


# --- unknown keys ----------------------------------------------------------------------------------
class Inner(BaseModel):
    price: Annotated[float, Field(alias="Price")] = 1.0


class Cash(BaseModel):
    kind: Literal["cash"] = "cash"
    inner: Annotated[Inner, Field(alias="In")] = Inner()


class Card(BaseModel):
    kind: Literal["card"] = "card"


class Typed(TypedDict):
    inner: Annotated[NotRequired[Inner], Field(alias="In")]


class Pair(NamedTuple):
    first: Inner
    second: int = 0


@dataclasses.dataclass
class Plain:
    inner: Annotated[Inner, Field(alias="In")] = dataclasses.field(default_factory=Inner)


@checked_dataclass
class Checked:
    inner: Inner = Field(default_factory=Inner, alias="In")


class Box(BaseModel, Generic[T]):
    inside: T = Field(alias="in")


class Root(RootModel[list[Inner]]):
    pass


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    inner: Inner | None = Field(None, alias="In")


class Outer(BaseModel):
    one: Inner = Field(default_factory=Inner, alias="One")
    many: list[Inner] = Field(default_factory=list, alias="Many")
    named: dict[str, Inner] = Field(default_factory=dict, alias="Named")
    chosen: Inner = Field(default_factory=Inner, validation_alias=AliasChoices("this", "that"))
    deep: Inner = Field(default_factory=Inner, validation_alias=AliasPath("data", 0, "deep"))
    union: Cash | Card = Field(default_factory=Card, alias="Union")
    told: Annotated[Cash | Card, Field(discriminator="kind")] = Field(
        default_factory=Card, alias="Told"
    )
    typed: Typed = Field(Typed(), alias="Typed")
    pair: Pair = Field(default_factory=lambda: Pair(Inner()), alias="Pair")
    plain: Plain = Field(default_factory=Plain, alias="Plain")
    checked: Checked = Field(default_factory=Checked, alias="Checked")
    box: Box[Inner] = Field(default_factory=lambda: Box[Inner](**{"in": Inner()}), alias="Box")
    root: Root = Field(default_factory=lambda: Root([]), alias="Root")
    open: Open = Field(default_factory=Open, alias="Open")


STRAY: dict[str, Any] = {"Price": 2.0, "prise": 3.0}
BELOW: list[dict[str, Any]] = [
    {"One": STRAY},
    {"Many": [{}, STRAY]},
    {"Named": {"a": STRAY}},
    {"this": STRAY},
    {"that": STRAY},
    {"data": [{"deep": STRAY}]},
    {"Union": {"kind": "cash", "In": STRAY}},
    {"Told": {"kind": "cash", "In": STRAY}},
    {"Told": {"kind": "card", "prise": {}}},
    {"Typed": {"In": STRAY}},
    {"Typed": {"prise": STRAY}},
    {"Pair": [STRAY, 1]},
    {"Pair": {"first": STRAY}},
    {"Plain": {"In": STRAY}},
    {"Plain": {"prise": STRAY}},
    {"Checked": {"In": STRAY}},
    {"Box": {"in": STRAY}},
    {"Root": [STRAY]},
    {"Open": {"In": STRAY}},
    {"One": {}, "prise": 1},
    {"this": {}, "prise": {}},
]


@pytest.mark.parametrize("value", BELOW, ids=lambda value: "")
def test_a_key_that_the_type_does_not_know_is_refused_wherever_it_stands(value: Any) -> None:
    type_: Any
    given: Any
    for type_, given in (
        (Outer, value),
        (list[Outer], [Outer(), value]),
        (dict[str, Outer] | None, {"a": value}),
        (tuple[int, Outer], (1, value)),
    ):
        method = Method("values", "keep", request=type_, reply=int)
        with pytest.raises(InvalidPayload, match=r"prise.*is not in the type and would be dropped"):
            method.request.encode(given)


@pytest.mark.parametrize(
    "value",
    [
        {"One": {"Price": 2.0}, "Many": [{}], "Open": {"more": {"and": 1}}, "that": {"Price": 1}},
        {"data": [{"deep": {"Price": 2.0}}], "Typed": {"In": {"Price": 5}}, "Pair": [{}, 2]},
        {"Told": {"kind": "cash", "In": {}}, "Union": {"kind": "cash"}, "Plain": {"In": {}}},
        {"Box": {"in": {"Price": 1}}, "Root": [{"Price": 1}], "Checked": {"In": {"Price": 1}}},
    ],
    ids=lambda value: "",
)
def test_what_the_type_knows_by_any_of_its_names_is_kept(value: Any) -> None:
    codec: Codec[Any] = Method("values", "keep", request=Outer, reply=int).request
    assert codec.decode(codec.encode(value)) == Outer.model_validate(value)


class Numbered(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: uuid.UUID = Field(default_factory=uuid.uuid4)
    at: float = Field(default_factory=time.monotonic)


def test_a_default_that_is_another_one_each_time_is_no_difference() -> None:
    codec: Codec[Any] = Method("values", "keep", request=list[Numbered], reply=int).request
    for given in ({}, {"more": 1}, {"at": 5}):
        [back] = codec.decode(codec.encode([given]))
        assert back.model_dump().items() >= given.items()


# --- what has no end -------------------------------------------------------------------------------
class Anything(BaseModel):
    model_config = ConfigDict(validate_assignment=False)
    more: Any = None
    many: list[int] = []


class Endless:
    """It can be gone through again and again, and never ends."""

    def __iter__(self) -> Iterator[int]:
        return itertools.count()


def counting() -> Iterator[int]:
    yield from itertools.count()


def with_more(more: Any) -> Anything:
    model = Anything()
    model.more = more
    return model


def with_many(many: Any) -> Anything:
    model = Anything()
    model.many = many
    return model


def holding_itself(kind: type) -> Any:
    value: Any = kind()
    if kind is dict:
        value["a"] = value
    else:
        value.append(value)
        value.append(value)
    return value


def doubled(times: int) -> Any:
    """Small in memory; written, it has 2 ** times parts."""
    value: Any = [1]
    for _ in range(times):
        value = [value, value]
    return value


ENDLESS: list[Callable[[], Any]] = [
    itertools.count,
    counting,
    lambda: itertools.repeat({}),
    lambda: map(int, itertools.count()),
    lambda: iter(int, 1),
    lambda: zip(itertools.count(), itertools.count(), strict=False),
]
PLACES: list[tuple[Any, Callable[[Any], Any]]] = [
    (Any, lambda it: it),
    (Any, lambda it: [1, it]),
    (Any, lambda it: {"a": (1, {"b": it})}),
    (Any, lambda it: collections.deque([it])),
    (list[int], lambda it: it),
    (set[int], lambda it: it),
    (tuple[int, ...], lambda it: it),
    (dict[str, list[int]], lambda it: {"a": it}),
    (Anything, with_more),
    (Anything, with_many),
    (Anything, lambda it: {"many": it}),
    (list[Anything], lambda it: [with_more([it])]),
]


@pytest.mark.parametrize("endless", ENDLESS, ids=lambda value: "")
def test_an_iterator_is_no_value_and_nothing_is_taken_from_it(endless: Callable[[], Any]) -> None:
    for type_, placed in PLACES:
        given = iter(endless())
        with pytest.raises(InvalidPayload, match="can be read only once"):
            Method("values", "keep", request=type_, reply=int).request.encode(placed(given))
        with pytest.raises(InvalidPayload, match="can be read only once"):
            State({}).set("key", placed(given), type_)
        if isinstance(given, itertools.count):
            assert next(given) == 0


def test_what_can_be_gone_through_for_ever_is_no_list() -> None:
    for type_, placed in PLACES[4:8]:
        with pytest.raises(InvalidPayload, match="may have no end"):
            Method("values", "keep", request=type_, reply=int).request.encode(placed(Endless()))


class OfOneField(BaseModel):
    quantity: int


def test_a_model_that_lacks_its_fields_is_told_which() -> None:
    with pytest.raises(InvalidPayload, match="quantity: Field required"):
        State({}).set("key", OfOneField.model_construct(**{}), OfOneField)


def test_a_type_whose_values_can_be_read_only_once_is_refused_where_it_is_declared() -> None:
    for type_ in (Iterable[int], dict[str, Iterable[int]], Generator[int, None, None]):
        with pytest.raises(ContractError, match="declare a list"):
            Method("values", "keep", request=type_, reply=int)


@pytest.mark.parametrize(
    "value",
    [
        lambda: holding_itself(list),
        lambda: holding_itself(dict),
        lambda: holding_itself(collections.deque),
        lambda: [{"a": (holding_itself(list),)}],
        lambda: doubled(60),
        lambda: {"a": doubled(200)},
        lambda: range(10**12),
    ],
    ids=lambda value: "",
)
def test_what_holds_itself_or_is_endless_when_written_is_refused_soon(
    value: Callable[[], Any],
) -> None:
    begun_s = time.monotonic()
    for type_ in (Any, list[Any], dict[str, Any], Anything, list[int]):
        for given in (value(), with_more(value()), with_many(value())):
            with pytest.raises(InvalidPayload):
                Method("values", "keep", request=type_, reply=int).request.encode(given)
    assert time.monotonic() - begun_s < 4.0


def test_one_value_may_stand_at_many_places() -> None:
    """Only what is within itself has no end."""
    codec: Codec[Any] = Method("values", "keep", request=Any, reply=int).request
    shared = {"a": [1]}
    assert codec.decode(codec.encode([shared] * 3)) == [shared] * 3
    networks: Codec[Any] = Method("values", "net", request=list[IPv4Network], reply=int).request
    given = (IPv4Network("10.0.0.0/8"),)
    assert networks.decode(networks.encode(given)) == list(given)


async def test_an_endless_reply_or_state_is_the_handlers_failure() -> None:
    service = Service("desk")
    reply: Method[int, Any] = Method("desk", "reply", request=int, reply=Any)
    keep: Method[int, Any] = Method("desk", "keep", request=int, reply=Any)

    @service.handles(reply)
    async def reply_(ctx: ResourceContext, n: int) -> Any:
        return counting() if n else [holding_itself(list)]

    @service.handles(keep)
    async def keep_(ctx: ResourceContext, n: int) -> Any:
        ctx.state.set("key", itertools.count() if n else doubled(70))

    async with testing.harness(service, resources={"A"}) as aegis:
        for method, n in itertools.product((reply, keep), (0, 1)):
            with pytest.raises(HandlerFailed, match=r"InvalidPayload|ContractError"):
                await aegis.request(method, n, resource="A", timeout_s=2.0)
        with pytest.raises(InvalidPayload, match="can be read only once"):
            await aegis.request(reply, cast(int, counting()), resource="A")


# --- what the error shows --------------------------------------------------------------------------
class Side(enum.StrEnum):
    BUY = "buy"


class Rounded(BaseModel):
    """It writes less than it was given."""

    price: float = 1.25
    notes: list[str] = []
    secret: SecretStr = SecretStr("hush")

    @field_serializer("price")
    def _short(self, price: float) -> float:
        return round(price, 1)

    @field_validator("notes")
    @classmethod
    def _lower(cls, notes: list[str]) -> list[str]:
        return [note.lower() for note in notes]

    @field_serializer("secret")
    def _tell(self, secret: SecretStr) -> str:
        return secret.get_secret_value() + "!"


def rounded(**changes: Any) -> Rounded:
    return Rounded().model_copy(update=changes)


@pytest.mark.parametrize(
    ("type_", "value", "line"),
    [
        (dict[str, Rounded], {"a": rounded()}, "a.price: 1.25 would come back changed, as 1.2"),
        (
            Rounded,
            rounded(price=1.5, notes=["x", "Loud"]),
            "notes.1: 'Loud' would come back changed, as 'loud'",
        ),
        (
            list[Side | str],
            [Side.BUY],
            "0: <Side.BUY: 'buy'> (Side) would come back changed, as 'buy' (str)",
        ),
        (list[datetime], [datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo"))], "0: the time zone"),
        (Any, {"a": [(1, 2)]}, "a.0: (1, 2) (tuple) would come back changed, as [1, 2] (list)"),
    ],
    ids=lambda value: "",
)
def test_an_error_shows_where_what_was_given_and_what_would_come_back(
    type_: Any, value: Any, line: str
) -> None:
    with pytest.raises(InvalidPayload) as caught:
        Method("values", "keep", request=type_, reply=int).request.encode(value)
    assert caught.value.fields[0].startswith(line)


def test_an_error_shows_no_secret_and_no_more_than_a_line() -> None:
    with pytest.raises(InvalidPayload) as caught:
        Method("values", "keep", request=Rounded, reply=int).request.encode(rounded(price=1.5))
    assert caught.value.fields[0].startswith("secret: SecretStr('**********')")
    assert "hush" not in str(caught.value)
    with pytest.raises(InvalidPayload) as caught:
        Method("values", "keep", request=Any, reply=int).request.encode(
            cast(Any, ("x" * 10**6,) * 10)
        )
    assert len(str(caught.value)) < 400


# --- a look is enough ------------------------------------------------------------------------------
class Looked(BaseModel):
    quantity: int = Field(1, gt=0)
    price: float = 1.0


class Validated(Looked):
    @field_validator("price")
    @classmethod
    def _round(cls, price: float) -> float:
        return round(price, 1)


class Own(str):
    """A user's own kind of text."""


def test_values_of_plain_types_are_judged_by_a_look_and_no_others() -> None:
    """The look says yes only to what needs no reading back."""
    look = look_at(TypeAdapter(dict[str, list[Looked]]).core_schema)
    assert look is not None
    assert look({"a": [Looked()]})
    wrong: Any
    for wrong in (
        {"a": [Validated()]},
        {"a": (Looked(),)},
        {Own("a"): []},
        {"a": [Looked().model_copy(update={"quantity": -1})]},
        {"a": [Looked().model_copy(update={"quantity": True})]},
        {"a": [Looked().model_copy(update={"price": float("nan")})]},
        {"a": [Looked.model_construct()], "b": [Looked.model_construct(quantity=10**5000)]},
    ):
        assert not look(wrong)
    type_: Any
    for type_ in (Validated, Rounded, Open, Root, int | str, Outer, list[SecretStr]):
        assert look_at(TypeAdapter(type_).core_schema) is None


def by_kind(value: Any) -> str:
    return "text" if isinstance(value, str) else "number"


def test_types_of_the_users_own_making_are_tried_with_each_value() -> None:
    told = Annotated[
        Annotated[str, Tag("text")] | Annotated[int, Tag("number")], Discriminator(by_kind)
    ]
    assert look_at(TypeAdapter(told).core_schema) is None
    codec: Codec[Any] = Codec(told, "values")
    assert codec.decode(codec.encode("5")) == "5"
