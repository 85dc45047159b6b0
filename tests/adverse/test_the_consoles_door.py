"""Control's HTTP side against strangers: pages of other sites, crowds, the slow, and those who send anything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, cast

import pytest
import structlog
from aegis_control.application.operators.console import Console, Shelf
from aegis_control.infrastructure import console_http, http
from aegis_control.infrastructure.console_http import TOKEN_HEADER
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_control.infrastructure.http_connections import BOUNDS, Bounds
from aegis_control.infrastructure.http_origin import OwnNames, name_of
from aegis_control.infrastructure.seldom import Seldom
from aegis_control.settings import SettingsError, load
from aegis_sdk.domain.recorder import Recorder
from aegis_sdk.infrastructure.metrics_server import MetricsServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.control.test_console import Desk

TOKEN: Final = "correct-horse-battery"
ANSWERED_WITHIN_S: Final = 10.0
PAGES = ["/", "/console/main.js", "/api/overview", "/api/history", "/metrics", "/api/explain"]


class Answer:
    def __init__(self, head: bytes, body: bytes) -> None:
        self.status = int(head.split(b" ", 2)[1])
        self.head = head.decode("latin-1").lower()
        self.body = body

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


async def ask(port: int, path: str, *, method: str = "GET", **headers: str) -> Answer:
    """One request over a connection of its own; `_` in a header's name is `-`."""
    sent = {"host": f"127.0.0.1:{port}", "connection": "close", **headers}
    lines = [f"{key.replace('_', '-')}: {value}" for key, value in sent.items()]
    return await say(port, "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode())


async def say(port: int, data: bytes) -> Answer:
    async with asyncio.timeout(ANSWERED_WITHIN_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            return Answer(head, body)
        finally:
            writer.close()


def make_app(console: Console, seldom: Seldom, names: OwnNames | None = None) -> Any:
    return http.make_app(
        metrics=lambda: b"aegis_instances 1\n",
        not_ready=lambda: "",
        history=lambda _: {},
        console=console_http.console_routes(console, TOKEN, seldom),
        names=names or OwnNames("127.0.0.1", ["ops.example.com"]),
        seldom=seldom,
    )


@contextlib.asynccontextmanager
async def door(
    console: Console, names: OwnNames | None = None, bounds: Bounds = BOUNDS
) -> AsyncIterator[int]:
    seldom = Seldom()
    app = make_app(console, seldom, names)
    async with http.serve(app, host="127.0.0.1", port=0, seldom=seldom, bounds=bounds) as port:
        yield port


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with door(Desk().console()) as port:
        yield port


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


# --- pages of other sites --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_whose_name_was_made_to_point_here_reads_nothing(port: int, path: str) -> None:
    """DNS rebinding: for the browser it is the page's own site, but Host is still the page's name."""
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "evil", ""):
        answer = await ask(port, path, host=host)
        assert answer.status == HTTPStatus.FORBIDDEN, host
        assert "AEGIS_CONSOLE_HOSTS" in answer.error
    absent = await say(port, f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert absent.status == HTTPStatus.FORBIDDEN


@pytest.mark.parametrize("path", ["/", "/api/overview", "/metrics"])
async def test_names_and_addresses_of_our_own_are_answered(port: int, path: str) -> None:
    """A scrape or probe by a pod's address among them."""
    own = [
        "localhost",
        "LOCALHOST.:80",
        "127.0.0.1",
        "[::1]:9464",
        "10.244.1.7:9464",
        "ops.example.com",
    ]
    for host in (*own, socket.gethostname()):
        assert (await ask(port, path, host=host)).status == HTTPStatus.OK, host


async def test_probes_are_answered_by_any_name(port: int) -> None:
    for path in ("/livez", "/readyz"):
        for host in ("10.1.2.3:9464", "probe.example", "evil.example"):
            assert (await ask(port, path, host=host)).status == HTTPStatus.OK


def test_beyond_loopback_names_that_no_public_page_can_have_are_ours() -> None:
    names = OwnNames("0.0.0.0")
    assert all(map(names.has, ["control", "control.ipc.svc", "control.ipc.svc.cluster.local"]))
    assert not any(map(names.has, ["evil.example", "svc.evil.example", "xsvc.com", ""]))
    assert not OwnNames("127.0.0.1").has("control")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1", "http://localhost:3000", "", "x"]
)
async def test_a_strange_page_can_neither_read_nor_change(port: int, origin: str) -> None:
    """Another port of this machine is another page; `null` is a page in a sandbox, or from a file."""
    headers: Any = {"origin": origin, TOKEN_HEADER: TOKEN}
    assert (await ask(port, "/api/overview", **headers)).status == HTTPStatus.FORBIDDEN
    answer = await ask(port, "/api/actions/drain", method="POST", **headers)
    assert answer.status == HTTPStatus.FORBIDDEN


async def test_a_strange_page_cannot_make_control_work_by_an_image(port: int) -> None:
    """It sends no Origin for that, and could not read the answer; but control would have searched."""
    for site in ("cross-site", "same-site"):
        answer = await ask(port, "/api/explain?request_id=a.1", sec_fetch_site=site)
        assert answer.status == HTTPStatus.FORBIDDEN
    assert (await ask(port, "/", sec_fetch_site="cross-site")).status == HTTPStatus.OK, "a link"


async def test_our_own_page_may_change_also_behind_a_proxy(port: int) -> None:
    """The proxy keeps Host, or puts its own there; a program sends no Origin at all."""
    token: Any = {TOKEN_HEADER: TOKEN, "content_length": "2"}
    ways: list[Any] = [
        {},
        {"origin": f"http://127.0.0.1:{port}"},
        {"host": "ops.example.com", "origin": "https://ops.example.com"},
        {"origin": "https://ops.example.com"},
    ]
    for way in ways:
        lines = {"host": f"127.0.0.1:{port}", "connection": "close"} | token | way
        head = [f"{k.replace('_', '-')}: {v}" for k, v in lines.items()]
        text = "\r\n".join(["POST /api/actions/drain HTTP/1.1", *head, "", "{}"])
        assert (await say(port, text.encode())).status == HTTPStatus.BAD_REQUEST, "no name given"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_no_text_is_taken_for_our_name_but_our_names(text: str) -> None:
    names = OwnNames("127.0.0.1")
    for host in (text, f"{text}.evil.example", f"localhost@{text}", f"127.0.0.1:{text}.com"):
        name = name_of(host)
        if names.has(name):
            assert (
                name in names._names
                or name.endswith(".localhost")
                or name.strip("0123456789abcdef.:") == ""
            )


@pytest.mark.parametrize("value", ["http://x", "a b", "*.example.com", "x:80", "a/b", "ops..x"])
def test_a_host_name_that_is_none_stops_the_start(value: str) -> None:
    with pytest.raises(SettingsError, match="console_hosts"):
        load({"console_hosts": value})
    assert load({"console_hosts": " a.example , b "}).settings.own_names == ["a.example", "b"]


# --- the token -----------------------------------------------------------------------------------------------


async def test_a_thousand_wrong_tokens_are_a_line_or_two_and_a_handful_of_guesses(
    port: int, logged: list[Any]
) -> None:
    answers = []
    for n in range(300):
        wrong: Any = {TOKEN_HEADER: f"wrong-{n}"}
        answers.append((await ask(port, "/api/actions/drain", method="POST", **wrong)).status)
    assert answers[0] == HTTPStatus.UNAUTHORIZED
    assert answers.count(HTTPStatus.TOO_MANY_REQUESTS) > 250, "the others were not looked at"
    lines = [line for line in logged if line["event"] == "console_token_refused"]
    assert len(lines) <= 2


async def test_a_page_that_leaves_before_its_order_is_whole_is_no_error(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It was a line with a traceback for each."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /api/actions/drain HTTP/1.1\r\nhost: localhost\r\n{TOKEN_HEADER}: {TOKEN}\r\n"
    writer.write(f"{head}content-length: 9\r\n\r\n{{".encode())
    await writer.drain()
    assert (await ask(port, "/livez")).status == HTTPStatus.OK
    writer.close()
    assert (await ask(port, "/api/overview")).status == HTTPStatus.OK
    assert [line for line in caplog.records if line.exc_info] == []


async def test_who_waits_a_second_may_try_again_and_others_need_not_wait() -> None:
    lock = console_http.Lock(TOKEN, Seldom())
    for client, now_s, status in (
        ("a", 0.0, 401),
        ("a", 0.5, 429),
        ("b", 0.5, 401),
        ("a", 1.1, 401),
    ):
        with pytest.raises(console_http._Wrong) as wrong:
            lock.check("wrong", client, now_s)
        assert wrong.value.status == status
    lock.check(TOKEN, "c", 1.2)
    lock.check(TOKEN, "a", 2.2)
    with pytest.raises(console_http._Wrong):
        lock.check(TOKEN + "x", "a", 2.3)


async def test_the_line_about_many_says_how_many(logged: list[Any]) -> None:
    seldom = Seldom(period_s=0.02)
    for n in range(5):
        seldom.warn("e", client=n)
    while len(logged) < 2:  # noqa: ASYNC110 - the loop's timer writes it
        await asyncio.sleep(0.01)
    assert [(line["times"], line["client"]) for line in logged] == [(1, 0), (4, 4)]


# --- work ----------------------------------------------------------------------------------------------------


class SlowShelf:
    """An archive whose every read takes until it is told to go on."""

    def __init__(self) -> None:
        self.reading = 0
        self.most = 0
        self.go_on = asyncio.Event()

    async def services(self) -> list[str]:
        self.reading += 1
        self.most = max(self.most, self.reading)
        await self.go_on.wait()
        self.reading -= 1
        return []

    async def died(self, _: str) -> None:
        return None


async def test_a_crowd_that_asks_for_explanations_is_told_to_come_again() -> None:
    """One search at a time, a few wait, the others are told so; probes are answered meanwhile."""
    desk, shelf = Desk(), SlowShelf()
    console = desk.console()
    console._shelf = cast(Shelf, shelf)
    async with door(console) as port, asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(port, "/api/explain?request_id=a.1")) for _ in range(20)]
        refused = 20 - console_http.EXPLAINING_MAX
        while sum(task.done() for task in asked) < refused:  # noqa: ASYNC110 - the least that ends
            await asyncio.sleep(0.01)
        assert (await ask(port, "/livez")).status == HTTPStatus.OK
        shelf.go_on.set()
        answers = [await task for task in asked]
    busy = [answer for answer in answers if answer.status == HTTPStatus.SERVICE_UNAVAILABLE]
    assert (len(busy), shelf.most) == (refused, 1)
    assert all("retry-after: 1" in answer.head for answer in busy)


