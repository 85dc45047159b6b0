"""What NATS refuses is named, at once and where it was met; what can come back does, and what can't ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import aegis_sdk
import nkeys
import pytest
from aegis_control.bootstrap import Control
from aegis_control.infrastructure.embedded_nats import free_ports
from aegis_sdk import OutcomeUnknown, RefusedByNats, Role, Unavailable
from aegis_sdk.log_line import Line
from aegis_sdk.nats import connection

from tests.adverse.support_doors import ADD, DOUBLE, Guarded, totals
from tests.adverse.test_secrets import run_control
from tests.integration.cli.support import run_cli
from tests.integration.control.support import control, settings, until
from tests.integration.login.support import Files, new_key, public

PASSWORD: Final = (
    'authorization {{ users = [{{ user: u, password: "{}" }}, {{ user: c, password: c }}] }}'
)
LIMITED: Final = (
    "authorization {{ users = ["
    "{{ user: u, password: one, permissions: {{ {} }} }}, {{ user: c, password: c }}] }}"
)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    server = Guarded(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LOGIN_GRACE_S", 0.5)


def warnings(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The SDK's lines at warning level or above."""
    return [
        record.msg
        for record in caplog.records
        if isinstance(record.msg, Line) and record.levelno >= logging.WARNING
    ]


@contextlib.asynccontextmanager
async def serving(guarded: Guarded) -> AsyncIterator[aegis_sdk.Aegis]:
    """Control, an instance of `totals`, and a caller, who all log in as u with the password one."""
    url = f"nats://{guarded.host}"
    async with (
        control(url, "aegis", user="c", password="c"),
        aegis_sdk.connect(url, user="u", password="one") as aegis,
    ):
        yield aegis


