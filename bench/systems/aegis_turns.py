"""AegisIPC in the protocol's second form (docs/protocol.md), which the product does not use yet: its parts, put together.

The handlers and the codecs are those of bench.systems.aegis. There is no control: each instance says itself what it owns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from aegis_sdk.application.ports import AlreadyStored
from aegis_sdk.contract.subjects import GROUP_CONSUMER, Subjects
from aegis_sdk.contract.turns.streams import log_stream
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.errors import ContractError, NotExecuted
from aegis_sdk.infrastructure.turns.assembly import EveryoneThere, TurnClient, TurnInstance
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server

from bench.model import Fill, Lookup, Op, Position
from bench.systems.aegis import FILL, ORDER, QUERY, service
from bench.systems.api import CALL_TIMEOUT_S, CallerSetup, InstanceSetup, Refused, Serving, System

SUBJECTS = Subjects()
NAMES = LogSubjects(SUBJECTS, "accounts")
DUPLICATE_WINDOW_S = 120
ACK_WAIT_S = 30.0


async def prepare(url: str, replicas: int) -> None:
    link = await Link.open(Server(url), name="prepare")
    requests = SUBJECTS.request_stream("accounts")
    await link.api(f"STREAM.CREATE.{NAMES.stream}", log_stream(NAMES, replicas=replicas))
    await link.api(
        f"STREAM.CREATE.{requests}",
        {
            "name": requests,
            "subjects": [SUBJECTS.requests("accounts")],
            "storage": "file",
            "retention": "limits",
            "duplicate_window": DUPLICATE_WINDOW_S * 10**9,
            "allow_direct": True,
            "num_replicas": replicas,
        },
    )
    group = {
        "durable_name": GROUP_CONSUMER,
        "ack_policy": "explicit",
        "ack_wait": int(ACK_WAIT_S * 1e9),
        "filter_subject": SUBJECTS.request("accounts", None),
    }
    await link.api(
        f"CONSUMER.DURABLE.CREATE.{requests}.{GROUP_CONSUMER}",
        {"stream_name": requests, "config": group},
    )
    await link.close()


async def own(instance: TurnInstance, accounts: list[str]) -> None:
    """Returns when it serves them."""
    moves = dict.fromkeys(accounts, instance.writer)
    number = 0
    while True:
        number += 1
        try:
            await instance.log.own(number, moves)
            break
        except AlreadyStored:
            continue
    async with asyncio.timeout(CALL_TIMEOUT_S):
        await instance.host.until(lambda: instance.host.serving.issuperset(accounts))


@asynccontextmanager
async def serve(setup: InstanceSetup, *, pure: bool = True) -> AsyncIterator[Serving]:
    serving = Serving()
    link = await Link.open(Server(setup.url), name=f"accounts-{setup.index}")
    instance = TurnInstance(
        link,
        SUBJECTS,
        service(serving.book, pure=pure),
        instance_id=f"accounts-{setup.index}",
        resources=setup.accounts,
    )
    await instance.start()
    await own(instance, setup.accounts)
    yield serving
    await instance.stop()
    await link.close()


class TurnsCaller:
    def __init__(self, client: TurnClient) -> None:
        self._caller = client

    async def call(self, op: Op, request: Fill | Lookup) -> Position:
        try:
            if isinstance(request, Lookup):
                return await self._caller.request(
                    QUERY, request, resource=request.account, timeout_s=CALL_TIMEOUT_S
                )
            if op is Op.ORDER:
                return await self._caller.request(
                    ORDER, request, resource=None, timeout_s=CALL_TIMEOUT_S
                )
            return await self._caller.request(
                FILL, request, resource=request.account, timeout_s=CALL_TIMEOUT_S
            )
        except (NotExecuted, ContractError) as error:
            raise Refused(str(error)) from error


@asynccontextmanager
async def connect(setup: CallerSetup, *, control: bool = False) -> AsyncIterator[TurnsCaller]:
    """`control` says who is there."""
    link = await Link.open(Server(setup.url), name="caller")
    members = sorted({f"accounts-{owner}" for owner in setup.owners.values()})
    directory = None if control else EveryoneThere(members)
    client = TurnClient(link, SUBJECTS, directory=directory)
    await client.start()
    yield TurnsCaller(client)
    await client.close()
    await link.close()


SYSTEM = System(
    name="aegis-turns",
    promises="as aegis, in the protocol's second form; not the product yet",
    serve=serve,
    connect=connect,
    prepare=prepare,
)
ONE_BY_ONE = replace(
    SYSTEM,
    name="aegis-turns-one-by-one",
    serve=partial(serve, pure=False),
    settings={"handlers": "async"},
)
WITH_CONTROL = replace(
    SYSTEM,
    name="aegis-turns-with-control",
    connect=partial(connect, control=True),
    prepare=None,
    uses_control=True,
    turns=True,
)
"""Its instances are members (bench.failover.turns), which control gives what they own."""