async def test_an_explanation_that_reads_for_too_long_ends() -> None:
    console = Desk().console(explain_s_max=0.05)
    console._shelf = cast(Shelf, SlowShelf())
    async with door(console) as port:
        answer = await ask(port, "/api/explain?request_id=a.1")
    assert (answer.status, "ipc-cli explain" in answer.error) == (503, True)


# --- connections -------------------------------------------------------------------------------------------------


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until_closed(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(ANSWERED_WITHIN_S):
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ",
        b"POST /api/actions/drain HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{",
        b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{",
    ],
    ids=[
        "nothing",
        "half a line",
        "half a head",
        "half a body",
        "no second request",
        "unread body",
    ],
)
async def test_who_keeps_us_waiting_is_cut_off(sent: bytes) -> None:
    bounds = Bounds(request_s=0.2, answer_s=0.3)
    async with door(Desk().console(), bounds=bounds) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        await until_closed(reader)
        writer.close()


async def test_a_byte_now_and_then_keeps_no_connection() -> None:
    """Slowloris."""
    async with door(Desk().console(), bounds=Bounds(request_s=0.3)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        closed = asyncio.create_task(until_closed(reader))
        while not closed.done():
            writer.write(b"x")
            await asyncio.sleep(0.02)
        writer.close()


async def test_who_does_not_read_the_answer_is_cut_off() -> None:
    seldom, bounds = Seldom(), Bounds(request_s=0.3, answer_s=0.3)
    app = http.make_app(
        metrics=lambda: b"x" * 50_000_000,
        not_ready=lambda: "",
        history=lambda _: {},
        console=[],
        names=OwnNames("127.0.0.1"),
        seldom=seldom,
    )
    async with http.serve(app, host="127.0.0.1", port=0, seldom=seldom, bounds=bounds) as port:
        with socket.create_connection(("127.0.0.1", port)) as unread:
            unread.sendall(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")
            await asyncio.sleep(0.05)
            before = open_files()
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                while open_files() >= before:  # noqa: ASYNC110 - the system tells it
                    await asyncio.sleep(0.02)


async def test_idle_connections_have_a_bound_and_keep_nobody_out(logged: list[Any]) -> None:
    """The newest come in, at the cost of those that waited longest; in one line of the log."""
    async with door(Desk().console(), bounds=Bounds(connections_max=8)) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        assert (await ask(port, "/livez")).status == HTTPStatus.OK
        assert (await ask(port, "/api/overview")).status == HTTPStatus.OK
        for reader, _ in held[:30]:
            await until_closed(reader)
        for _, writer in held:
            writer.close()
    assert [line["event"] for line in logged] == ["http_connections_full"]


def test_idle_connections_at_a_processs_own_metrics_have_a_bound_too() -> None:
    """An instance needs its open files for NATS."""
    server = MetricsServer(Recorder(), host="127.0.0.1", port=0)
    before = open_files()
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
    with contextlib.suppress(ConnectionError):
        held[-1].settimeout(ANSWERED_WITHIN_S)
        assert held[-1].recv(1) == b"", "beyond the bound it is closed"
    assert open_files() - before - len(held) < 20
    for one in held:
        one.close()
    server.stop()


@pytest.mark.scenario
async def test_idle_connections_of_strangers_do_not_keep_control_from_coming_back(
    tmp_path: Path,
) -> None:
    """80 of them, with 64 open files allowed, while NATS is restarted."""

    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = int(listening.getsockname()[1])
    with EmbeddedNats(tmp_path / "nats") as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "aegis_control.entrypoints.service", "serve"),
            *("--url", server.url, "--system-url", server.system_url, "--http-port", str(port)),
            stderr=asyncio.subprocess.DEVNULL,
            preexec_fn=few_files,
        )
        try:
            await until_ready(port)
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(80)]
            server.kill()
            await until_ready(port, ready=False)
            held += [await asyncio.open_connection("127.0.0.1", port) for _ in range(80)]
            await asyncio.to_thread(server.start)
            await until_ready(port)
            for _, writer in held:
                writer.close()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                assert await process.wait() == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