# --- logins ---------------------------------------------------------------------------------------------------
async def test_a_login_that_is_refused_for_a_while_comes_back(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    """A password that is changed, and changed back within the grace: nothing is closed for good."""
    guarded.start(PASSWORD.format("one"))
    async with serving(guarded) as aegis:
        instance = await aegis.serve(totals(), resources={"T-1": Role.AUTO})
        assert await aegis.request(ADD, 1, resource="T-1") == 1
        guarded.reload(PASSWORD.format("two"))
        with pytest.raises(OutcomeUnknown, match="NATS refused: Authorization Violation"):
            await aegis.request(ADD, 1, resource="T-1", timeout_s=0.3, key="doubt")
        guarded.reload(PASSWORD.format("one"))
        again = aegis.request(ADD, 1, resource="T-1", timeout_s=15.0)
        assert await again in (2, 3), "the one in doubt may be before it"
        assert not instance._link.hopeless.done()
    said = [line for line in warnings(caplog) if line["event"] == "nats_refused"]
    assert {line["reason"] for line in said} == {"Authorization Violation"}
    assert len(said) <= 5, "one for each connection"


@pytest.mark.usefixtures("short_grace")
async def test_a_login_that_is_refused_for_good_ends_serve_forever(guarded: Guarded) -> None:
    """The process's supervisor starts it again, with a password that is right."""
    guarded.start(PASSWORD.format("one"))
    async with serving(guarded) as aegis:
        instance = await aegis.serve(totals(), resources={"T-1": Role.AUTO})
        serving_ = asyncio.create_task(instance.serve_forever(signals=False))
        guarded.reload(PASSWORD.format("two"))
        with pytest.raises(RefusedByNats, match="Authorization Violation"):
            async with asyncio.timeout(10.0):
                await serving_
    gc.unfreeze()


@pytest.mark.usefixtures("short_grace")
async def test_control_ends_when_its_login_is_refused_for_good(guarded: Guarded) -> None:
    guarded.start(PASSWORD.format("one"))
    url = f"nats://{guarded.host}"
    replica = Control(settings(url, "aegis", user="u", password="one"))
    running = asyncio.create_task(replica.run())
    await replica.started.wait()
    guarded.reload(PASSWORD.format("two"))
    with pytest.raises(RefusedByNats, match="Authorization Violation"):
        async with asyncio.timeout(10.0):
            await running
    with pytest.raises(RefusedByNats, match="Authorization Violation"):
        async with control(url, "aegis", user="u", password="one"):
            pass


def test_control_says_a_refused_login_in_one_line_and_a_code(guarded: Guarded) -> None:
    guarded.start(PASSWORD.format("one"))
    url = f"nats://u:wrong@{guarded.host}"
    said = run_control("serve", "--url", url, "--no-wait", "--http-port", "0")
    assert said.returncode == 5, said.stderr
    [line] = [each for each in said.stderr.splitlines() if not each.startswith("{")]
    assert "NATS refused: Authorization Violation" in line


async def test_a_connection_that_is_refused_says_why(guarded: Guarded) -> None:
    guarded.start(PASSWORD.format("one"))
    with pytest.raises(Unavailable, match="NATS refused: Authorization Violation"):
        async with aegis_sdk.connect(f"nats://u:wrong@{guarded.host}"):
            pass


async def test_a_seed_is_read_again_from_its_file(guarded: Guarded, tmp_path: Path) -> None:
    """Rotated credentials: refused until the file has the new ones, however long that takes."""
    keys = [new_key(nkeys.PREFIX_BYTE_USER) for _ in range(2)]
    users = [
        f"authorization {{ users = [{{ nkey: {public(pair)} }}, {{ user: c, password: c }}] }}"
        for pair, _ in keys
    ]
    file = tmp_path / "seed.nk"
    file.write_bytes(keys[0][1])
    guarded.start(users[0])
    url = f"nats://{guarded.host}"
    async with control(url, "aegis", user="c", password="c"):  # noqa: SIM117 - one after the other
        async with aegis_sdk.connect(url, nkeys_seed=str(file)) as aegis:
            await aegis.serve(totals(), resources={"T-1": Role.AUTO})
            assert await aegis.request(ADD, 1, resource="T-1") == 1
            guarded.reload(users[1])
            await until_refused(aegis)
            for half_written in (b"", b"SU", None):
                file.unlink() if half_written is None else file.write_bytes(half_written)
                await asyncio.sleep(0.2)
            file.write_bytes(keys[1][1])
            assert await aegis.request(ADD, 1, resource="T-1", timeout_s=15.0) == 2


async def until_refused(aegis: aegis_sdk.Aegis) -> None:
    async def refused() -> bool:
        return aegis._link.trouble.startswith("NATS refused")

    await until(refused, "the server refuses the old login")


# --- permissions ----------------------------------------------------------------------------------------------
async def test_a_caller_without_the_right_to_ask_is_told_so_at_once(guarded: Guarded) -> None:
    """The subject is named, and it is no timeout: it takes a fraction of the deadline."""
    guarded.start(
        LIMITED.format('publish: { deny: ["aegis.req.totals.at.T-1", "aegis.at.totals.T-1"] }')
    )
    url = f"nats://{guarded.host}"
    async with (
        control(url, "aegis", user="c", password="c"),
        aegis_sdk.connect(url, user="c", password="c") as other,
        aegis_sdk.connect(url, user="u", password="one") as caller,
    ):
        await other.serve(totals(), resources={"T-1": Role.AUTO, "T-2": Role.AUTO})
        named = r'Publish to "aegis\.req\.totals\.at\.T-1"'
        for ask in (caller.request, caller.submit):
            begun_s = time.monotonic()
            with pytest.raises(RefusedByNats, match=named):
                await ask(ADD, 1, resource="T-1", timeout_s=20.0)
            assert time.monotonic() - begun_s < 5.0
        assert await caller.request(ADD, 1, resource="T-2") == 1
        guarded.reload(LIMITED.format(""))
        assert await caller.request(ADD, 1, resource="T-1") == 1


@pytest.mark.parametrize(
    ("rights", "named"),
    [
        ('publish: { deny: "$JS.API.CONSUMER.>" }', r"\$JS\.API\.CONSUMER"),
        ('publish: { deny: "$JS.API.>" }', r"\$JS\.API"),
        ('publish: { deny: "aegis.ctl.register" }', r"aegis\.ctl\.register"),
        ('publish: { deny: "aegis.jrn.>" }', r"aegis\.jrn\."),
        ('subscribe: { deny: "_INBOX.>" }', r"_INBOX\."),
        ('subscribe: { deny: "aegis.ctl.inst.>" }', r"aegis\.ctl\.inst\."),
    ],
)
async def test_an_instance_that_lacks_a_right_does_not_start_and_names_it(
    guarded: Guarded, rights: str, named: str
) -> None:
    guarded.start(LIMITED.format(rights))
    url = f"nats://{guarded.host}"
    async with control(url, "aegis", user="c", password="c"):
        begun_s = time.monotonic()
        with pytest.raises(RefusedByNats, match=named):
            async with aegis_sdk.connect(url, user="u", password="one") as aegis:
                await aegis.serve(totals(), resources={"T-1": Role.AUTO}, wait_s=20.0)
        assert time.monotonic() - begun_s < 5.0


async def test_what_an_instance_does_not_need_may_be_forbidden(guarded: Guarded) -> None:
    """Without `$SRV` it isn't in other tools' lists, and without metrics not in control's: it serves."""
    rights = 'publish: { deny: "aegis.met.>" }, subscribe: { deny: "$SRV.>" }'
    guarded.start(LIMITED.format(rights))
    async with serving(guarded) as aegis:
        await aegis.serve(totals(), resources={"T-1": Role.AUTO})
        assert await aegis.request(ADD, 1, resource="T-1") == 1


async def test_rights_that_are_taken_and_given_back_need_no_restart(
    guarded: Guarded, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SUBSCRIBE_AGAIN_S", 0.2)
    guarded.start(LIMITED.format(""))
    async with serving(guarded) as aegis:
        await aegis.serve(totals(), resources={"T-1": Role.AUTO})
        assert await aegis.request(ADD, 1, resource="T-1") == 1
        taken = 'publish: { deny: "$JS.API.>" }, subscribe: { deny: "_INBOX.>" }'
        guarded.reload(LIMITED.format(taken))
        with pytest.raises((OutcomeUnknown, RefusedByNats), match="_INBOX"):
            await aegis.request(ADD, 1, resource="T-1", timeout_s=0.5, key="doubt")
        guarded.reload(LIMITED.format(""))
        assert await aegis.request(ADD, 1, resource="T-1", timeout_s=15.0) in (2, 3)
    forbade = [line for line in warnings(caplog) if line["event"] == "nats_forbade"]
    assert any(line["subject"].startswith("_INBOX.") for line in forbade)


@pytest.mark.parametrize("right", ["$JS.API.CONSUMER.>", "$JS.API.STREAM.INFO.>"])
async def test_a_standby_that_lacks_a_right_when_it_takes_over_serves_once_it_has_it(
    guarded: Guarded, right: str
) -> None:
    """G8: the reader that its promotion needs is made whenever it may be."""
    guarded.start(LIMITED.format(""))
    async with serving(guarded) as aegis, freely(guarded) as free:
        first = await free.serve(totals(), resources={"T-1": Role.AUTO})
        standby = await aegis.serve(totals(), resources={"T-1": Role.AUTO})
        assert await free.request(ADD, 1, resource="T-1") == 1
        guarded.reload(LIMITED.format(f'publish: {{ deny: "{right}" }}'))
        await first.drain()
        await until_active(standby)
        guarded.reload(LIMITED.format(""))
        assert await free.request(ADD, 1, resource="T-1", timeout_s=10.0) == 2


async def test_an_active_that_lacks_a_right_when_it_is_replaced_follows_all_the_same(
    guarded: Guarded,
) -> None:
    """G6: its reader goes on, so it reads what the other commits and can take over again."""
    guarded.start(LIMITED.format(""))
    async with serving(guarded) as aegis, freely(guarded) as free:
        first = await aegis.serve(totals(), resources={"T-1": Role.AUTO})

        assert await free.request(ADD, 1, resource="T-1") == 1
        second = await free.serve(totals(), resources={"T-1": Role.AUTO}, instance_id="second")
        guarded.reload(LIMITED.format('publish: { deny: "$JS.API.CONSUMER.CREATE.>" }'))
        await run_cli("failover", "T-1", "--to", "second", "--url", f"nats://c:c@{guarded.host}")
        await until_active(second)
        assert await free.request(ADD, 1, resource="T-1") == 2
        await second.drain()
        await until_active(first)
        assert await free.request(ADD, 1, resource="T-1", timeout_s=10.0) == 3


def freely(guarded: Guarded) -> contextlib.AbstractAsyncContextManager[aegis_sdk.Aegis]:
    """A client with all rights."""
    return aegis_sdk.connect(f"nats://{guarded.host}", user="c", password="c")


async def until_active(instance: aegis_sdk.Instance) -> None:
    async def active() -> bool:
        return instance.active_resources == ["T-1"]

    await until(active, f"{instance.id} takes over")


async def test_a_right_that_each_request_misses_is_said_once(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    """Each acknowledgement has a subject of its own; a line for each would be a flood."""
    guarded.start(LIMITED.format('publish: { deny: "$JS.ACK.>" }'))
    async with serving(guarded) as aegis:
        await aegis.serve(totals(), resources={"T-1": Role.AUTO})
        for n in range(30):
            ticket = await aegis.submit(DOUBLE, n)
            assert await aegis.attach(ticket.id, DOUBLE) == 2 * n

        async def said() -> bool:
            return any(line["event"] == "nats_forbade" for line in warnings(caplog))

        await until(said, "the right is named")
    forbade = [line for line in warnings(caplog) if line["event"] == "nats_forbade"]
    assert len(forbade) == 1
    assert forbade[0]["subject"].startswith("$JS.ACK.")


async def test_control_that_may_not_make_streams_ends_and_names_the_right(guarded: Guarded) -> None:
    guarded.start(LIMITED.format('publish: { deny: "$JS.API.STREAM.CREATE.>" }'))
    url = f"nats://u:one@{guarded.host}"
    said = await asyncio.to_thread(run_control, "serve", "--url", url, "--http-port", "0")
    assert said.returncode == 1, said.stderr
    [line] = [each for each in said.stderr.splitlines() if not each.startswith("{")]
    assert 'Publish to "$JS.API.STREAM.CREATE.' in line


async def test_ipc_cli_names_the_right_that_it_lacks(guarded: Guarded) -> None:
    guarded.start(LIMITED.format('publish: { deny: ["aegis.ctl.admin.>", "$JS.API.>"] }'))
    url = f"nats://u:one@{guarded.host}"
    for arguments, subject in (
        (("status",), "aegis.ctl.admin.status"),
        (("dlq", "list"), "$JS.API."),
        (("explain", "a.1"), "$JS.API."),
    ):
        begun_s = time.monotonic()
        said = await run_cli(*arguments, "--url", url, "--timeout", "20")
        assert said.code in (4, 5), said
        assert subject in said.err
        assert said.err.count("\n") == 1
        assert time.monotonic() - begun_s < 10.0


# --- limits, certificates, addresses ----------------------------------------------------------------------------
async def test_a_limit_of_connections_is_named_and_waited_for(guarded: Guarded) -> None:
    guarded.start("max_connections: 1")
    url = f"nats://{guarded.host}"
    async with aegis_sdk.connect(url):
        with pytest.raises(Unavailable, match=r"(?i)maximum connections exceeded"):
            async with aegis_sdk.connect(url):
                pass
    async with aegis_sdk.connect(url, wait_s=5.0):
        pass


async def test_a_certificate_of_a_new_authority_is_named_and_its_files_are_read_again(
    guarded: Guarded, tmp_path: Path
) -> None:
    old, new = (Files.make(_folder(tmp_path, name)) for name in ("old", "new"))
    tls = (
        'tls {{ cert_file: "{0.server}", key_file: "{0.server}", ca_file: "{0.ca}", verify: true }}'
    )
    current = Files(*(tmp_path / f"{name}.pem" for name in ("ca", "server", "client")))
    _copy(old, current)
    guarded.start(tls.format(old))
    url = f"nats://{guarded.host}"
    async with (
        control(url, "aegis", tls_ca=str(current.ca), tls_cert=str(current.client)),
        aegis_sdk.connect(url, tls=current.context) as aegis,
    ):
        await aegis.serve(totals(), resources={"T-1": Role.AUTO})
        assert await aegis.request(ADD, 1, resource="T-1") == 1
        guarded.stop()
        guarded.start(tls.format(new))

        async def failed() -> bool:
            return "CERTIFICATE_VERIFY_FAILED" in aegis._link.trouble

        await until(failed, "the new certificate is not trusted")
        _copy(new, current)
        assert await aegis.request(ADD, 1, resource="T-1", timeout_s=20.0) == 2


def _folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name


def _copy(source: Files, target: Files) -> None:
    target.ca.write_bytes(source.ca.read_bytes())
    target.client.write_bytes(source.client.read_bytes())


async def test_advertised_addresses_that_are_out_of_reach_hold_nobody_up(
    guarded: Guarded, tmp_path: Path
) -> None:
    """A server names addresses that swallow what is sent to them: the one that was given is tried first."""
    far = Guarded(_folder(tmp_path, "far"))
    ports = free_ports(2)
    cluster = "cluster {{ name: wide, listen: 127.0.0.1:{}, routes: [nats-route://127.0.0.1:{}] }}"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        advertised = f"127.0.0.1:{silent.getsockname()[1]}"
        near = ("server_name: near", cluster.format(*ports))
        far.start(
            "server_name: far", cluster.format(*ports[::-1]), f'client_advertise: "{advertised}"'
        )
        guarded.start(*near)
        try:
            async with aegis_sdk.connect(f"nats://{guarded.host}") as aegis:
                link = aegis._link

                async def told() -> bool:
                    return advertised in {one.uri.netloc for one in link.client._server_pool}

                await until(told, "the server tells of the other one")
                for times in (1, 2, 3):
                    guarded.stop()
                    guarded.start(*near)

                    async def back(times: int = times) -> bool:
                        return link.is_connected and link.client.stats["reconnects"] >= times

                    await until(back, "connected again", deadline_s=2.5)
        finally:
            far.stop()


# --- a server that has no time --------------------------------------------------------------------------------
class Door:
    """In front of a server. While `word` is set, who comes in is told so, and sent away."""

    INFO = b'INFO {"server_id":"D","version":"2.15.1","max_payload":1048576,"headers":true,"proto":1}\r\n'

    def __init__(self, port: int) -> None:
        self._port = port
        self._inside: set[asyncio.StreamWriter] = set()
        self.word = b""
        self.silent = 0
        """So many of those who are sent away are not told why."""
        self.refused = 0
        self.was_asked = asyncio.Event()

    async def __aenter__(self) -> Door:
        self._server = await asyncio.start_server(self._enter, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.empty()

    @property
    def host(self) -> str:
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def has_refused(self) -> bool:
        return self.refused >= 12

    def empty(self) -> None:
        for writer in self._inside:
            writer.close()
        self._inside.clear()

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if self.word:
                self.refused += 1
                self.was_asked.set()
                said = b"-ERR '%b'\r\n" % self.word if self.refused > self.silent else b""
                writer.write(self.INFO + said)
                await writer.drain()
                writer.close()
                return
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._port)
            self._inside |= {writer, ours}
            await asyncio.gather(_pipe(reader, ours), _pipe(theirs, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


BUSY: Final = [
    b"Authentication Timeout",
    b"Connection throttling is active. Please try again later.",
    b"Server Shutdown",
]


@pytest.mark.parametrize("word", BUSY)
async def test_serve_waits_for_a_server_that_has_no_time(guarded: Guarded, word: bytes) -> None:
    """It said nothing of the login; `wait_s` is for NATS as it is for control."""
    guarded.start(PASSWORD.format("one"))
    async with Door(int(guarded.host.rpartition(":")[2])) as door, serving(guarded):
        url = f"nats://{door.host}"
        async with aegis_sdk.connect(url, user="u", password="one") as aegis:
            door.word = word
            starting = asyncio.create_task(
                aegis.serve(totals(), resources={"T-1": Role.AUTO}, wait_s=20.0)
            )
            await door.was_asked.wait()
            door.word = b""
            await starting
            assert await aegis.request(ADD, 1, resource="T-1") == 1


@pytest.mark.parametrize("word", BUSY)
async def test_a_server_that_has_no_time_is_not_told_as_one_that_refuses_the_login(
    word: bytes,
) -> None:
    async with Door(0) as door:
        door.word = word
        with pytest.raises(Unavailable) as told:
            async with aegis_sdk.connect(f"nats://{door.host}", wait_s=0.0):
                pass
    assert type(told.value) is Unavailable
    assert word.decode() in str(told.value)


async def test_a_reason_that_is_lost_with_its_connection_is_asked_for_again() -> None:
    """The system may drop what a server said before it closed."""
    async with Door(0) as door:
        door.word, door.silent = b"maximum connections exceeded", 3
        with pytest.raises(RefusedByNats, match="maximum connections exceeded"):
            async with aegis_sdk.connect(f"nats://{door.host}"):
                pass


async def test_a_server_that_never_says_why_it_closes_has_a_log_to_look_into() -> None:
    async with Door(0) as door:
        door.word, door.silent = b"nobody hears this", 1_000
        with pytest.raises(Unavailable, match="its own log says why"):
            async with aegis_sdk.connect(f"nats://{door.host}", wait_s=0):
                pass
    assert 1 < door.refused <= connection.UNTOLD_MAX + 1


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize(
    "word", [BUSY[0], *(pytest.param(word, marks=pytest.mark.slow) for word in BUSY[1:])]
)
async def test_a_server_that_has_no_time_for_long_is_no_refused_login(
    guarded: Guarded, word: bytes
) -> None:
    """Instances come back to it, however long it takes."""
    guarded.start(PASSWORD.format("one"))
    async with Door(int(guarded.host.rpartition(":")[2])) as door, serving(guarded):
        url = f"nats://{door.host}"
        async with aegis_sdk.connect(url, user="u", password="one") as aegis:
            instance = await aegis.serve(totals(), resources={"T-1": Role.AUTO})
            door.word = word
            door.empty()
            await until(door.has_refused, "all connections refused for longer than the grace")
            assert not instance._link.hopeless.done()
            door.word = b""
            assert await aegis.request(ADD, 1, resource="T-1", timeout_s=15.0) == 1


@pytest.mark.parametrize(
    ("reason", "final"),
    [
        ("Authorization Violation", True),
        ("User Authentication Expired", True),
        ("User Authentication Revoked", True),
        ("Secure Connection - TLS Required", True),
        ("TLS failed: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", True),
        ("Authentication Timeout", False),
        ("maximum connections exceeded", False),
        ("Maximum Account Active Connections Exceeded", False),
        ("Connection throttling is active. Please try again later.", False),
        ("broke off in the TLS handshake: EOF occurred in violation of protocol", False),
        ("Slow Consumer", False),
    ],
)
def test_what_is_said_of_a_login_and_what_is_not(reason: str, final: bool) -> None:
    """Only the first kind will be said again to the same login."""
    assert connection._is_of_login(reason) is final
