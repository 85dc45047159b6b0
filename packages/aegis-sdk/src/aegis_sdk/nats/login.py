"""Where NATS is and how to get in: addresses, users, credentials, seeds, TLS. What is in a file is read again each time.

A process lives for months, and its JWT for hours: who issues logins writes a new file in the old one's place. So nothing of a
file is kept here. A file that is missing, empty or half written at that moment is `LoginUnreadable`, which passes, and
never the process's end. It is written to a log by its name; what is in it is shown nowhere.

What can't change (a password beside the address) makes the other kind of refusal: see `may_change`, by which the
connection tells what it is worth to try again.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from aegis_sdk.contract import arguments
from aegis_sdk.contract.addresses import Address, read_addresses, shown, shown_path
from aegis_sdk.errors import InvalidAddress, InvalidArgument, Unavailable

_JWT: Final = re.compile(rb"BEGIN NATS USER JWT-+\s+([\w.-]+)")
_WORD: Final = re.compile(r"[^\s.*>]+")
_WORDS: Final = re.compile(rf"{_WORD.pattern}(\.{_WORD.pattern})*")
_SEED: Final = re.compile(rb"(?:BEGIN USER NKEY SEED-+\s+|\A\s*)(S[A-Z2-7]+)")


class LoginUnreadable(NatsError):
    """A file of the login is missing, or holds no login; the message names it."""


Tls = ssl.SSLContext | Callable[[], ssl.SSLContext]
"""A context holds what it has read for as long as it lives; a function is asked again for each connection."""


@dataclass(frozen=True, slots=True, repr=False)
class Server:
    """Where NATS is and how to get in. What stands beside the addresses wins over a login in them.

    `credentials` (JWT and seed) and `nkeys_seed` name files; `tls` may be a function that reads its files anew. It is made
    without a look at any of it: `check` is for that, and each connection is. Its `repr` shows no secret, since it may come
    into a traceback.
    """

    url: str = "nats://127.0.0.1:4222"
    user: str | None = None
    password: str | None = None
    token: str | None = None
    credentials: str | None = None
    nkeys_seed: str | None = None
    tls: Tls | None = None
    domain: str | None = None
    """JetStream's, where the streams are behind a leaf node."""
    inbox_prefix: str | None = None
    """Of the subjects for answers, where an account's users are kept apart by it."""

    def __repr__(self) -> str:
        return f"Server({self.shown_url})"

    @property
    def shown_url(self) -> str:
        """For logs and errors: without passwords and tokens."""
        return shown(self.url)

    @property
    def api_prefix(self) -> str:
        """Of the subjects of JetStream's API; with a domain, those that a leaf node passes on to the hub."""
        return f"$JS.{self.domain}.API." if self.domain else "$JS.API."

    @property
    def addresses(self) -> list[Address]:
        """Raises: InvalidAddress."""
        return read_addresses(self.url)

    def may_change(self, reason: str) -> bool:
        """Whether what was refused for `reason` is read anew for the next connection."""
        if reason.startswith("TLS"):
            return callable(self.tls)
        return bool(self.credentials or self.nkeys_seed)

    def expired(self) -> str:
        """When the JWT expired, in words that name its file; empty when it has not, or can't be read.

        By this machine's clock. It is no check, only an explanation: the server says no more than "authorization violation".
        """
        if self.credentials is None:
            return ""
        try:
            claims = self.jwt().split(b".")[1]
            ended_s = json.loads(base64.urlsafe_b64decode(claims + b"=="))["exp"]
            if ended_s > time.time():
                return ""
            at = f"{datetime.fromtimestamp(ended_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
        except (LoginUnreadable, LookupError, TypeError, ValueError, OverflowError, OSError):
            return ""
        return f"the JWT in {shown_path(str(self.credentials))} expired at {at}"

    def unreadable(self) -> bool:
        """Whether a file of this login is missing, or holds none."""
        try:
            if self.credentials:
                self.jwt()
            if self.credentials or self.nkeys_seed:
                self.key_pair()
        except LoginUnreadable:
            return True
        return False

    def seed(self) -> bytes:
        """Raises: LoginUnreadable, which names the file."""
        path = self.credentials or self.nkeys_seed
        assert path is not None
        return _found(_SEED, path, "seed")

    def jwt(self) -> bytes:
        """Raises: LoginUnreadable, which names the file."""
        assert self.credentials is not None
        return _found(_JWT, self.credentials, "JWT")

    def key_pair(self) -> Any:
        """Of the seed. Raises: LoginUnreadable, which names the file."""
        import nkeys  # an extra

        try:
            return nkeys.from_seed(bytearray(self.seed()))
        except (ValueError, nkeys.ErrInvalidSeed, nkeys.ErrInvalidPrefixByte) as error:
            raise LoginUnreadable(
                f"{self.credentials or self.nkeys_seed} holds no valid seed"
            ) from error

    def ssl_context(self) -> ssl.SSLContext:
        """Made anew, where `tls` is a function."""
        if self.tls is None:
            return ssl.create_default_context()
        return self.tls if isinstance(self.tls, ssl.SSLContext) else self.tls()

    def check(self) -> None:
        """Refuse what can't work, before anything is tried over the network. No file is read.

        Raises: InvalidAddress, InvalidArgument; Unavailable when what reads the files isn't installed.
        """
        if isinstance(self.url, Client):
            raise InvalidAddress(
                "url is a NATS connection: give its address and login instead, as text; AegisIPC makes"
                " a connection of its own beside yours, whose losses and refusals it can answer for"
            )
        arguments.text(self.url, "url", error=InvalidAddress)
        _ = self.addresses
        for name in ("user", "password", "token", "domain", "inbox_prefix"):
            arguments.optional_text(getattr(self, name), name, error=InvalidArgument)
        if self.domain is not None and not _WORD.fullmatch(self.domain):
            raise InvalidArgument(f"domain must be a JetStream domain, a word; got {self.domain!r}")
        if self.inbox_prefix is not None and not _WORDS.fullmatch(self.inbox_prefix):
            raise InvalidArgument(
                f"inbox_prefix must be a subject, as _INBOX_app; got {self.inbox_prefix!r}"
            )
        for name in ("credentials", "nkeys_seed"):
            if not isinstance(getattr(self, name), Path):
                arguments.optional_text(getattr(self, name), name, error=InvalidArgument)
        if self.tls is not None and not isinstance(self.tls, ssl.SSLContext):
            arguments.function(self.tls, "tls")
        if (self.credentials or self.nkeys_seed) and importlib.util.find_spec("nkeys") is None:
            raise Unavailable("credentials and NKEY files need: pip install nkeys")


def _found(form: re.Pattern[bytes], path: str, what: str) -> bytes:
    try:
        found = form.search(Path(path).read_bytes())
    except OSError as error:
        raise LoginUnreadable(f"{shown_path(str(path))}: {error.strerror}") from None
    except ValueError:  # a zero byte in its name
        raise LoginUnreadable(f"{shown_path(str(path))!r} is no file's name") from None
    if found is None:
        raise LoginUnreadable(f"{path} holds no {what}")
    return found[1]