async def until_ready(port: int, *, ready: bool = True) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError, IndexError):
                if ((await ask(port, "/readyz")).status == HTTPStatus.OK) is ready:
                    return
            await asyncio.sleep(0.05)


# --- anything ----------------------------------------------------------------------------------------------------


class Steady:
    """A door in a thread, for many examples. `wrong` is what its loop complained about."""

    def __init__(self) -> None:
        self.port = 0
        self.wrong: list[Any] = []
        self._open = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._close = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()))
        self._thread.start()
        assert self._open.wait(ANSWERED_WITHIN_S)

    async def _run(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: self.wrong.append(told))
        async with door(Desk().console()) as self.port:
            self._open.set()
            await self._close.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._close.set)
        self._thread.join(ANSWERED_WITHIN_S)


@pytest.fixture(scope="module")
def steady() -> Iterator[Steady]:
    with structlog.testing.capture_logs():
        made = Steady()
        yield made
        made.stop()


async def test_pipelined_requests_are_answered_in_their_order(port: int) -> None:
    head = f"HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
    paths = ["/livez", "/nothing", "/api/events?after=x"] * 10
    sent = (
        "".join(f"GET {path} {head}\r\n" for path in paths)
        + f"GET /readyz {head}connection: close\r\n\r\n"
    )
    async with asyncio.timeout(ANSWERED_WITHIN_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent.encode())
        told = await reader.read()
        writer.close()
    statuses = [int(part[:3]) for part in told.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 404, 400] * 10 + [200]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/", 200),
        ("HEAD", "/api/overview", 200),
        ("OPTIONS", "/api/overview", 405),
        ("TRACE", "/", 405),
        ("PUT", "/api/actions/drain", 405),
        ("CONNECT", "/", 405),
        ("GET", "/console/../settings.py", 404),
        ("GET", "/console/%2e%2e/settings.py", 404),
        ("GET", "/console/%2fetc%2fpasswd", 404),
        ("GET", "/console/", 404),
        ("GET", "//evil.example/", 404),
        ("GET", "/%00", 404),
        ("GET", "/api/history?after_s=nan", 200),
        ("GET", "/api/history?after_s=-inf", 200),
        ("GET", f"/api/resources?offset={'9' * 400}", 400),
        ("GET", f"/api/resources?offset={'9' * 5000}", 400),
        ("GET", "/api/resources?text=%ff%00", 200),
        ("GET", "/api/resources?limit=1e999", 400),
        ("GET", "/api/resources?service=%ed%a0%80", 200),
        ("GET", "/api/events?after=%d9%a3", 400),
        ("GET", "/api/explain?request_id=a.1%0d%0a", 400),
        ("GET", f"/api/explain?request_id={'x' * 5000}", 400),
    ],
)
async def test_odd_questions_have_plain_answers(
    port: int, method: str, path: str, status: int, logged: list[Any]
) -> None:
    answer = await ask(port, path, method=method)
    assert answer.status == status, answer.body
    if method == "HEAD":
        assert answer.body == b""


