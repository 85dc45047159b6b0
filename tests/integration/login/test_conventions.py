"""What users of NATS have beside a login: leaf nodes with a JetStream domain, inboxes of their own, contexts."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aegis_sdk
import nats
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats, free_port
from aegis_sdk import RegistrationRefused, Role
from aegis_sdk.errors import InvalidAddress, InvalidArgument

from tests.adverse.support_doors import ADD, DOUBLE, Guarded, totals
from tests.adverse.test_secrets import run_control
from tests.integration.cli.support import run_cli
from tests.integration.control.support import control

SPOKE = """
listen: {host}
log_file: "{log}"
leafnodes {{ remotes: [{{ url: "nats://{hub}" }}] }}
"""
APART = """
authorization {
  users = [
    { user: c, password: c }
    { user: app, password: a, permissions: { subscribe: { deny: ["_INBOX.>"] } } }
  ]
}
"""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    server = Guarded(tmp_path)
    yield server
    server.stop()


class Spoke(Guarded):
    """A server without JetStream, with a leaf node's connection to `hub`."""

    hub = ""

    def _write(self, sections: tuple[str, ...]) -> None:
        self._config.write_text(SPOKE.format(host=self.host, log=self._log, hub=self.hub))


async def test_all_of_it_works_behind_a_leaf_node(guarded: Guarded, tmp_path: Path) -> None:
    """Instances and callers on a server without JetStream; the streams are in the hub's domain."""
    leafs = free_port()
    hub = 'jetstream {{ store_dir: "{}", domain: hub }}'.format(tmp_path / "store")
    guarded.start(hub, f'leafnodes {{ listen: "127.0.0.1:{leafs}" }}')
    (tmp_path / "spoke").mkdir()
    spoke = Spoke(tmp_path / "spoke")
    spoke.hub = f"127.0.0.1:{leafs}"
    spoke.start()
    try:
        near = f"nats://{spoke.host}"
        async with (
            control(f"nats://{guarded.host}", "aegis"),
            aegis_sdk.connect(near, domain="hub") as app,
            aegis_sdk.connect(near, domain="hub") as caller,
        ):
            await app.serve(totals(), resources={"T-1": Role.AUTO})
            assert await caller.request(ADD, 2, resource="T-1", timeout_s=20.0) == 2
            ticket = await caller.submit(ADD, 3, resource="T-1", key="k-1", timeout_s=20.0)
            assert await caller.attach(ticket.id, ADD, timeout_s=20.0) == 5
            assert await caller.request(DOUBLE, 4, timeout_s=20.0) == 8
            shown = await run_cli(
                "--url", near, "--domain", "hub", "explain", ticket.id, "-o", "json"
            )
            assert shown.code == 0, shown.err
    finally:
        spoke.stop()


@pytest.mark.parametrize("who", ["an instance", "control"])
async def test_inboxes_of_its_own_are_enough(guarded: Guarded, tmp_path: Path, who: str) -> None:
    """Users of one account are kept apart by what they may listen to."""
    domain = 'jetstream {{ store_dir: "{}", domain: hub }}'.format(tmp_path / "store")
    guarded.start(domain, APART)
    url = f"nats://{guarded.host}"
    login: dict[str, Any] = {"user": "c", "password": "c"}
    own = {"user": "app", "password": "a", "domain": "hub", "inbox_prefix": "_INBOX_app"}
    async with (
        control(url, "aegis", **(own if who == "control" else login)),
        aegis_sdk.connect(url, **(login if who == "control" else own)) as app,
    ):
        await app.serve(totals(), resources={"T-1": Role.AUTO})
        assert await app.request(ADD, 2, resource="T-1", timeout_s=20.0) == 2


@pytest.mark.parametrize(
    "wrong", [{"domain": "a b"}, {"domain": "a.b"}, {"inbox_prefix": "_INBOX.>"}, {"domain": 5}]
)
async def test_what_can_t_be_one_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        async with aegis_sdk.connect("nats://127.0.0.1:1", **wrong):
            pass


# --- contexts of the nats command --------------------------------------------------------------------------------
def context(folder: Path, name: str, **content: str) -> dict[str, str]:
    """Keep one; the environment in which it is found."""
    path = folder / "nats" / "context" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"description": "", "nsc": "", **content}))
    return {"XDG_CONFIG_HOME": str(folder)}


