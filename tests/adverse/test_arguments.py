"""Whatever is given to a public verb: a reply or an error of ours that names the argument, nothing stored, nothing hung."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import (
    AegisError,
    Context,
    ContractError,
    HandlerFailed,
    InvalidArgument,
    InvalidName,
    Method,
    ResourceContext,
    Retries,
    Role,
    Service,
    State,
    testing,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.adverse.support_doors import ADD, DOUBLE, System, running, totals

NO_DURATIONS: Final[tuple[Any, ...]] = (
    "5",
    None,
    math.nan,
    math.inf,
    -math.inf,
    -1,
    -0.001,
    1e300,
    10**400,
    True,
)
NO_DURATIONS_EITHER: Final[tuple[Any, ...]] = (
    b"5",
    [1],
    {},
    object(),
    1j,
    Decimal(5),
    int,
    lambda: 5,
)
NO_TEXTS: Final[tuple[Any, ...]] = (5, b"ACC-1", 1.5, True, [], {}, ("a",), object(), str, Role)
"""None is a text that isn't given: where one must be, it is refused too."""
ENDS_S: Final = 2.0

Verb = Callable[..., Awaitable[Any]]


class Name(enum.StrEnum):
    ONE = "T-1"


@pytest.fixture
async def system(server: EmbeddedNats) -> AsyncIterator[System]:
    async with running(server.url) as whole:
        yield whole


@pytest.fixture
async def memory() -> AsyncIterator[testing.MemoryAegis]:
    async with testing.harness(totals(), resources={"T-1"}) as aegis:
        yield aegis


async def refused(
    asked: Awaitable[Any], named: str, error: type[AegisError] = ContractError
) -> str:
    """What it says: it raises `error` within ENDS_S and names the argument."""
    async with asyncio.timeout(ENDS_S):
        with pytest.raises(error, match=named) as caught:
            await asked
    assert len(str(caught.value)) < 300
    return str(caught.value)


def durations(aegis: Any, ticket: str) -> dict[str, Callable[[Any], Awaitable[Any]]]:
    return {
        "request": lambda s: aegis.request(ADD, 1, resource="T-1", timeout_s=s),
        "submit": lambda s: aegis.submit(ADD, 1, resource="T-1", timeout_s=s),
        "attach": lambda s: aegis.attach(ticket, ADD, timeout_s=s),
    }


async def tried_by_every_verb(aegis: Any) -> None:
    """None of it stores anything, so the total stays what it was."""
    ticket = (await aegis.submit(ADD, 0, resource="T-1")).id
    assert await aegis.attach(ticket, ADD) == 0
    for bad in (*NO_DURATIONS, *NO_DURATIONS_EITHER):
        for asked in durations(aegis, ticket).values():
            await refused(asked(bad), "timeout_s", InvalidArgument)
        if bad is not None:
            asked_ = aegis.submit(ADD, 1, resource="T-1", expires_s=bad)
            await refused(asked_, "expires_s", InvalidArgument)
    for bad in NO_TEXTS:
        await refused(aegis.request(ADD, 1, resource=bad), "resource must be text", InvalidName)
        await refused(aegis.submit(ADD, 1, resource=bad), "resource must be text", InvalidName)
        await refused(aegis.request(ADD, 1, resource="T-1", key=bad), "key must be", InvalidName)
        await refused(aegis.submit(ADD, 1, resource="T-1", key=bad), "key must be", InvalidName)
    for bad in (None, *NO_TEXTS):
        await refused(aegis.attach(bad, ADD), "request_id must be text", InvalidName)
    for bad in (None, "add", 5, Method, totals(), ADD.request):
        await refused(aegis.request(bad, 1, resource="T-1"), "method must be a Method")
        await refused(aegis.submit(bad, 1, resource="T-1"), "method must be a Method")
        await refused(aegis.attach(ticket, bad), "method must be a Method")
    assert await aegis.request(ADD, 0, resource="T-1") == 0


async def test_wrong_arguments_of_a_callers_verbs_store_nothing_and_are_named(
    system: System,
) -> None:
    await tried_by_every_verb(system.caller)


async def test_the_harness_refuses_the_same(memory: testing.MemoryAegis) -> None:
    await tried_by_every_verb(memory)


async def test_numbers_of_other_kinds_and_texts_of_other_kinds_are_taken(
    memory: testing.MemoryAegis,
) -> None:
    """What a type checker takes for a float or a text is one."""
    for seconds in (5, 0.5, Fraction(5), 1e9):
        assert await memory.request(ADD, 0, resource=Name.ONE, timeout_s=seconds) == 0  # type: ignore[arg-type]
    ticket = await memory.submit(ADD, 0, resource=Name.ONE, key=Name.ONE, expires_s=1e9)
    assert type(ticket.resource) is str
    assert await memory.attach(ticket.id, ADD) == 0


