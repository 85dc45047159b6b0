"""NATS addresses: `[scheme://][USER:PASSWORD@ or TOKEN@]HOST[:PORT]`, several separated by commas.

Read here and nowhere else, so that everybody who logs in reads the same login out of them, and shown here,
so that no log, error or table has a secret in it. What follows an address's first `://` and stands before its
last `@` is the login, whatever it is made of; a comma in it, as any other character, may be written `%2C`.

People type these by hand, and put passwords with any character into them. So reading and showing differ in what they do with
what is wrong: reading refuses, and showing hides. In doubt, `shown` hides a server's name rather than show a piece of a
password. It is asked with whatever a user gave, which may be no address at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from aegis_sdk.errors import InvalidAddress

SCHEMES: Final = frozenset({"nats", "tls", "ws", "wss"})
_SECRET: Final = re.compile(r"\bS[A-Z2-7]{25,}|\beyJ[\w-]{10,}|BEGIN ")
"""NATS's seeds and JWTs."""
_WEB: Final = frozenset({"ws", "wss"})
PORT: Final = 4222
HIDDEN: Final = "***"

_SCHEME: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*)://")
_PLACE: Final = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[\w.-]+)(?::(\d{1,5}))?(/[\w./-]*)?")


@dataclass(frozen=True, slots=True)
class Address:
    """One server, and the login that stood before its name; empty is none.

    A login without a colon is a token. `port` is None only for a WebSocket, whose scheme has one. `path` is a WebSocket's
    alone.
    """

    scheme: str
    host: str
    port: int | None
    path: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """Without the login."""
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.path}"


def read_addresses(text: str) -> list[Address]:
    """One for each part between commas, in their order; the connection tries them so. Raises: InvalidAddress, which shows
    no secret.
    """
    return [_read(part) for part in text.split(",") if part.strip()] or [_read(text)]


def shown(text: str) -> str:
    """`text` for people: user names and servers, no passwords and tokens. It takes any text.

    What can't be told from a part of a login is hidden, too: a list has its schemes everywhere or nowhere,
    so where one begins with a scheme and goes on without, a comma may be a password's.
    """
    parts = text.split(",")
    said, torn = [], False
    for n, part in enumerate(parts):
        if _SCHEME.match(part):
            torn = _goes_on_with_a_login(parts[n + 1 :])
        said.append(_shown(part, torn=torn))
    return ",".join(said)


def shown_path(text: str) -> str:
    """The name of a file for people; a seed, a token or an address that was given in its place is shown without its secret."""
    if _SECRET.search(text):
        return HIDDEN
    return shown(text) if "://" in text else text


def _read(part: str) -> Address:
    scheme, login, place = _split(part.strip())
    found = _PLACE.fullmatch(place)
    port = int(found[2]) if found and found[2] else None
    scheme = scheme or "nats"
    web = scheme in _WEB
    if not found or scheme not in SCHEMES or (found[3] and not web) or (port or 0) > 65_535:
        raise InvalidAddress(
            f"{_shown(part, torn=False)!r} is not a NATS address: write it as"
            " nats://[USER:PASSWORD@]HOST:PORT, a comma in a password as %2C"
        )
    user, colon, password = login.partition(":")
    return Address(
        scheme,
        found[1],
        port if web else port or PORT,
        found[3] or "",
        user=unquote(user) if colon else "",
        password=unquote(password),
        token="" if colon else unquote(login),
    )


def _shown(part: str, *, torn: bool) -> str:
    scheme, login, place = _split(part.strip())
    head = f"{scheme}://" if scheme else ""
    if "@" in part:
        user, colon, _ = login.partition(":")
        head += f"{user}:{HIDDEN}@" if colon else f"{HIDDEN}@"  # a login without colon is a token
    elif torn:
        return head + HIDDEN
    before, mark, _ = place.partition("?")
    found = _PLACE.fullmatch(before)
    if found is None or (found[3] and scheme not in _WEB):
        return head + HIDDEN if part.strip() else ""
    return f"{head}{before}?{HIDDEN}" if mark else head + before


def _split(part: str) -> tuple[str, str, str]:
    """(scheme, login, place)"""
    found = _SCHEME.match(part)
    scheme = found[1].lower() if found else ""
    login, _, place = part[found.end() if found else 0 :].rpartition("@")
    return scheme, login, place


def _goes_on_with_a_login(parts: list[str]) -> bool:
    for part in parts:
        if _SCHEME.match(part):
            return False
        if "@" in part:
            return True
    return False
