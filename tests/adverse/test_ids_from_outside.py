"""Ids that others chose: each door refuses what can't be one, and what it refuses costs nobody else anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Final

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Context, InvalidName, Method, Rejected, Retries, Service
from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.ids import check_request_id, redriven_id
from aegis_sdk.contract.names import decode_token, encode_token
from aegis_sdk.nats.wire import encode, parse_headers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.adverse.support_doors import ADD, DOUBLE, System, running
from tests.integration.cli.support import run_cli
from tests.integration.control.support import control

BAD_IDS: Final = (
    "",
    " ",
    ".",
    "a",
    "a.",
    ".1",
    "a..1",
    "a.1.2",
    "..",
    "a b.1",
    "a.1 2",
    "a.1\t2",
    "*.*",
    "a.*",
    "a.>",
    ">",
    "*",
    "a.1\x00",
    "a.\x1b[2J",
    "a.\x7f",
    "ä.1",
    "a.1\u2028",
    "a.\U0001f600",
    "a." + "1" * 4998,
    "x" * 5000,
)
OTHERS: Final[tuple[dict[str, str | bytes], ...]] = (
    {"aegis-deadline": "nan"},
    {"aegis-deadline": "-inf"},
    {"aegis-deadline": "soon"},
    {"aegis-attempt": "9" * 5000},
    {"aegis-attempt": "first"},
    {"aegis-method": ""},
    {"aegis-method": "add\nevil: 1"},
    {"aegis-method": b"\xff\xfe"},
    {"aegis-fingerprint": "a b=c"},
    {"aegis-fingerprint": "\nx: y"},
    {"aegis-chain": "a b\nevil: 1"},
)
"""Headers that break something on the way of a request whose id is fine."""


@pytest.fixture
async def system(server: EmbeddedNats) -> AsyncIterator[System]:
    async with running(server.url) as whole:
        yield whole


def connections(system: System) -> list[int]:
    """How often each connection of this process was made again."""
    links = (system.caller._link, system.instance._link)
    return [link.client.stats["reconnects"] for link in links]


# --- what any client may have written into our streams ------------------------------------------------------
async def test_what_a_stranger_wrote_into_the_request_stream_holds_nobody_up(
    system: System,
) -> None:
    """G1, G7: a request whose id can't be one is no request; those behind it are served as ever."""
    routes = [system.subjects.request("totals", "T-1"), system.subjects.request("totals", None)]
    for route in routes:
        for request_id in BAD_IDS:
            system.stranger.write(route, {"Nats-Msg-Id": request_id, "aegis-method": "add"})
        for n, headers in enumerate(OTHERS):
            known = {"Nats-Msg-Id": f"stranger.{n}", "aegis-method": "add"}
            system.stranger.write(route, known | headers)
        system.stranger.write(route, {"Nats-Msg-Id": b"\xff\xfe.1", "aegis-method": "add"})
        system.stranger.write(route, {})
    await system.stranger.settled()
    assert await system.caller.request(ADD, 5, resource="T-1") == 5
    assert await system.caller.request(DOUBLE, 4) == 8
    assert connections(system) == [0, 0]


async def test_subjects_that_no_client_of_ours_writes_break_no_connection(system: System) -> None:
    """A subject may hold any byte but a blank, a tab and a line's end: readers of a whole stream meet it."""
    stream = f"{system.subjects.prefix}.req.totals.at."
    for token in (b"\xff", b"a\x0bb", b"a\x0cb", b"=FF", b"=C3", b"=", b"x.y.z", b"\xc3\x28"):
        known = {"Nats-Msg-Id": "stranger.1", "aegis-method": "add"}
        system.stranger.write(stream.encode() + token, known)
    await system.stranger.settled()
    with pytest.raises(aegis_sdk.NeverAccepted):  # reads the ids of all
        await system.caller.attach("nobody.1", ADD, timeout_s=0.1)
    assert connections(system) == [0, 0]


async def test_a_trace_that_can_not_be_read_is_left_out(system: System) -> None:
    """The request itself is served, and its outcome can be read."""
    for n, trace in enumerate(("garbage", "00-zz", "00-" + "0" * 500, "x y=z", "a\nb: c")):
        headers = {"traceparent": trace, "tracestate": trace, "aegis-method": "add"}
        known = {"Nats-Msg-Id": f"stranger.{n}"}
        system.stranger.write(system.subjects.request("totals", "T-1"), headers | known, b"1")
    await system.stranger.settled()
    for n in range(5):
        assert await system.caller.attach(f"stranger.{n}", ADD) == n + 1


