"""Whatever a handler raises, and whatever it does to its own task, its request ends with an outcome, and the
next one is served (G1, G2, G7).
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from enum import StrEnum
from typing import Any, Final

import pytest
from aegis_sdk import (
    Context,
    HandlerFailed,
    InvalidPayload,
    Method,
    Rejected,
    ResourceContext,
    Service,
    testing,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, field_serializer, field_validator

WAIT_S: Final = 10.0
Act = Callable[[], object]


class Panic(BaseException):
    """As pyo3's PanicException: not an Exception."""


class Mute(Exception):
    """Can't say what happened."""

    def __str__(self) -> str:
        raise KeyError("no text")

    __repr__ = __str__


class MuteForGood(BaseException):
    """Raises itself when it is asked what happened."""

    def __str__(self) -> str:
        raise MuteForGood

    __repr__ = __str__


class Huge(Exception):
    def __str__(self) -> str:
        return "x" * 2_000_000


class Unset(Rejected):
    """Forgets to call its base."""

    def __init__(self) -> None:
        """No code, no details."""


class Hidden(Exception):
    """Can't even be asked what it is."""

    @property
    def __class__(self) -> Any:
        raise KeyboardInterrupt

    @__class__.setter
    def __class__(self, _: Any) -> None: ...


class _Nameless(type):
    @property
    def __name__(cls) -> Any:  # type: ignore[override]
        raise MuteForGood


class OfNameless(Exception, metaclass=_Nameless):
    """Its class has no name."""


class Endless(ExceptionGroup[Exception]):
    """Holds itself."""

    @property
    def exceptions(self) -> Any:
        return (self,)


def deep() -> BaseException:
    error: Exception = Mute()
    for _ in range(5_000):
        error = ExceptionGroup("deeper", [error])
    return error


def raised(error: BaseException) -> Act:
    def act() -> object:
        raise error

    return act


def cancelled() -> object:
    task = asyncio.current_task()
    assert task is not None
    return task.cancel()


def twice_cancelled() -> object:
    cancelled()
    return cancelled()


async def timed_out_later() -> None:
    """Leaves a timeout open behind."""
    await asyncio.timeout(0.0).__aenter__()


async def of_a_task_that_was_cancelled() -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


async def of_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(raised(Mute())))
        group.create_task(asyncio.sleep(60))


def builtin_errors() -> Iterator[BaseException]:
    for kind in vars(builtins).values():
        if isinstance(kind, type) and issubclass(kind, BaseException):
            for arguments in ((), ("x", [ValueError(), KeyError()]), ("utf-8", b"x", 0, 1, "y")):
                try:
                    yield kind(*arguments)
                    break
                except TypeError:
                    continue


ERRORS: Final = [
    *builtin_errors(),
    asyncio.CancelledError(),
    Panic("pyo3"),
    Mute(),
    MuteForGood(),
    Huge(),
    Unset(),
    ExceptionGroup("g", [Mute(), ExceptionGroup("h", [Huge()])]),
    BaseExceptionGroup("g", [SystemExit(3), MuteForGood()]),
    Hidden(),
    OfNameless(),
    Endless("g", [ValueError()]),
    deep(),
]
ACTS: Final[list[Act]] = [
    *map(raised, ERRORS),
    cancelled,
    twice_cancelled,
    timed_out_later,
    of_a_task_that_was_cancelled,
    of_a_group,
]


class Do(BaseModel):
    """What the handler, or a model on its way, is to do."""

    act: int = -1


class Checked(Do):
    """The service's form of it, whose validator does it. Callers know nothing of that."""

    @field_validator("act")
    @classmethod
    def _check(cls, act: int) -> int:
        do_now(act)
        return act


class Done(BaseModel):
    act: int = -1

    @field_serializer("act")
    def _say(self, act: int) -> int:
        if act >= 0:
            do_now(act)
        return act


class Where(StrEnum):
    """Where users' code runs."""

    ASYNC = "one"
    THREAD = "two"
    PURE = "three"
    GROUP = "four"
    GROUP_THREAD = "five"
    REPLY = "six"
    REPLY_PURE = "seven"
    REQUEST = "eight"
    REQUEST_PURE = "nine"