# --- whoever serves --------------------------------------------------------------------------------
async def served_with_wrong_arguments(aegis: Any) -> None:
    service = totals()
    bad: Any
    for bad in (None, "totals", 5, Service, ADD):
        await refused(aegis.serve(bad), "service must be a Service", InvalidArgument)
    await refused(aegis.serve(Service("empty")), "no handler")
    for bad in ("ACC-1", b"ACC-1", 5, True):
        await refused(aegis.serve(service, resources=bad), "resources must be", InvalidArgument)
    for bad in NO_TEXTS[:4]:
        wrong = {bad: Role.AUTO}
        await refused(aegis.serve(service, resources=wrong), "resource's id must be", InvalidName)
    for bad in (5, None, "leader", "ACTIVE", True, [], Role):
        wrong = {"T-2": bad}
        await refused(aegis.serve(service, resources=wrong), "role for .*T-2", InvalidArgument)
    await refused(aegis.serve(service, resources={"": Role.AUTO}), "empty", InvalidName)
    for bad in NO_TEXTS:
        await refused(aegis.serve(service, instance_id=bad), "instance_id must be", InvalidName)
    await refused(aegis.serve(service, instance_id=""), "instance id", InvalidName)


async def test_wrong_arguments_of_serve_are_named_before_anything_is_registered(
    system: System,
) -> None:
    aegis: Any = system.caller
    bad: Any
    await served_with_wrong_arguments(aegis)
    for bad in (["T-1"], {"T-1"}, ("T-1",)):
        await refused(aegis.serve(totals(), resources=bad), "must be a dict", InvalidArgument)
    for bad in (*NO_DURATIONS, *NO_DURATIONS_EITHER):
        await refused(aegis.serve(totals(), wait_s=bad), "wait_s", InvalidArgument)
        await refused(system.instance.drain(timeout_s=bad), "timeout_s", InvalidArgument)
        await refused(aegis.drain(timeout_s=bad), "timeout_s", InvalidArgument)
    for bad in ("2", None, True, 0, -1, 1e-9, 1e9, math.nan, math.inf, 1j):
        await refused(aegis.serve(totals(), capacity=bad), "capacity must be", InvalidArgument)
    for bad in ("80", None, -1, 65_536, 1.5, True):
        with pytest.raises(InvalidArgument, match="port"):
            aegis.serve_metrics(bad)
    with pytest.raises(InvalidArgument, match="host"):
        aegis.serve_metrics(0, host=5)
    assert len(system.caller._instances) == 1
    assert await system.caller.request(ADD, 1, resource="T-1") == 1


async def test_the_harness_names_wrong_arguments_of_serve(memory: testing.MemoryAegis) -> None:
    await served_with_wrong_arguments(memory)
    assert len(memory.instances) == 1


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"url": 5}, "url must be text"),
        ({"url": None}, "url must be text"),
        ({"url": b"nats://x"}, "url must be text"),
        ({"prefix": 5}, "prefix must be text"),
        ({"prefix": "A B"}, "A B"),
        ({"name": 5}, "name must be text"),
        ({"user": 5}, "user must be text"),
        ({"user": "u", "password": b"hush"}, "password must be text"),
        ({"token": 12345}, "token must be text"),
        ({"credentials": 5}, "credentials must be text"),
        ({"nkeys_seed": b"S"}, "nkeys_seed must be text"),
        ({"tls": True}, "tls must be a function"),
        ({"wait_s": "5"}, "wait_s must be a number"),
        ({"wait_s": math.inf}, "wait_s must be from 0"),
    ],
)
async def test_wrong_arguments_of_connect_are_named_without_a_secret(
    server: EmbeddedNats, wrong: dict[str, Any], named: str
) -> None:
    async def tried() -> None:
        async with aegis_sdk.connect(**{"url": server.url, **wrong}):
            pass

    said = await refused(tried(), named)
    assert "hush" not in said
    assert "12345" not in said


def test_wrong_arguments_of_what_is_declared_are_named() -> None:
    service: Any = totals()
    method: Any = Method
    declared: Any = Service
    retries: Any = Retries
    for bad in (None, 5, b"a", [], object()):
        with pytest.raises(InvalidName, match="service must be text"):
            method(bad, "add", request=int, reply=int)
        with pytest.raises(InvalidName, match="name must be text"):
            method("totals", bad, request=int, reply=int)
        with pytest.raises(InvalidName, match="name must be text"):
            declared(bad)
        with pytest.raises(InvalidArgument, match="version must be text"):
            declared("totals", version=bad)
        with pytest.raises(InvalidArgument, match="method must be a Method"):
            service.handles(bad)
        with pytest.raises(InvalidArgument, match="callback"):
            service.on_promoted(bad)
        with pytest.raises(InvalidArgument, match="callback"):
            service.on_demoted(bad)
        if bad is not None:
            with pytest.raises(InvalidArgument, match="retries must be a Retries"):
                service.handles(ADD, retries=bad)
    for bad in (0, -1, 1.5, "3", True, None, 10**9, math.inf):
        with pytest.raises(InvalidArgument, match="attempts"):
            retries(bad)
    for bad in (*NO_DURATIONS, *NO_DURATIONS_EITHER):
        with pytest.raises(InvalidArgument, match="wait_s "):
            retries(3, wait_s=bad)
        with pytest.raises(InvalidArgument, match="wait_s_max"):
            retries(3, wait_s_max=bad)
    for bad in (5, None, "loud", b"INFO"):
        with pytest.raises(InvalidArgument, match="level"):
            aegis_sdk.configure_logs(level=bad)  # type: ignore[arg-type]
    for bad in (5, object(), "no type", [int]):
        with pytest.raises(ContractError):
            method("totals", "add", request=bad, reply=int)


