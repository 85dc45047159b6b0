"""The SDK, control and ipc-cli log in to NATS: TLS both ways with user and password, NKEYs, JWT credentials."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aegis_sdk
import nkeys
import pytest
from aegis_control.infrastructure.nats_connect import CredentialsUnusable

from tests.integration.cli.support import run_cli
from tests.integration.control.support import control
from tests.integration.login.support import (
    Files,
    Operator,
    count_twice,
    nats_server,
    new_key,
    public,
)

ACCOUNTS = """
accounts {
  SYS { users = [{ %s }] }
  AEGIS { jetstream: enabled, users = [{ %s }] }
}
system_account: SYS
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("login")


@pytest.fixture(scope="module")
def files(folder: Path) -> Files:
    return Files.make(folder)


# --- TLS, with certificates asked of both sides, and user and password ------------------------------------


@pytest.fixture(scope="module")
def tls_server(folder: Path, files: Files) -> Iterator[str]:
    tls = (
        f'tls {{ cert_file: "{files.server}", key_file: "{files.server}",'
        f' ca_file: "{files.ca}", verify: true }}'
    )
    users = ACCOUNTS % ("user: sys, password: sp", "user: app, password: ap")
    with nats_server(folder, tls, users) as address:
        yield address


def tls_settings(files: Files) -> dict[str, str]:
    return {"tls_ca": str(files.ca), "tls_cert": str(files.client), "tls_key": str(files.client)}


def as_options(login: dict[str, Any]) -> list[str]:
    return [
        word for name, value in login.items() for word in (f"--{name.replace('_', '-')}", value)
    ]


async def test_everyone_works_over_tls_with_user_and_password(
    tls_server: str, files: Files
) -> None:
    url = f"nats://{tls_server}"
    login = {"user": "app", "password": "ap"} | tls_settings(files)
    system = {"system_user": "sys", "system_password": "sp"}
    async with control(url, "aegis", **login, **system):
        counted = await count_twice(url, user="app", password="ap", tls=files.context())
        assert counted == [2, 5]
        shown = await run_cli("status", "-o", "json", "--url", url, *as_options(login))
        assert (shown.code, shown.json["control"]["services"]) == (
            6,
            1,
        ), shown.err  # its instance left
        assert "ap" not in shown.json["url"]
        env = {"AEGIS_URL": url} | {f"AEGIS_{name.upper()}": v for name, v in login.items()}
        checked = await run_cli("doctor", "-o", "json", env=env)
        levels = {one["check"]: one["level"] for one in checked.json["findings"]}
        assert levels["system account"] == "ok"


async def test_a_password_in_the_url_does_too(tls_server: str, files: Files) -> None:
    """With the scheme `tls`, as NATS's own tools write it."""
    url = f"tls://app:ap@{tls_server}"
    async with control(url, "inurl", **tls_settings(files)):
        options = as_options(tls_settings(files))
        shown = await run_cli(*options, "status", "--url", url, "--prefix", "inurl")
        assert shown.code == 0, shown.err
        assert "app:***@" in shown.out
        assert await count_twice(url, prefix="inurl", tls=files.context()) == [2, 5]


async def test_a_server_of_an_unknown_ca_is_not_trusted(
    tls_server: str, files: Files, tmp_path: Path
) -> None:
    other = Files.make(tmp_path)
    url = f"nats://app:ap@{tls_server}"
    refused = await run_cli("status", "--url", url, *as_options(tls_settings(other)))
    assert refused.code == 5, refused.err
    assert "CERTIFICATE_VERIFY_FAILED" in refused.err
    assert "--tls-ca" in refused.err
    with pytest.raises(aegis_sdk.RefusedByNats, match="CERTIFICATE_VERIFY_FAILED"):
        async with control(url, "other", wait=False, **tls_settings(other)):
            pass
    with pytest.raises(aegis_sdk.Unavailable) as unavailable:
        async with aegis_sdk.connect(url, tls=other.context()):
            pass
    assert "app:***@" in str(unavailable.value)


async def test_a_client_without_a_certificate_is_refused(tls_server: str, files: Files) -> None:
    url = f"nats://app:ap@{tls_server}"
    context = ssl.create_default_context(cafile=str(files.ca))
    with pytest.raises(aegis_sdk.Unavailable):
        async with aegis_sdk.connect(url, tls=context):
            pass
    refused = await run_cli("status", "--url", url, "--tls-ca", str(files.ca))
    assert refused.code in (4, 5), refused.err


async def test_a_wrong_password_is_said_as_such(tls_server: str, files: Files) -> None:
    url = f"nats://{tls_server}"
    login = {"user": "app", "password": "wrong"} | tls_settings(files)
    refused = await run_cli("status", "--url", url, *as_options(login))
    assert (refused.code, refused.out) == (5, "")
    assert "refused the credentials" in refused.err
    assert "wrong" not in refused.err


# --- NKEYs -----------------------------------------------------------------------------------------------


async def test_everyone_logs_in_with_an_nkey(folder: Path) -> None:
    keys = {name: new_key(nkeys.PREFIX_BYTE_USER) for name in ("sys", "app")}
    seeds = {name: folder / f"{name}.nk" for name in keys}
    for name, (_, seed) in keys.items():
        seeds[name].write_bytes(seed)
    users = ACCOUNTS % tuple(f"nkey: {public(pair)}" for pair, _ in keys.values())
    app, system = str(seeds["app"]), str(seeds["sys"])
    with nats_server(folder, users) as address:
        url = f"nats://{address}"
        async with control(url, "aegis", nkey=app, system_nkey=system):
            assert await count_twice(url, nkeys_seed=app) == [2, 5]
            shown = await run_cli("status", "--url", url, "--nkey", app)
            assert shown.code == 6, shown.err  # it is answered; the instance left
        refused = await run_cli("status", "--url", url)
        assert refused.code == 5, refused.err


# --- credentials: a user's JWT and its seed ----------------------------------------------------------------


async def test_everyone_logs_in_with_credentials(folder: Path) -> None:
    """An operator, two accounts in the server's memory, and a user of each."""
    operator = Operator()
    creds = {
        name: str(operator.creds(folder / f"{name}.creds", account=name))
        for name in ("SYS", "AEGIS")
    }
    with nats_server(folder, *operator.sections()) as address:
        url = f"nats://{address}"
        async with control(url, "aegis", creds=creds["AEGIS"], system_creds=creds["SYS"]):
            assert await count_twice(url, credentials=creds["AEGIS"]) == [2, 5]
            shown = await run_cli("status", "--url", url, "--creds", creds["AEGIS"])
            assert shown.code == 6, shown.err  # it is answered; the instance left


async def test_a_missing_file_is_named() -> None:
    said = await run_cli("status", "--creds", "/nowhere/x.creds")
    assert (said.code, said.err) == (
        2,
        "ipc-cli: credentials file /nowhere/x.creds does not exist\n",
    )
    with pytest.raises(CredentialsUnusable, match=r"NKEY file /nowhere/x\.nk does not exist"):
        async with control("nats://127.0.0.1:1", "x", nkey="/nowhere/x.nk"):
            pass
