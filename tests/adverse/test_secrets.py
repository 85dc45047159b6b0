"""Passwords, tokens and seeds appear nowhere: not in a log, an error, a table, a traceback or an argument list."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Final
from urllib.parse import quote

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import free_port
from aegis_control.infrastructure.nats_connect import Credentials
from aegis_control.settings import Settings, SettingsError, load
from aegis_sdk.contract.addresses import read_addresses, shown
from aegis_sdk.errors import InvalidAddress
from aegis_sdk.nats.login import Server
from hypothesis import given
from hypothesis import strategies as st

from tests.integration.cli.support import run_cli
from tests.integration.control.support import control
from tests.integration.login.support import count_twice, nats_server

SECRET: Final = "hunter2xyz"
FORMS: Final = (
    "nats://{s}@{host}",
    "nats://user:{s}@{host}",
    "nats://user:p@{s}@{host}",
    "nats://user:{s}@ss@{host}",
    "nats://user:a:{s}@{host}",
    "nats://user:a/{s}@{host}",
    "nats://user:{s}/a@{host}",
    "nats://user:{s}?a@{host}",
    "nats://user:{s}#a@{host}",
    "nats://user:a://{s}@{host}",
    "nats://user:{s}%40x@{host}",
    "nats://user:a,{s}@{host}",
    "nats://user:{s},a@{host}",
    "nats://user:1,{s}@{host}",
    "nats://:{s}@{host}",
    "user:{s}@{host}",
    "user:p@{s}@{host}",
    "user:a/{s}@{host}",
    "{s}@{host}",
    "tls://user:{s}@{host}",
    "ws://user:{s}@{host}",
    "wss://{s}@{host}",
    "wss://user:{s}@{host}/path",
    "NATS://user:{s}@{host}",
    "http://user:{s}@{host}",
    "nats:/user:{s}@{host}",
    "nats://user:{s}@{host},nats://other:{s}@{host}",
    " nats://user:{s}@{host} , {s}@{host}",
    "nats://user:{s}@{host},user:{s}@{host}",
    "nats://user:{s}@",
    "nats://user:{s}",
    "user:{s}",
    "wss://{host}/?token={s}",
    "nats://{host}/{s}",
    "nats://user:{s}@{host}:{s}",
    "nats://user:{s}@[::1",
    "nats://user:{s}@{host}\n",
)


def nowhere(form: str) -> str:
    return form.format(s=SECRET, host=f"127.0.0.1:{free_port()}")


@pytest.mark.parametrize("form", FORMS)
def test_an_address_is_shown_without_its_secret(form: str) -> None:
    url = form.format(s=SECRET, host="db.example.org:4222")
    assert SECRET not in shown(url)
    assert SECRET not in repr(Server(url, password=SECRET, token=SECRET))
    assert SECRET not in repr(load({"url": url, "system_url": url}).settings)
    try:
        said = repr(read_addresses(url))
    except InvalidAddress as error:
        said = str(error)
    assert SECRET not in said


def test_what_is_no_secret_is_shown() -> None:
    for url in (
        "nats://one:4222",
        "one",
        "one:1,two:2",
        "nats://one,nats://two:2",
        "nats://[::1]:4222",
        "wss://one/path",
    ):
        assert shown(url) == url
    assert shown("nats://a:x@one:1, tls://b:y@two") == "nats://a:***@one:1,tls://b:***@two"


secrets = st.text(st.characters(blacklist_characters=",", min_codepoint=33, max_codepoint=126), min_size=12)  # fmt: skip


@given(secrets, st.sampled_from(["nats://", "tls://", "ws://", ""]), st.sampled_from(["", "user:"]))
def test_whatever_a_login_is_made_of_it_is_hidden(secret: str, scheme: str, user: str) -> None:
    said = shown(f"{scheme}{user}{secret}@host:4222")
    assert said in (
        f"{scheme}{user}***@host:4222",
        f"{scheme}{secret.partition(':')[0]}:***@host:4222",  # with a colon it is a user's name
        shown(f"{secret}@host:4222"),
    )
    if user:
        assert secret not in said


@given(st.text(max_size=60))
def test_any_text_can_be_shown(text: str) -> None:
    shown(text)


@given(st.text(min_size=1), st.text(min_size=1))
def test_what_is_escaped_in_an_address_is_what_the_server_is_given(
    user: str, password: str
) -> None:
    try:
        words = quote(user, safe=""), quote(password, safe="")
    except UnicodeEncodeError:
        return
    [address] = read_addresses(f"nats://{words[0]}:{words[1]}@host")
    assert (address.user, address.password, address.url) == (user, password, "nats://host:4222")


# --- processes ------------------------------------------------------------------------------------------------
def run_control(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AEGIS_")}
    return subprocess.run(
        [sys.executable, "-m", "aegis_control.entrypoints.service", *arguments],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


GIVEN: Final = (
    "nats://{s}@{host}",
    "nats://user:p@{s}@{host}",
    "user:{s}@{host}",
    "nats://user:{s}/x@{host}",
    "nats://user:{s},x@{host}",
    "nats://user:{s}@{host}:x",
)


@pytest.mark.parametrize("form", GIVEN)
def test_control_s_log_and_error_have_none(form: str) -> None:
    said = run_control("serve", "--url", nowhere(form), "--no-wait", "--http-port", "0")
    assert said.returncode in (2, 4), said.stderr
    assert SECRET not in said.stdout + said.stderr
    assert "Traceback" not in said.stderr


async def test_control_that_waits_for_nats_logs_none() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "aegis_control.entrypoints.service",
        "serve",
        env=os.environ | {"AEGIS_URL": nowhere("user:{s}@{host}"), "AEGIS_HTTP_PORT": "0"},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    lines: list[bytes] = []
    async with asyncio.timeout(20.0):
        while b"nats_not_reached" not in b"".join(lines):
            lines.append(await process.stderr.readline())
    process.terminate()
    await process.wait()
    assert SECRET.encode() not in b"".join(lines)


def test_config_shows_none() -> None:
    for form in FORMS:
        url = nowhere(form)
        given = {
            "AEGIS_URL": url,
            "AEGIS_SYSTEM_URL": url,
            "AEGIS_PASSWORD": SECRET,
            "AEGIS_SYSTEM_PASSWORD": SECRET,
            "AEGIS_CONSOLE_TOKEN": SECRET * 3,
        }
        if form in GIVEN:
            assert SECRET not in run_control("config", **given).stdout
        else:  # the same without a process
            loaded = load({name.removeprefix("AEGIS_").lower(): v for name, v in given.items()})
            assert SECRET not in repr(loaded)


def test_a_wrong_setting_is_named_without_its_secret(tmp_path: Path) -> None:
    file = tmp_path / "control.toml"
    for text in (
        f"password = ['{SECRET}']",
        f"url = ['nats://user:{SECRET}@host']",
        f"system_url = {{ a = 'nats://user:{SECRET}@host' }}",
        f"console_token = '{SECRET}'",
        f"passwort = '{SECRET}'",
        f"password = '{SECRET}",
    ):
        file.write_text(text)
        with pytest.raises(SettingsError) as refused:
            load({}, file)
        assert SECRET not in str(refused.value), text
    misspelt = run_control("serve", f"--passwrd={SECRET}", "--sytem-password", SECRET)
    assert misspelt.returncode == 2
    assert "--passwrd" in misspelt.stderr
    assert SECRET not in misspelt.stdout + misspelt.stderr


def test_a_seed_that_was_given_for_its_file_is_not_shown() -> None:
    seed = "SUAMK2FG4MI6UE3ACF3FK3OIQBCEIEZV7NSWFFEW63UXMRLFM2XLAXK4GY"
    settings = load({"nkey": seed, "creds": seed}).settings
    assert seed not in repr(settings)
    with pytest.raises(Exception, match="does not exist") as refused:
        Credentials(nkey=seed).server("nats://host")
    assert seed not in str(refused.value)


def test_an_address_that_was_given_for_a_file_is_shown_without_its_secret() -> None:
    address = f"nats://user:{SECRET}@host:4222"
    settings = load({"nkey": address, "tls_ca": address}).settings
    assert SECRET not in repr(settings)
    with pytest.raises(Exception, match="does not exist") as refused:
        Credentials(nkey=address).server("nats://host")
    assert SECRET not in str(refused.value)
    with pytest.raises(Exception, match="host:4222") as unread:
        Server("nats://host", nkeys_seed=address).seed()
    assert SECRET not in str(unread.value)


@pytest.mark.parametrize("form", GIVEN)
async def test_ipc_cli_s_errors_have_none(form: str) -> None:
    for arguments in (
        ("status",),
        ("status", "-o", "json"),
        ("doctor",),
        ("events",),
        ("dlq", "list"),
    ):
        said = await run_cli(*arguments, "--url", nowhere(form), "--timeout", "1")
        assert said.code in (2, 4, 6), said
        assert SECRET not in said.out + said.err
        assert "Traceback" not in said.err


@pytest.mark.parametrize("form", FORMS)
async def test_the_sdk_s_errors_have_none(form: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(aegis_sdk.AegisError) as refused:
        async with aegis_sdk.connect(nowhere(form), wait_s=0):
            pass
    error: BaseException | None = refused.value
    while error is not None:  # a traceback shows them all
        assert SECRET not in str(error) + repr(error)
        error = error.__cause__ or error.__context__
    assert SECRET not in caplog.text


async def test_logins_with_any_characters_work_as_they_are_written(tmp_path: Path) -> None:
    """In an address as it is, or escaped; beside it as it is."""
    password = "p@s:s/w?o#r%d,"
    users = f'authorization {{ users = [{{ user: "u", password: "{password}" }}] }}'
    with nats_server(tmp_path, users) as host:
        escaped = "p%40s%3As%2Fw%3Fo%23r%25d%2C"
        for prefix, url, login in (
            ("a", f"nats://u:{escaped}@{host}", {}),
            ("b", f"u:{escaped}@{host}", {}),
            ("c", f"nats://u:p@s:s/w?o#r%d%2C@{host}", {}),
            ("d", f"nats://{host}", {"user": "u", "password": password}),
        ):
            async with control(url, prefix, **login):
                assert await count_twice(url, prefix=prefix, **login) == [2, 5]


def test_settings_are_as_they_were_given() -> None:
    """What is shown is hidden; what is used is not."""
    url = f"nats://user:{SECRET}@host"
    settings = Settings(url=url, password=SECRET)
    assert (settings.url, settings.password) == (url, SECRET)
