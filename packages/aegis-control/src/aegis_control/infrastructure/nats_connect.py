"""Connecting to NATS: control's login, and a first connection that may take its time."""

from __future__ import annotations

import asyncio
import importlib.util
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
from aegis_sdk.contract.addresses import shown_path
from aegis_sdk.errors import RefusedByNats, Unavailable
from aegis_sdk.nats import connection
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server

RETRY_INTERVAL_S: Final = 1.0

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
    token: str = field(default="", repr=False)
    creds: str = ""
    nkey: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    domain: str = ""
    inbox_prefix: str = ""

    def server(self, url: str) -> Server:
        """The servers at `url` with this login. Raises: CredentialsUnusable, InvalidAddress."""
        server = Server(url, **self.login())
        server.check()
        return server

    def login(self) -> dict[str, Any]:
        """What `aegis_sdk.connect` takes beside the address. Raises: CredentialsUnusable."""
        _check("credentials", self.creds)
        _check("NKEY", self.nkey)
        tls = self._tls if self.tls_ca or self.tls_cert else None
        if tls is not None:
            tls()
        return {
            "user": self.user or None,
            "password": self.password if self.user else None,
            "token": self.token or None,
            "credentials": self.creds or None,
            "nkeys_seed": self.nkey or None,
            "tls": tls,
            "domain": self.domain or None,
            "inbox_prefix": self.inbox_prefix or None,
        }

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.tls_ca or None)
            if self.tls_cert:
                context.load_cert_chain(self.tls_cert, self.tls_key or None)
        except OSError as error:  # ssl's own errors are OSErrors too
            files = ", ".join(filter(None, (self.tls_ca, self.tls_cert, self.tls_key)))
            raise CredentialsUnusable(f"TLS files {files}: {_words(error)}") from error
        return context


async def connect(
    url: str,
    credentials: Credentials,
    *,
    name: str,
    wait: bool,
    on_reconnected: Callback | None = None,
) -> Link:
    """Connect to one of the servers in `url` (separated by commas), for good.

    With `wait` it tries every second until one answers, and says so; a login that is refused, and can't
    change, is tried for `connection.LOGIN_GRACE_S`.

    Raises: RefusedByNats; NatsAbsent without `wait`; CredentialsUnusable, InvalidAddress.
    """
    log = structlog.stdlib.get_logger("aegis_control")
    server = credentials.server(url)
    tries, refused_since_s = 0, time.monotonic()
    while True:
        tries += 1
        try:
            link = await Link.open(server, name=name, logger=log)
        except Unavailable as error:
            refused = isinstance(error, RefusedByNats)
            now_s = time.monotonic()
            if not refused or server.may_change(str(error)):
                refused_since_s = now_s
            if not wait or now_s - refused_since_s > connection.LOGIN_GRACE_S:
                raise error if refused else _absent(server, error) from error
            log.warning("nats_not_reached", url=server.shown_url, attempt=tries, reason=str(error))
            await asyncio.sleep(RETRY_INTERVAL_S)
        else:
            if on_reconnected is not None:
                link.on_restored(on_reconnected)
            log.info("nats_connected", url=server.shown_url, attempt=tries, connection=name)
            return link


def _absent(server: Server, error: Unavailable) -> NatsAbsent:
    where = server.shown_url
    why = str(error).removeprefix(f"NATS does not answer at {where}: ")
    return NatsAbsent(f"no NATS server answered at {where}: {why}")


def _check(what: str, path: str) -> None:
    if not path:
        return
    if importlib.util.find_spec("nkeys") is None:
        raise CredentialsUnusable(f"{what} files need: pip install nkeys")
    if not Path(path).is_file():
        raise CredentialsUnusable(f"{what} file {shown_path(path)} does not exist")


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
