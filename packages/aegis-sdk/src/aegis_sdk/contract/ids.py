"""Request ids: `<caller>.<n>`, two subject tokens. The caller token routes the reply.

- A client numbers its requests: `Kq3v9x2m.17`.
- A handler's own requests derive from the request it serves: the 2nd one of `Kq3v9x2m.17` is
  `Kq3v9x2m~17.2`. A handler that runs again after a crash asks with the same ids.
- A dead letter that an operator sends again becomes the request `Kq3v9x2m.17+1`, and if that one dies too
  and is sent again, `Kq3v9x2m.17+2`.
- A key chosen by the user is `key-<service>.<encoded key>`: keys belong to a service.
"""

from __future__ import annotations

import re
from typing import Final

from aegis_sdk.contract.names import encode_token
from aegis_sdk.errors import InvalidName

KEY_PREFIX: Final = "key-"
"""No client's own token has a hyphen."""
_NOT_IN_A_TOKEN: Final = re.compile(r"[^!-~]|[*>]")
"""What would match other subjects, end one, or write to a terminal."""
DEPTH_MAX: Final = 16
"""Nested calls deeper than this are taken for a loop that spans services."""


def keyed_id(service: str, key: str) -> str:
    """The request id of an idempotency key. Raises: InvalidName."""
    return f"{KEY_PREFIX}{service}.{encode_token(key, kind='idempotency key')}"


def is_keyed(request_id: str) -> bool:
    return request_id.startswith(KEY_PREFIX) and "~" not in request_id


def child_id(request_id: str, n: int) -> str:
    """The id of the `n`-th request (from 1) that the handler of `request_id` makes."""
    caller, _, number = request_id.partition(".")
    if caller.count("~") >= DEPTH_MAX:
        raise InvalidName(f"request {request_id}: calls are nested over {DEPTH_MAX} deep")
    return f"{caller}~{number}.{n}"


def check_request_id(text: str) -> str:
    """Return what a person gave as a request id, if it names one request. Raises: InvalidName."""
    split_id(text)
    if _NOT_IN_A_TOKEN.search(text):
        raise InvalidName(f"request id {text!r}: plain ASCII without blanks, '*' and '>'")
    return text


def children_of(request_id: str) -> str:
    """The caller token of all requests that the handler of `request_id` makes. Raises: InvalidName."""
    caller, number = split_id(request_id)
    return f"{caller}~{number}"


def parent_of(request_id: str) -> str | None:
    """The request whose handler made `request_id`; None when a client made it. Raises: InvalidName."""
    caller, _ = split_id(request_id)
    above, tilde, number = caller.rpartition("~")
    return f"{above}.{number}" if tilde else None


def redriven_id(request_id: str) -> str:
    """The id under which a dead letter is sent again: the same at every try, so one effect (G3).

    No client's number and no encoded key holds a plus sign.
    """
    first, plus, times = request_id.rpartition("+")
    return f"{first}+{int(times) + 1}" if plus else f"{request_id}+1"


def split_id(request_id: str) -> tuple[str, str]:
    """(caller token, number token). Raises: InvalidName when it isn't a request id."""
    caller, dot, number = request_id.partition(".")
    if not (caller and dot and number) or "." in number or " " in request_id:
        raise InvalidName(f"request id {request_id!r}: expected <caller>.<n>")
    return caller, number
