"""A small system that has done one of everything, to be scraped: server, control, two instances, a caller."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aegis_sdk
import nats
from aegis_control.bootstrap import Control
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Aegis, Context, Instance, Method, ResourceContext, Role, Service
from aegis_sdk.contract.control import SubscriptionRecord
from aegis_sdk.contract.subjects import Subjects
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.control.support import control, until

ACCOUNTS = "accounts"
BOOK: Method[int, int] = Method(ACCOUNTS, "book", request=int, reply=int)
ECHO: Method[str, str] = Method(ACCOUNTS, "echo", request=str, reply=str)
Samples = dict[str, float]


def accounts() -> Service:
    service = Service(ACCOUNTS, version="1.4.2")

    @service.handles(BOOK)
    async def book(ctx: ResourceContext, amount: int) -> int:
        if amount < 0:
            raise aegis_sdk.Rejected("negative")
        total = (ctx.state.get("total", int) or 0) + amount
        ctx.state.set("total", total)
        return total

    @service.handles(ECHO)
    async def echo(_: Context, text: str) -> str:
        if text == "boom":
            raise ValueError(text)
        return text

    return service


async def get(port: int, path: str) -> str:
    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return str(response.read().decode())

    return await asyncio.to_thread(read)


async def get_json(port: int, path: str) -> Any:
    return json.loads(await get(port, path))


def samples_of(text: str) -> Samples:
    """`name{label=value,...}`, its labels in the order of the alphabet: value."""
    return {
        f"{s.name}{{{','.join(f'{k}={v}' for k, v in sorted(s.labels.items()))}}}": s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


async def scrape(port: int) -> Samples:
    return samples_of(await get(port, "/metrics"))


async def until_shown(port: int, name: str, value: float) -> Samples:
    """The first scrape in which `name` has at least `value`. Raises: AssertionError."""
    last: Samples = {}

    async def shown() -> bool:
        nonlocal last
        last = await scrape(port)
        return last.get(name, -1.0) >= value

    await until(shown, f"{name} >= {value}")
    return last


@dataclass
class Observed:
    """The system; `scrape` has been through everything that there is to show."""

    server: EmbeddedNats
    control: Control
    aegis: Aegis
    instances: list[Instance]
    text: str = ""


@asynccontextmanager
async def serving(url: str, prefix: str, **instance: Any) -> AsyncIterator[tuple[Aegis, Instance]]:
    async with aegis_sdk.connect(url, prefix=prefix) as aegis:
        yield aegis, await aegis.serve(accounts(), **instance)


async def ready(check: Callable[[], Awaitable[object]]) -> None:
    """Until a call goes through: the standby has become the active, say."""

    async def went() -> bool:
        with contextlib.suppress(aegis_sdk.AegisError):
            await check()
            return True
        return False

    await until(went, "a call goes through")


async def subscribed(url: str, prefix: str) -> None:
    """There is a subscription, of a service that is not there."""
    record = SubscriptionRecord(service="audit", takes="accounts.noted", stream="", seq=0)
    bucket = Subjects(prefix).subscriptions_bucket
    async with await nats.connect(url) as client:
        data = record.model_dump_json().encode()
        await client.jetstream().publish(f"$KV.{bucket}.{record.key}", data)


@asynccontextmanager
async def observed(server: EmbeddedNats, prefix: str) -> AsyncIterator[Observed]:
    """Executed, rejected and failed requests, a failover and a scrape after all that was counted."""
    async with contextlib.AsyncExitStack() as stack:
        replica = await stack.enter_async_context(control(server.url, prefix))
        aegis = await stack.enter_async_context(aegis_sdk.connect(server.url, prefix=prefix))
        first, second = [
            (await stack.enter_async_context(serving(server.url, prefix, resources=roles)))[1]
            for roles in ({"R1": Role.ACTIVE}, {"R1": Role.STANDBY})
        ]
        await subscribed(server.url, prefix)
        made = Observed(server, replica, aegis, [first, second])
        await first.drain()
        await ready(lambda: aegis.request(BOOK, 1, resource="R1"))
        await aegis.request(ECHO, "hi")
        with contextlib.suppress(aegis_sdk.Rejected):
            await aegis.request(BOOK, -1, resource="R1")
        with contextlib.suppress(aegis_sdk.HandlerFailed):
            ticket = await aegis.submit(ECHO, "boom")
            await aegis.attach(ticket.id, ECHO)
        of = "method=echo,outcome=failed,route=any,service=accounts"
        await until_shown(replica.http_port, f"aegis_requests_total{{{of}}}", 1)
        caller = "aegis_request_duration_seconds_count{method=echo,route=any,service=accounts}"
        await until_shown(replica.http_port, caller, 1)
        await until_shown(replica.http_port, "aegis_queue_depth{route=any,service=accounts}", 0)
        of = "emitter=accounts,event=noted,service=audit"
        await until_shown(replica.http_port, f"aegis_events_lag_entries{{{of}}}", 0)
        made.text = await get(replica.http_port, "/metrics")
        yield made
