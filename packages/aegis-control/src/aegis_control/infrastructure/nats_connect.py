"""Connecting to NATS: the options that control needs, and a first connection that may take its time."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlparse

import structlog

from aegis_control.infrastructure.nats_client import Client

RETRY_INTERVAL_S: Final = 1.0
_CONNECT_TIMEOUT_S: Final = 2
_CLOSE_TIMEOUT_S: Final = 0.5
_RECONNECT_WAIT_S: Final = 0.2
_PING_INTERVAL_S: Final = 2
_PINGS_OUTSTANDING_MAX: Final = 2
_PENDING_BYTES_MAX: Final = 64 << 20

Callback = Callable[[], Awaitable[None]]


class CredentialsUnusable(Exception):
    """A file with credentials can't be read, or what reads it isn't installed."""


class NatsAbsent(Exception):
    """No server answered; the message says where and what came back."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to log in; empty strings mean not used."""

    user: str = ""
    password: str = field(default="", repr=False)
    creds: str = ""
    nkey: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""

    def options(self) -> dict[str, Any]:
        """As the client wants them. Raises: CredentialsUnusable."""
        options: dict[str, Any] = {}
        if self.user:
            options |= {"user": self.user, "password": self.password}
        if self.creds:
            options["user_credentials"] = _checked("credentials", self.creds)
        if self.nkey:
            options["nkeys_seed"] = _checked("NKEY", self.nkey)
        if self.tls_ca or self.tls_cert:
            options["tls"] = self._tls()
        return options

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.tls_ca or None)
            if self.tls_cert:
                context.load_cert_chain(self.tls_cert, self.tls_key or None)
        except OSError as error:  # ssl's own errors are OSErrors too
            files = ", ".join(filter(None, (self.tls_ca, self.tls_cert, self.tls_key)))
            raise CredentialsUnusable(f"TLS files {files}: {_words(error)}") from error
        return context


class _AllFailed(Exception):
    """Every server of the list was tried once, or one can't be trusted."""


async def connect(
    url: str,
    credentials: Credentials,
    *,
    name: str,
    wait: bool,
    on_reconnected: Callback | None = None,
) -> Client:
    """Connect to one of the servers in `url` (separated by commas), for good.

    With `wait` it tries every second until one answers, and says so.

    Raises: NatsAbsent without `wait`, CredentialsUnusable.
    """
    log = structlog.stdlib.get_logger("aegis_control")
    tries = 0
    while True:
        tries += 1
        try:
            client = await _try(url, credentials, name, on_reconnected)
        except NatsAbsent as error:
            if not wait:
                raise
            log.warning("nats_not_reached", url=redacted(url), attempt=tries, reason=str(error))
            await asyncio.sleep(RETRY_INTERVAL_S)
        else:
            log.info("nats_connected", url=redacted(url), attempt=tries, connection=name)
            return client


def redacted(url: str) -> str:
    """`url` without passwords."""
    return ",".join(_without_password(one) for one in url.split(","))


async def _try(
    url: str, credentials: Credentials, name: str, on_reconnected: Callback | None
) -> Client:
    servers = [one.strip() for one in url.split(",")]
    failures: list[Exception] = []
    connected = asyncio.Event()

    async def on_error(error: Exception) -> None:
        if connected.is_set():
            structlog.stdlib.get_logger("aegis_control").debug("nats_error", reason=_words(error))
            return
        failures.append(error)
        # After a failed TLS handshake the client would wait for ever for its connection to close.
        if len(failures) >= len(servers) or isinstance(error, ssl.SSLError):
            raise _AllFailed

    async def on_disconnected() -> None:
        if connected.is_set() and not client.is_closed:
            structlog.stdlib.get_logger("aegis_control").warning("nats_lost", connection=name)

    async def on_back() -> None:
        structlog.stdlib.get_logger("aegis_control").info("nats_restored", connection=name)
        if on_reconnected is not None:
            await on_reconnected()

    client = Client()
    try:
        await client.connect(
            servers,
            name=name,
            error_cb=on_error,
            disconnected_cb=on_disconnected,
            reconnected_cb=on_back,
            connect_timeout=_CONNECT_TIMEOUT_S,
            reconnect_time_wait=_RECONNECT_WAIT_S,  # type: ignore[arg-type]
            max_reconnect_attempts=-1,
            ping_interval=_PING_INTERVAL_S,
            max_outstanding_pings=_PINGS_OUTSTANDING_MAX,
            pending_size=_PENDING_BYTES_MAX,
            **credentials.options(),
        )
    except (_AllFailed, OSError) as error:
        with contextlib.suppress(TimeoutError):  # the same wait again
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await client.close()
        what = "; ".join(dict.fromkeys(map(_words, failures))) or _words(error)
        raise NatsAbsent(f"no NATS server answered at {redacted(url)}: {what}") from error
    connected.set()
    return client


def _checked(what: str, path: str) -> str:
    if importlib.util.find_spec("nkeys") is None:
        raise CredentialsUnusable(f"{what} files need: pip install 'aegis-control[nkeys]'")
    if not Path(path).is_file():
        raise CredentialsUnusable(f"{what} file {path} does not exist")
    return path


def _without_password(url: str) -> str:
    parsed = urlparse(url.strip())
    if not parsed.password:
        return url.strip()
    host = parsed.netloc.rpartition("@")[2]
    return parsed._replace(netloc=f"{parsed.username}:***@{host}").geturl()


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
