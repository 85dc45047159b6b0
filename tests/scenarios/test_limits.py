"""Wrong use ends in a clear error at once with nothing stored; unusual but right use works."""

from __future__ import annotations

import time
from typing import Any

import aegis_sdk
import nats
import pytest
from aegis_sdk import AegisError, Method, Role, Service
from aegis_sdk.context import ResourceContext
from aegis_sdk.errors import (
    ContractError,
    HandlerFailed,
    InvalidName,
    InvalidPayload,
    NoRoute,
    PayloadTooLarge,
    RegistrationRefused,
    Unavailable,
    UnknownMethod,
    UnknownService,
)
from pydantic import BaseModel

from tests.scenarios.ledger import Booking, Methods, Total, ledger
from tests.scenarios.system import SUBJECTS, System, new_service

IDS = [
    "a b",
    "a.b",
    "*",
    ">",
    "-",
    "=",
    "中文",
    "🚀",
    "a" * 200,
    "é" * 100,
    "\n\t",
    "%20",
    "A/B\\C",
]


async def stored_requests(system: System, service: str) -> int:
    client = await nats.connect(system.url)
    try:
        info = await client.jetstream().stream_info(SUBJECTS.request_stream(service))
        return int(info.state.messages)
    finally:
        await client.close()


async def test_wrong_use_is_refused_at_once_and_stores_nothing(system: System) -> None:
    service = new_service()
    methods = Methods(service)
    await system.start_ledger(service, {"A": "auto"}, instance_id="one")
    other = Methods("nobody-serves-this")
    missing = Method(service, "missing", request=Booking, reply=Total)
    wrong: list[tuple[type[AegisError], str, Method[Any, Any], Any, str | None]] = [
        (UnknownService, "never registered", other.book, Booking(op="x"), "A"),
        (UnknownMethod, "missing", missing, Booking(op="x"), "A"),
        (NoRoute, "'nobody'", methods.book, Booking(op="x"), "nobody"),
        (ContractError, "needs a resource", methods.book, Booking(op="x"), None),
        (InvalidPayload, "delta: ", methods.book, {"op": "x", "delta": "many"}, "A"),
        (InvalidPayload, "op: Field required", methods.book, {}, "A"),
        (InvalidName, "empty", methods.book, Booking(op="x"), ""),
        (InvalidName, "201 bytes", methods.book, Booking(op="x"), "a" * 201),
        (PayloadTooLarge, "max_payload", methods.book, Booking(op="x" * (1 << 20)), "A"),
    ]
    async with aegis_sdk.connect(system.url) as aegis:
        await aegis.request(methods.read, Booking(op="warm"), resource="A")
        before = await stored_requests(system, service)
        for error, text, method, payload, resource in wrong:
            begun_s = time.monotonic()
            with pytest.raises(error) as caught:
                await aegis.request(method, payload, resource=resource)
            assert text in str(caught.value)
            assert "\n" not in str(caught.value)
            assert time.monotonic() - begun_s < 1.0
        with pytest.raises(InvalidName):
            await aegis.request(methods.book, Booking(op="x"), resource="A", key="")
        assert await stored_requests(system, service) == before


async def test_any_utf8_text_is_a_resource_id(system: System) -> None:
    service = new_service()
    methods = Methods(service)
    async with aegis_sdk.connect(system.url) as aegis:
        await aegis.serve(ledger(service), resources=dict.fromkeys(IDS, Role.AUTO))
        for n, resource in enumerate(IDS):
            total = await aegis.request(methods.book, Booking(op=f"op-{n}"), resource=resource)
            assert (total.count, total.ops) == (1, [f"op-{n}"])


async def test_a_thousand_resources_register_and_fail_over_together(system: System) -> None:
    """Under a second each on a quiet machine; the bounds catch work done one resource at a time."""
    service = new_service()
    methods = Methods(service)
    resources = {f"R-{n}": "auto" for n in range(1000)}
    async with aegis_sdk.connect(system.url) as aegis:
        begun_s = time.monotonic()
        one = await aegis.serve(
            ledger(service), resources={name: Role(role) for name, role in resources.items()}
        )
        registered_s = time.monotonic() - begun_s
        assert one.id
        two = await system.start_ledger(service, resources, instance_id="two")
        await aegis.request(methods.book, Booking(op="a"), resource="R-0")
        begun_s = time.monotonic()
        await one.stop()  # as if killed: the connections are gone
        for name in ("R-0", "R-500", "R-999"):
            await aegis.request(methods.book, Booking(op="b"), resource=name, timeout_s=10)
        served_s = time.monotonic() - begun_s
        assert two.running
    assert registered_s < 3.0
    assert served_s < 3.0


async def test_a_handler_that_raises_is_an_answer_and_logged_with_its_traceback(
    system: System,
) -> None:
    service = new_service()
    methods = Methods(service)
    one = await system.start_ledger(service, {"A": "auto"}, instance_id="one")
    async with aegis_sdk.connect(system.url) as aegis:
        with pytest.raises(HandlerFailed, match="RuntimeError: attempt 3"):
            await aegis.request(methods.flaky, Booking(op="x", delta=9), resource="A")
        total = await aegis.request(methods.flaky, Booking(op="y", delta=2), resource="A")
        assert total.count == 1, "the second attempt booked, once"
        blocking = await aegis.request(methods.blocking, Booking(op="z", hold_s=0.01), resource="A")
        assert blocking.count == 2
    failed = one.logged("handler_failed")
    assert [line["will_retry"] for line in failed] == [True, True, False, True]
    assert all(line["exception"] and len(line["trace_id"]) == 32 for line in failed)
    assert len({line["trace_id"] for line in failed}) == 2


async def test_a_reply_that_fits_no_message_is_a_failure_and_changes_nothing(
    system: System,
) -> None:
    class Blob(BaseModel):
        data: str = ""

    name = new_service()
    grow = Method(name, "grow", request=Blob, reply=Blob)
    service = Service(name)

    @service.handles(grow)
    async def handle(ctx: ResourceContext, blob: Blob) -> Blob:
        ctx.state.set("grown", True)
        return Blob(data="x" * (2 << 20)) if not blob.data else Blob(data=str(ctx.state.keys()))

    async with aegis_sdk.connect(system.url) as aegis:
        await aegis.serve(service, resources={"A": Role.AUTO})
        with pytest.raises(HandlerFailed, match="max_payload"):
            await aegis.request(grow, Blob(), resource="A")


async def test_nats_absent_is_one_line_that_says_where_it_looked() -> None:
    with pytest.raises(Unavailable, match=r"nats://127\.0\.0\.1:1") as caught:
        async with aegis_sdk.connect("nats://127.0.0.1:1", wait_s=0):
            pass
    assert "\n" not in str(caught.value)


async def test_an_id_in_use_by_a_live_instance_is_refused(system: System) -> None:
    service = new_service()
    await system.start_ledger(service, {"A": "auto"}, instance_id="one")
    async with aegis_sdk.connect(system.url) as aegis:
        with pytest.raises(RegistrationRefused, match="one"):
            await aegis.serve(ledger(service), resources={"A": Role.ACTIVE}, instance_id="two")
