"""What an operator sees when something does not work: one line on stderr and an exit code.

The exit codes are part of the tool's interface: scripts branch on them.
"""

from __future__ import annotations

import json
import sys
from enum import IntEnum
from typing import Final

from aegis_control.infrastructure.admin_client import AdminError


class Exit(IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    """NATS or control did not answer in time."""
    REFUSED = 5
    DEGRADED = 6
    INTERRUPTED = 130
    """As shells report a Ctrl-C: 128 + SIGINT."""


_EXIT_OF: Final = {
    "usage": Exit.USAGE,
    "invalid": Exit.USAGE,
    "not_found": Exit.NOT_FOUND,
    "unreachable": Exit.UNREACHABLE,
    "no_control": Exit.UNREACHABLE,
    "timed_out": Exit.UNREACHABLE,
    "refused": Exit.REFUSED,
    "denied": Exit.REFUSED,
    "degraded": Exit.DEGRADED,
    "interrupted": Exit.INTERRUPTED,
}
"""Every other code is FAILED."""


def exit_code(code: str) -> int:
    return int(_EXIT_OF.get(code, Exit.FAILED))


def report(error: AdminError, *, as_json: bool) -> int:
    """Write `error` to stderr, as a line for people or as JSON. Returns the exit code to end with."""
    status = exit_code(error.code)
    if as_json:
        body = {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "exit_code": status,
        }
        line = json.dumps({"error": body}, ensure_ascii=False)
    else:
        line = f"ipc-cli: {_one_line(error)}"
    print(line, file=sys.stderr)
    return status


def _one_line(error: AdminError) -> str:
    text = f"{error.message.rstrip('.')}; {error.hint}" if error.hint else error.message
    words = " ".join(text.split())
    # What somebody typed or stored must not write to the terminal.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