@pytest.mark.parametrize("where", ["path", "header", "headers"])
async def test_a_head_has_a_bound(port: int, where: str) -> None:
    """What is sent beyond it is not read: the connection may be reset before the answer is."""
    many, lines = "x" * 400_000, "a: b\r\n" * 70_000
    path, more = (f"/livez?{many}", "") if where == "path" else ("/livez", f"a: {many}\r\n")
    more = lines if where == "headers" else more
    with contextlib.suppress(ConnectionError):
        answer = await say(port, f"GET {path} HTTP/1.1\r\nhost: a\r\n{more}\r\n".encode())
        assert answer.status == HTTPStatus.BAD_REQUEST
    assert (await ask(port, "/livez")).status == HTTPStatus.OK


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from(
                [
                    b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n",
                    b"GET /api/history HTTP/1.1\r\nhost: localhost\r\n",
                    b"POST /api/actions/drain HTTP/1.1\r\nhost: localhost\r\n",
                    b"x-aegis-console-token: correct-horse-battery\r\n",
                    b"content-length: 5\r\n",
                    b"content-length: -1\r\n",
                    b"transfer-encoding: chunked\r\n",
                    b"upgrade: websocket\r\nconnection: upgrade\r\n",
                    b"expect: 100-continue\r\n",
                    b"\r\n",
                    b"5\r\nabcde\r\n0\r\n\r\n",
                    b"GET http://evil.example/ HTTP/1.1\r\n",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                    b"\x16\x03\x01\x02\x00\x01",
                ]
            ),
        ),
        max_size=8,
    )
)
def test_whatever_bytes_come_the_next_one_is_answered(steady: Steady, pieces: list[bytes]) -> None:
    stranger = socket.create_connection(("127.0.0.1", steady.port))
    with stranger, contextlib.suppress(ConnectionError):
        for piece in pieces:
            stranger.sendall(piece)
    with socket.create_connection(("127.0.0.1", steady.port), timeout=ANSWERED_WITHIN_S) as probe:
        probe.sendall(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert probe.recv(12) == b"HTTP/1.1 200"
    assert not steady.wrong, steady.wrong