# --- ids that callers and operators give --------------------------------------------------------------------
@pytest.mark.parametrize("request_id", BAD_IDS)
async def test_attach_takes_one_request_s_id_and_nothing_else(
    request_id: str, server: EmbeddedNats
) -> None:
    """Never another caller's outcome, and never a broken connection."""
    async with aegis_sdk.connect(server.url, prefix="attach") as aegis:
        with pytest.raises(InvalidName, match="request id"):
            await aegis.attach(request_id, ADD, timeout_s=0.1)
        await aegis._link.flush(timeout_s=2.0)
        assert aegis._link.client.stats["reconnects"] == 0


async def test_keys_and_resources_of_any_text_work_or_are_refused(system: System) -> None:
    for n, text in enumerate(
        ("*.*", "a b", "..", ">", "\r\n", "\x00", "ä€😀", "-", "=41", "x" * 200)
    ):
        for _ in range(2):
            got = await system.caller.request(ADD, 1, resource="T-1", key=text)
            assert got == n + 1, text
        with pytest.raises(aegis_sdk.NoRoute):
            await system.caller.request(ADD, 1, resource=text)
    for text in ("", "x" * 201, "é" * 101, "\ud800"):
        with pytest.raises(InvalidName):
            await system.caller.request(ADD, 1, resource="T-1", key=text)
        with pytest.raises(InvalidName):
            await system.caller.request(ADD, 1, resource=text)
    assert connections(system) == [0, 0]


@pytest.mark.parametrize(
    "verb", [("explain",), ("dlq", "show"), ("dlq", "redrive"), ("dlq", "drop")]
)
async def test_operators_verbs_take_one_request_s_id(
    verb: tuple[str, ...], server: EmbeddedNats
) -> None:
    for request_id in ("*.*", "a.>", "a b.1", "a", "a..1", "ä.1", "a." + "1" * 4998):
        said = await run_cli(*verb, request_id, "--url", server.url, "--prefix", "verbs")
        assert (said.code, said.out) == (2, ""), said
        assert "request id" in said.err
        assert said.err.count("\n") == 1
        assert len(said.err) < 300


@pytest.mark.parametrize(
    "verb",
    [
        "show-route",
        "failover",
        "rebalance",
        "disconnect --yes",
        "drain --yes",
        "accept-loss",
        "describe",
    ],
)
async def test_bytes_that_are_no_text_are_refused_by_operators_verbs(
    verb: str, system: System
) -> None:
    """As a shell completes them from a file's name."""
    place = ("--url", system.url, "--prefix", system.subjects.prefix)
    said = await run_cli(*verb.split(), "\udcff", *place)
    assert (said.code, said.out) == (2, ""), said
    assert said.err.count("\n") == 1
    assert "surrogate" in said.err or "'\\udcff' is not valid Unicode text" in said.err


async def test_control_refuses_orders_about_what_is_no_id(system: System) -> None:
    """Also from clients that are not ipc-cli."""
    for request_id in BAD_IDS:
        body = json.dumps({"request_id": request_id, "reason": "", "by": "x"}).encode()
        for verb in ("dlq-redrive", "dlq-drop"):
            answer = await system.caller._link.request(
                system.subjects.admin(verb), body, timeout_s=5.0
            )
            assert json.loads(answer)["code"] == "invalid", request_id


async def test_explain_reads_past_what_strangers_wrote(system: System) -> None:
    route = system.subjects.request("totals", "T-1")
    for request_id in BAD_IDS:
        system.stranger.write(route, {"Nats-Msg-Id": request_id, "aegis-method": "add"})
    system.stranger.write(route, {"Nats-Msg-Id": "bad.1", "aegis-deadline": "nan"})
    await system.stranger.settled()
    ticket = await system.caller.submit(ADD, 1, resource="T-1")
    assert await system.caller.attach(ticket.id, ADD) == 1
    options = ("--url", system.url, "--prefix", system.subjects.prefix)
    said = await run_cli("explain", ticket.id, *options)
    assert said.code == 0, said.err
    said = await run_cli("explain", "bad.1", *options)
    assert said.code == 3, said
    assert "Traceback" not in said.err