async def test_ipc_cli_takes_a_context_of_the_nats_command(
    guarded: Guarded, tmp_path: Path
) -> None:
    domain = 'jetstream {{ store_dir: "{}", domain: hub }}'.format(tmp_path / "store")
    guarded.start(domain, APART)
    url = f"nats://{guarded.host}"
    own = {"user": "app", "password": "a", "jetstream_domain": "hub", "inbox_prefix": "_INBOX_app"}
    env = context(tmp_path, "desk", url=url, **own)
    async with control(url, "aegis", user="c", password="c"):
        before = await run_cli("--context", "desk", "list-services", env=env)
        behind = await run_cli("list-services", "--context", "desk", env=env)
        named = await run_cli("list-services", env=env | {"AEGIS_CONTEXT": "desk"})
        other = await run_cli("--context", "desk", "--user", "nobody", "list-services", env=env)
    assert [before.code, behind.code, named.code] == [0, 0, 0], (before, behind, named)
    assert other.code == 5, other


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("mine", {"nsc": "nsc://op/acc/user"}, "sets nsc, which is not supported"),
        ("mine", {"socks_proxy": "socks5://x"}, "sets socks_proxy, which is not supported"),
        ("other", {}, "no context 'other' in .*; there are: mine"),
        ("../x", {}, "can't be the name of a context"),
    ],
)
async def test_a_context_that_can_t_be_taken_is_one_line(
    tmp_path: Path, name: str, content: dict[str, str], told: str
) -> None:
    env = context(tmp_path, "mine", url="nats://127.0.0.1:1", **content)
    for arguments in (("--context", name, "status"), ("status", "--context", name)):
        result = await run_cli(*arguments, env=env)
        assert result.code == 2
        assert len(result.err.strip().splitlines()) == 1
        assert re.search(told, result.err), result.err


# --- accounts with bounds --------------------------------------------------------------------------------
BOUNDED = """
accounts {
  APP {
    users: [{ user: u, password: one }]
    jetstream: { max_file: 64MB, max_bytes_required: true, disk_max_stream_bytes: 8MB }
  }
}
"""
ENOUGH = {"stream_max_bytes": 2 << 20, "events_max_bytes": 1 << 20}


async def test_an_account_that_demands_a_bound_on_each_stream_has_one(guarded: Guarded) -> None:
    """Calls, what is submitted, and a restart of control, which finds all as it should be."""
    guarded.start(BOUNDED)
    url = f"nats://u:one@{guarded.host}"
    for total in (3, 8):
        async with (
            control(url, "aegis", **ENOUGH),
            aegis_sdk.connect(url) as aegis,
        ):
            await aegis.serve(totals(), resources={"T-1": Role.AUTO})
            await aegis.request(ADD, 1, resource="T-1")
            ticket = await aegis.submit(ADD, 2, resource="T-1")
            assert await aegis.attach(ticket.id, ADD) == total
            findings = (await run_cli("doctor", "--url", url, "-o", "json")).json["findings"]
            bad = [finding["found"] for finding in findings if finding["level"] == "bad"]
            assert [found for found in bad if "standby" not in found] == []
            await aegis.request(ADD, 2, resource="T-1")


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ((), "set stream_max_bytes (AEGIS_STREAM_MAX_BYTES)"),
        (("--stream-max-bytes", str(1 << 20)), "requests_max_bytes or events_max_bytes, or give"),
        (("--stream-max-bytes", str(20 << 20)), "lower stream_max_bytes, requests_max_bytes and"),
    ],
)
async def test_a_bound_that_is_missing_or_too_large_is_one_line_that_says_what_to_set(
    guarded: Guarded, settings: tuple[str, ...], advice: str
) -> None:
    """The events alone have a bound by default, of 64 MiB, and that is over the account's."""
    guarded.start(BOUNDED)
    url = f"nats://u:one@{guarded.host}"
    ended = await asyncio.to_thread(
        run_control, "serve", "--url", url, "--http-port", "0", *settings
    )
    assert ended.returncode == 1, ended.stderr
    [line] = [each for each in ended.stderr.splitlines() if not each.startswith("{")]
    assert advice in line


async def test_a_service_for_which_the_account_has_no_room_is_refused_with_the_reason(
    guarded: Guarded,
) -> None:
    guarded.start(BOUNDED.replace("64MB", "12MB"))
    url = f"nats://u:one@{guarded.host}"
    async with control(url, "aegis", **ENOUGH), aegis_sdk.connect(url) as aegis:
        with pytest.raises(RegistrationRefused, match="lower stream_max_bytes"):
            await aegis.serve(totals(), resources={"T-1": Role.AUTO}, wait_s=1.0)


# --- a connection of one's own ------------------------------------------------------------------------------
async def test_a_connection_that_is_handed_in_is_refused_with_what_to_give_instead(
    server: EmbeddedNats,
) -> None:
    client = await nats.connect(server.url)
    given: Any = client
    for connect in (aegis_sdk.connect, aegis_sdk.blocking.connect):
        with pytest.raises(InvalidAddress, match="give its address and login instead"):
            await asyncio.to_thread(opened, connect, given)
    await client.close()


def opened(connect: Any, given: Any) -> None:
    async def enter() -> None:
        async with connect(given):
            raise AssertionError("opened")

    if connect is aegis_sdk.connect:
        asyncio.run(enter())
    else:
        connect(given)
