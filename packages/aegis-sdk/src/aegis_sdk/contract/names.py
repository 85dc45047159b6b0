"""Names and ids, and the one reversible encoding of a resource id to a subject token."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from aegis_sdk.contract import arguments
from aegis_sdk.errors import InvalidName

RESOURCE_BYTES_MAX: Final = 200
"""An encoded token is at most three times as long: far below the server's 4 KiB control line."""

_SERVICE: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_ESCAPED: Final = re.compile(r"=([0-9A-F]{2})")

NO_RESOURCE: Final = "-"
"""The resource token of group requests; a resource called "-" is written `=2D`."""


@lru_cache(maxsize=1_000)  # asked for each message, of few different ones
def check_service(name: str) -> str:
    """Return `name` if it can be a service or method name. Raises: InvalidName."""
    if not _SERVICE.fullmatch(name):
        raise InvalidName(
            f"name {name!r}: use a lower-case letter, then up to 62 of a-z, 0-9, '_' and '-'"
        )
    return name


def check_instance(given: Any) -> str:
    """Return what is given if it can be a subject token. Raises: InvalidName."""
    instance_id = arguments.text(given, "instance_id")
    if not _TOKEN.fullmatch(instance_id):
        raise InvalidName(f"instance id {instance_id!r}: use 1 to 64 of A-Z, a-z, 0-9, '_' and '-'")
    return instance_id


@lru_cache(maxsize=50_000)  # one or two are needed for each message, of few different resources
def encode_token(text: str, *, kind: str = "resource id") -> str:
    """Encode any UTF-8 text of 1 to 200 bytes as a subject token and KV key: other bytes become `=XX`.

    Raises:
        InvalidName: the text is empty, too long, or holds a lone surrogate.
    """
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidName(f"{kind} {text!r} is not valid Unicode text") from error
    if not raw:
        raise InvalidName(f"{kind} is empty: give 1 to {RESOURCE_BYTES_MAX} bytes of UTF-8")
    if len(raw) > RESOURCE_BYTES_MAX:
        raise InvalidName(
            f"{kind} has {len(raw)} bytes of UTF-8; at most {RESOURCE_BYTES_MAX} are allowed"
        )
    if raw == b"-":
        return "=2D"
    return "".join(chr(byte) if byte in _PLAIN else f"={byte:02X}" for byte in raw)


@lru_cache(maxsize=50_000)
def decode_token(token: str) -> str:
    """The text that `encode_token` made `token` from."""
    if "=" not in token:
        return token
    return re.sub(_ESCAPED, lambda match: chr(int(match[1], 16)), token).encode("latin-1").decode()


def session_name(server_id: str, number: int) -> str:
    """A connection as its server calls it: a server has a new id at each start, and numbers its connections."""
    return f"{server_id[-12:]}.{number}"
