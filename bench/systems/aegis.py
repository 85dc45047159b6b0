"""AegisIPC by its public API, as a user would write it: nothing is tuned here that a user could not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

import aegis_sdk
from aegis_sdk import Context, Method, ReadContext, ResourceContext, Role, Service
from aegis_sdk.errors import ContractError, NotExecuted

from bench.model import Book, Fill, Lookup, Op, Position, position_after, position_read
from bench.systems.api import CALL_TIMEOUT_S, CallerSetup, InstanceSetup, Refused, Serving, System

FILL: Final = Method("accounts", "fill", request=Fill, reply=Position)
QUERY: Final = Method("accounts", "query", request=Lookup, reply=Position)
ORDER: Final = Method("accounts", "order", request=Fill, reply=Position)
KEY: Final = "position"


def fill(ctx: ResourceContext, fill: Fill) -> Position:
    position = position_after(ctx.state.get(KEY, Position), fill)
    ctx.state.set(KEY, position)
    return position


def query(ctx: ResourceContext, lookup: Lookup) -> Position:
    return position_read(ctx.state.get(KEY, Position), lookup)


def read(ctx: ReadContext, lookup: Lookup) -> Position:
    return position_read(ctx.state.get(KEY, Position), lookup)


def service(book: Book, *, pure: bool = True, reads: bool = False) -> Service:
    """The accounts service; positions live in AegisIPC's state, `book` counts the orders taken here.

    Not `pure`: the same handlers as an `async def` each, whose requests are stored one by one. `reads`: a query is a read.
    """
    accounts = Service("accounts")
    if reads:
        accounts.handles(FILL, pure=True)(fill)
        accounts.reads(QUERY)(read)
    elif pure:
        accounts.handles(FILL, pure=True)(fill)
        accounts.handles(QUERY, pure=True)(query)
    else:

        @accounts.handles(FILL)
        async def fill_alone(ctx: ResourceContext, request: Fill) -> Position:
            return fill(ctx, request)

        @accounts.handles(QUERY)
        async def query_alone(ctx: ResourceContext, request: Lookup) -> Position:
            return query(ctx, request)

    @accounts.handles(ORDER)
    async def order(_: Context, order: Fill) -> Position:
        return book.order(order)

    return accounts


@asynccontextmanager
async def serve(
    setup: InstanceSetup, *, metrics: bool = True, pure: bool = True, reads: bool = False
) -> AsyncIterator[Serving]:
    serving = Serving()
    async with aegis_sdk.connect(setup.url, metrics=metrics) as aegis:
        resources = dict.fromkeys(setup.accounts, Role.ACTIVE)
        await aegis.serve(service(serving.book, pure=pure, reads=reads), resources=resources)
        yield serving


class AegisCaller:
    """`aegis.request`: with a resource for targeted calls, without one for group calls."""

    def __init__(self, aegis: aegis_sdk.Aegis) -> None:
        self._aegis = aegis

    async def call(self, op: Op, request: Fill | Lookup) -> Position:
        try:
            return await self._request(op, request)
        except (NotExecuted, ContractError) as error:
            raise Refused(str(error)) from error

    async def _request(self, op: Op, request: Fill | Lookup) -> Position:
        if isinstance(request, Lookup):
            return await self._aegis.request(
                QUERY, request, resource=request.account, timeout_s=CALL_TIMEOUT_S
            )
        if op is Op.ORDER:
            return await self._aegis.request(ORDER, request, timeout_s=CALL_TIMEOUT_S)
        return await self._aegis.request(
            FILL, request, resource=request.account, timeout_s=CALL_TIMEOUT_S
        )


class ReadingCaller(AegisCaller):
    """Whose queries are reads."""

    async def _request(self, op: Op, request: Fill | Lookup) -> Position:
        if isinstance(request, Lookup):
            return await self._aegis.read(
                QUERY, request, resource=request.account, timeout_s=CALL_TIMEOUT_S
            )
        return await super()._request(op, request)


@asynccontextmanager
async def connect_reading(setup: CallerSetup) -> AsyncIterator[AegisCaller]:
    async with aegis_sdk.connect(setup.url) as aegis:
        yield ReadingCaller(aegis)


@asynccontextmanager
async def connect(setup: CallerSetup, *, metrics: bool = True) -> AsyncIterator[AegisCaller]:
    async with aegis_sdk.connect(setup.url, metrics=metrics) as aegis:
        yield AegisCaller(aegis)


SYSTEM = System(
    name="aegis",
    promises="exactly-once effect and reply; state, request and outcome stored; fenced",
    serve=serve,
    connect=connect,
    uses_control=True,
)
WITHOUT_METRICS = replace(
    SYSTEM,
    name="aegis-without-metrics",
    serve=partial(serve, metrics=False),
    connect=partial(connect, metrics=False),
    settings={"metrics": "False"},
)
ONE_BY_ONE = replace(
    SYSTEM,
    name="aegis-one-by-one",
    serve=partial(serve, pure=False),
    settings={"handlers": "not pure"},
)
READS = replace(
    SYSTEM,
    name="aegis-reads",
    promises="at the active: linearizable with the calls; nothing stored",
    serve=partial(serve, reads=True),
    connect=connect_reading,
    settings={"queries": "reads"},
)
ON_ASYNCIO = replace(SYSTEM, name="aegis-on-asyncio", settings={"event loop": "asyncio"})