# --- inside a handler ------------------------------------------------------------------------------
ASK: Final[Method[int, str]] = Method("asker", "ask", request=int, reply=str)


async def test_wrong_arguments_inside_a_handler_are_its_failure_and_have_no_effect(
    memory: testing.MemoryAegis,
) -> None:
    """G3: each is named, in an async handler and in a plain one."""
    wrong: list[dict[str, Any]] = [
        *({"resource": "T-1", "timeout_s": bad} for bad in NO_DURATIONS if bad is not None),
        *({"resource": bad} for bad in NO_TEXTS),
    ]
    blocking: Method[int, str] = Method("asker", "block", request=int, reply=str)
    handing: Method[int, str] = Method("asker", "hand", request=int, reply=str)
    service = Service("asker")

    @service.handles(ASK)
    async def ask(ctx: Context, n: int) -> str:
        reply: int = await ctx.request(ADD, 1, **wrong[n])
        return str(reply)

    @service.handles(blocking)
    def block(ctx: Context, n: int) -> str:
        return f"{ctx.request_blocking(ADD, 1, **wrong[n])}"

    @service.handles(handing)
    async def hand(ctx: Context, n: int) -> str:
        return (await ctx.submit(ADD, 1, resource=NO_TEXTS[n])).id

    await memory.serve(service)
    for n, case in enumerate(wrong):
        for method in (ASK, blocking):
            named = "timeout_s" if "timeout_s" in case else "resource"
            await refused(memory.request(method, n), named, HandlerFailed)
    for n in range(len(NO_TEXTS)):
        await refused(memory.request(handing, n), "resource", HandlerFailed)
    assert await memory.request(ADD, 0, resource="T-1") == 0


# --- anything --------------------------------------------------------------------------------------
TEXTS: Final = st.text(max_size=300) | st.sampled_from(
    ["T-1", "", "-", "*", ">", "\ud800", "a" * 201]
)
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ANYTHING: Final = (
    JSON
    | st.binary(max_size=8)
    | st.decimals()
    | st.complex_numbers()
    | st.sampled_from([object(), int, Role.AUTO, Name.ONE, ADD, ..., math.inf, lambda: 1])
)
ANY_ARGUMENTS: Final = st.fixed_dictionaries(
    {},
    optional={
        "resource": TEXTS | ANYTHING,
        "key": TEXTS | ANYTHING,
        "timeout_s": st.sampled_from([0, 0.01, 0.2]) | ANYTHING,
    },
)


async def ends(asked: Awaitable[Any]) -> None:
    """By a reply or an error of ours, in time."""
    async with asyncio.timeout(ENDS_S):
        with contextlib.suppress(AegisError):
            await asked


def short(arguments: dict[str, Any]) -> dict[str, Any]:
    """A long timeout is no fault: it is cut to what a test can wait for."""
    seconds = arguments.get("timeout_s", 0.2)
    is_long = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    return {**arguments, "timeout_s": 0.2 if is_long and 0.2 < seconds < math.inf else seconds}


@given(data=st.data())
@settings(max_examples=60, deadline=None)
async def test_any_arguments_of_any_verb_end_in_a_reply_or_an_error_of_ours(
    data: st.DataObject,
) -> None:
    service = totals()
    keep: Method[Any, Any] = Method("totals", "keep", request=Any, reply=Any)

    @service.handles(keep)
    async def kept(ctx: ResourceContext, value: Any) -> Any:
        return value

    async with testing.harness(service, resources={"T-1"}) as memory:
        aegis: Any = memory
        for _ in range(5):
            method = data.draw(st.sampled_from([ADD, DOUBLE, keep]) | ANYTHING)
            payload = data.draw(st.integers() | ANYTHING)
            arguments = short(data.draw(ANY_ARGUMENTS))
            await ends(aegis.request(method, payload, **arguments))
            await ends(aegis.submit(method, payload, **arguments))
            found = data.draw(TEXTS | ANYTHING)
            await ends(aegis.attach(found, method, timeout_s=arguments["timeout_s"]))
        total: int = await memory.request(ADD, 0, resource="T-1")
        assert type(total) is int


@given(key=TEXTS | ANYTHING, value=JSON | ANYTHING, type_=ANYTHING)
@settings(max_examples=150, deadline=None)
def test_any_key_value_and_type_of_the_state_are_taken_or_refused(
    key: Any, value: Any, type_: Any
) -> None:
    state = State({})
    changes: list[Callable[[], object]] = [
        lambda: state.set(key, value),
        lambda: state.set("key", value, type_),
        lambda: state.get(key),
        lambda: state.get("key", type_),
        lambda: state.delete(key),
    ]
    for change in changes:
        with contextlib.suppress(AegisError):
            change()