IN_GROUP: Final = (Where.GROUP, Where.GROUP_THREAD)
METHODS: Final = {
    where: Method("acts", where, request=Do, reply=Done if "REPLY" in where.name else int)
    for where in Where
}


async def do(act: int) -> int:
    if act >= 0:
        result: Any = ACTS[act]()
        if isinstance(result, Awaitable):
            await result
    return 1


def do_now(act: int) -> int:
    if 0 <= act < len(ACTS):
        result: Any = ACTS[act]()
        if isinstance(result, Awaitable):
            result.close()  # type: ignore[attr-defined] # a coroutine, which only an `async def` can await
    return 1


def acting() -> Service:
    service = Service("acts")

    @service.handles(METHODS[Where.ASYNC])
    async def one(ctx: ResourceContext, request: Do) -> int:
        return await do(request.act)

    @service.handles(METHODS[Where.THREAD])
    def two(ctx: ResourceContext, request: Do) -> int:
        return do_now(request.act)

    @service.handles(METHODS[Where.PURE], pure=True)
    def three(ctx: ResourceContext, request: Do) -> int:
        return do_now(request.act)

    @service.handles(METHODS[Where.GROUP])
    async def four(ctx: Context, request: Do) -> int:
        return await do(request.act)

    @service.handles(METHODS[Where.GROUP_THREAD])
    def five(ctx: Context, request: Do) -> int:
        return do_now(request.act)

    @service.handles(METHODS[Where.REPLY])
    async def six(ctx: ResourceContext, request: Do) -> Done:
        return Done.model_construct(act=request.act)

    @service.handles(METHODS[Where.REPLY_PURE], pure=True)
    def seven(ctx: ResourceContext, request: Do) -> Done:
        return Done.model_construct(act=request.act)

    @service.handles(Method("acts", Where.REQUEST, request=Checked, reply=int))
    async def eight(ctx: ResourceContext, request: Checked) -> int:
        return 1

    @service.handles(Method("acts", Where.REQUEST_PURE, request=Checked, reply=int), pure=True)
    def nine(ctx: ResourceContext, request: Checked) -> int:
        return 1

    return service


@given(st.lists(st.tuples(st.sampled_from(Where), st.integers(0, len(ACTS) - 1)), max_size=12))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_handler_raises_or_does_to_its_task_is_an_outcome(
    steps: list[tuple[Where, int]],
) -> None:
    """G1, G2, G7: and the next request of its resource is served."""
    asyncio.run(_attack(steps))


def test_each_of_them_everywhere() -> None:
    """G1, G2, G7: whatever a handler raises, its request ends once, and those behind it in order."""
    asyncio.run(_attack([(where, n) for where in Where for n in range(len(ACTS))]))


async def _attack(steps: list[tuple[Where, int]]) -> None:
    async with testing.harness(acting(), resources={"A"}) as aegis:
        for where, act in steps:
            resource = None if where in IN_GROUP else "A"
            async with asyncio.timeout(WAIT_S):
                with contextlib.suppress(HandlerFailed, Rejected, InvalidPayload):
                    await aegis.request(METHODS[where], Do(act=act), resource=resource)
                assert await aegis.request(METHODS[where], Do(), resource=resource)
                assert await aegis.request(METHODS[Where.ASYNC], Do(), resource="A") == 1


async def test_a_handler_that_a_stranger_cancels_has_failed_and_the_next_is_served() -> None:
    """G1, G7: `for task in asyncio.all_tasks(): task.cancel()` in somebody's cleanup."""
    begun, runs = asyncio.Event(), 0
    service = Service("acts")

    @service.handles(METHODS[Where.ASYNC])
    async def one(ctx: ResourceContext, request: Do) -> int:
        nonlocal runs
        runs += 1
        begun.set()
        if runs == 1:
            await asyncio.Event().wait()
        return runs

    async with testing.harness(service, resources={"A"}) as aegis:
        asked = asyncio.create_task(aegis.request(METHODS[Where.ASYNC], Do(), resource="A"))
        await begun.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task(), asked}:
            task.cancel()
        with pytest.raises(HandlerFailed, match="cancelled"):
            await asked
        assert await aegis.request(METHODS[Where.ASYNC], Do(), resource="A") == 2
