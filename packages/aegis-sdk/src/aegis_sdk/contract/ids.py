"""Request ids: `<caller>.<n>`, two subject tokens. The caller token routes the reply.

- A client numbers its requests: `Kq3v9x2m.17`. One that it submits, of which it gets a ticket, is `Kq3v9x2m.17t`.
- A handler's own requests derive from the request it serves and from what they ask: one of `Kq3v9x2m.17` to
  `book` is `Kq3v9x2m~17.book-9f3a21c7d0e4b852`, whose last part is made of service, method, resource and
  payload. The second one that asks just the same ends in `x2`; one that a retry asks anew, since it ended without
  effect, in `r1`. A handler that runs again asks with the same ids, in whatever order.
- A timer's request derives from the request whose handler set it, and from the timer's name: `Kq3v9x2m~17.@cancel-9f3a21c7d0e4b852`.
- What makes a timer of `Kq3v9x2m.17t`, which is not to begin yet, is `Kq3v9x2m~17t.!wait`.
- A dead letter that an operator sends again becomes the request `Kq3v9x2m.17+1`, and if that one dies too
  and is sent again, `Kq3v9x2m.17+2`.
- A key chosen by the user is `key-<service>.<encoded key>`: keys belong to a service.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

from aegis_sdk.contract import arguments
from aegis_sdk.contract.names import encode_token
from aegis_sdk.errors import InvalidName

KEY_PREFIX: Final = "key-"
"""No client's own token has a hyphen."""
REQUEST_ID_LENGTH_MAX: Final = 2048
"""Three times the longest keyed id. With the longest service and resource beside it, it stays below the
server's 4 KiB for a line; a longer one would end the connection of whoever uses it."""
_REQUEST_ID: Final = re.compile(r"([!-)+\-/-=?-~]+)\.([!-)+\-/-=?-~]+)")
"""Two tokens of plain ASCII without blanks, dots, `*` and `>`: anything else would match other subjects,
end one, or write to a terminal."""
_SHOWN_MAX: Final = 80
_GENERATION: Final = re.compile(r"r[0-9]+$")
TICKET: Final = "t"
"""Behind the number of a request that is submitted: its outcome has a name of its own, for whoever has the ticket."""
TIMER: Final = "@"
"""Begins the number token of a timer's request: no method and no encoded key does."""
WAIT: Final = ".!wait"
"""Ends the id under which a request that is not to begin yet becomes a timer."""
METHOD_CHARS_MAX: Final = 16
DEPTH_MAX: Final = 16
"""Nested calls deeper than this are taken for a loop that spans services."""


def keyed_id(service: str, key: str) -> str:
    """The request id of an idempotency key. Raises: InvalidName."""
    return f"{KEY_PREFIX}{service}.{encode_token(key, kind='idempotency key')}"


def is_keyed(request_id: str) -> bool:
    return request_id.startswith(KEY_PREFIX) and "~" not in request_id


def is_nested(request_id: str) -> bool:
    """Whether a handler made it, which may be waiting for it. Nobody waits for a timer."""
    return "~" in request_id and not is_timer(request_id)


def timer_id(request_id: str, method: str, name: str) -> str:
    """The id of the request that a timer makes, which the handler of `request_id` has set by that name."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return child_id(request_id, TIMER + call_token(method, digest, 1), waits=False)


def waiting_id(request_id: str) -> str:
    """The id of what makes a timer of a request that waits for its time. Raises: InvalidName, when that is no request id."""
    caller, number = split_id(request_id)
    return f"{caller}~{number}{WAIT}"


def is_timer(request_id: str) -> bool:
    """Whether it is a timer's own request: one that an operator sends again is a request as any other."""
    at = request_id.find(f".{TIMER}")
    return at > 0 and "+" not in request_id[at:]


def call_token(method: str, name: str, count: int) -> str:
    """What tells a handler's `count`-th (from 1) equal call from its others; `name` is hex digits."""
    token = f"{method[:METHOD_CHARS_MAX]}-{name}"
    return token if count == 1 else f"{token}x{count}"


def child_id(request_id: str, call: str, *, waits: bool = True) -> str:
    """The id of the request that the handler of `request_id` makes by `call` (`call_token`).

    `waits`: for its outcome. Endless nesting of such calls is refused; what is handed in may hand in the next for
    ever, so the name of those far above is shortened. Raises: InvalidName.
    """
    caller, _, number = request_id.partition(".")
    if caller.count("~") >= DEPTH_MAX:
        if waits:
            raise InvalidName(f"request {request_id}: calls are nested over {DEPTH_MAX} deep")
        caller = f"far-{hashlib.blake2b(caller.encode(), digest_size=8).hexdigest()}"
    return f"{caller}~{number}.{call}"


def generation_id(request_id: str, generation: int) -> str:
    """The id under which a retry asks a child anew; generation 0 is the child's own."""
    return f"{request_id}r{generation}" if generation else request_id


def call_of(request_id: str) -> str:
    """The child's own id, whatever its generation."""
    return _GENERATION.sub("", request_id)


def check_request_id(given: Any) -> str:
    """Return what is given if it names one request: the check at every door, whoever gave it. Raises: InvalidName."""
    text = arguments.text(given, "request_id")
    if not is_request_id(text):
        split_id(text)  # says what is wrong
    return text


def is_request_id(text: str) -> bool:
    """Whether `check_request_id` would take it."""
    return len(text) <= REQUEST_ID_LENGTH_MAX and _REQUEST_ID.fullmatch(text) is not None


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
    first, _, times = request_id.rpartition("+")
    again = first and times.isdecimal() and len(times) < 10
    return f"{first}+{int(times) + 1}" if again else f"{request_id}+1"


def split_id(request_id: str) -> tuple[str, str]:
    """(caller token, number token). Raises: InvalidName when it isn't a request id."""
    if len(request_id) > REQUEST_ID_LENGTH_MAX:
        raise InvalidName(
            f"request id {request_id[:_SHOWN_MAX]!r}… has {len(request_id)} characters; at most"
            f" {REQUEST_ID_LENGTH_MAX} are allowed"
        )
    if not is_request_id(request_id):
        raise InvalidName(
            f"request id {request_id[:_SHOWN_MAX]!r}: expected <caller>.<n>, in plain ASCII without"
            " blanks, '*' and '>'"
        )
    caller, _, number = request_id.partition(".")
    return caller, number