# --- text of users that becomes a header ----------------------------------------------------------------------
TEXTS: Final = ("a\r\nevil: 1", "a\nb", "\x00\x1b[2J", "\ud800", "x" * 100_000, "é\u2028")


@pytest.mark.parametrize("text", TEXTS)
async def test_what_a_handler_says_forges_no_header(text: str, server: EmbeddedNats) -> None:
    """Neither of an outcome nor of a dead letter; the caller is answered."""
    service = Service("says")
    refuse: Method[int, int] = Method("says", "refuse", request=int, reply=int)
    fail: Method[int, int] = Method("says", "fail", request=int, reply=int)

    @service.handles(refuse)
    async def say(_: Context, n: int) -> int:
        raise Rejected(text, text, {text: text})

    @service.handles(fail, retries=Retries(1))
    async def break_(_: Context, n: int) -> int:
        raise ValueError(text)

    prefix = f"says{TEXTS.index(text)}"
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        await aegis.serve(service)
        with pytest.raises(Rejected):
            await aegis.request(refuse, 1)
        with pytest.raises(aegis_sdk.HandlerFailed):
            await aegis.request(fail, 1)


# --- any text, at each door ---------------------------------------------------------------------------------
any_text = st.text(st.characters(codec=None, categories=None), max_size=40)


@given(any_text)
def test_what_the_check_takes_is_two_plain_tokens(text: str) -> None:
    try:
        check_request_id(text)
    except InvalidName:
        return
    assert text.isascii()
    assert text.isprintable()
    assert not set(" *>") & set(text)
    assert [bool(token) for token in text.split(".")] == [True, True]
    assert check_request_id(redriven_id(text)) != text


@given(st.dictionaries(
    st.sampled_from(
        ["Nats-Msg-Id", "aegis-method", "aegis-deadline", "aegis-attempt", "aegis-chain",
         "aegis-fingerprint", "traceparent", "tracestate"]
    ),
    any_text | st.sampled_from(["a.1", "add", "1e999", "17", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"]),
))  # fmt: skip
def test_what_is_taken_for_a_request_can_be_answered_and_buried(headers: dict[str, str]) -> None:
    """Its own form, its outcome and its dead letter are read back as they were written."""
    try:
        request = Request.parse(headers, b"1", service="totals", resource="T 1")
    except (KeyError, ValueError):
        return
    outcome = Outcome.error(
        OutcomeKind.FAILED,
        "handler_failed",
        "x",
        fingerprint=request.fingerprint,
        traceparent=request.traceparent,
    )
    letter = DeadLetter(request, "handler_failed", "x")
    for written in (request.headers(), outcome.headers(), letter.headers()):
        block = encode("s", "", written, b"").partition(b"\r\n")[2].removesuffix(b"\r\n")
        assert parse_headers(block) == {k: v.strip() for k, v in written.items()}
    assert Outcome.parse(outcome.headers(), outcome.payload()) == outcome
    assert DeadLetter.parse(letter.headers(), b"1") == letter


@given(any_text, any_text)
def test_what_a_handler_said_fits_a_dead_letter_s_headers(code: str, words: str) -> None:
    request = Request("a.1", "totals", "add", None, b"1")
    written = DeadLetter(request, code, words).headers()
    encode("s", "", written, b"")
    assert DeadLetter.parse(written, b"1").request == request


@given(any_text)
def test_a_resource_is_refused_or_read_back_from_its_token(text: str) -> None:
    try:
        token = encode_token(text)
    except InvalidName:
        return
    assert decode_token(token) == text


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(request_id=any_text)
def test_attach_to_any_text_is_refused_or_works(request_id: str, server: EmbeddedNats) -> None:
    async def attach() -> None:
        async with aegis_sdk.connect(server.url, prefix="any") as aegis:
            with pytest.raises((InvalidName, aegis_sdk.OutcomeUnknown)):
                await aegis.attach(request_id, ADD, timeout_s=0.01)
            await aegis._link.flush(timeout_s=2.0)
            assert aegis._link.client.stats["reconnects"] == 0

    asyncio.run(attach())
