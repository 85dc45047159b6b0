"""`ipc-cli`: the operators' tool.

What is there, and every change, is control's to say and to do. What was stored (a request's life, dead
letters, events) is read from NATS itself, so that it can be asked after when control is down too.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

import typer
from aegis_sdk.errors import InvalidName, Unavailable

from aegis_control.entrypoints.cli.app import app
from aegis_control.entrypoints.cli.doctor import mount as mount_doctor
from aegis_control.entrypoints.cli.endings import mount as mount_endings
from aegis_control.entrypoints.cli.errors import Exit, report
from aegis_control.entrypoints.cli.exports import mount as mount_exports
from aegis_control.entrypoints.cli.history import mount as mount_history
from aegis_control.entrypoints.cli.letters import mount as mount_letters
from aegis_control.entrypoints.cli.losses import mount as mount_losses
from aegis_control.entrypoints.cli.pasts import mount as mount_pasts
from aegis_control.entrypoints.cli.pausing import mount as mount_pausing
from aegis_control.entrypoints.cli.rebalance import mount as mount_rebalance
from aegis_control.entrypoints.cli.requests import mount as mount_requests
from aegis_control.entrypoints.cli.timers import mount as mount_timers
from aegis_control.entrypoints.cli.top import mount as mount_top
from aegis_control.entrypoints.pipes import read_to_the_end_or_not
from aegis_control.infrastructure.admin_client import AdminError

__all__ = ["main"]

for _mount in (
    mount_rebalance,
    mount_history,
    mount_letters,
    mount_losses,
    mount_endings,
    mount_pausing,
    mount_pasts,
    mount_timers,
    mount_exports,
    mount_requests,
    mount_top,
    mount_doctor,
):
    _mount(app)

_JSON_WORDS = {f"{o}{form}" for o in ("-o", "-o=", "--output=") for form in ("json", "jsonl")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ipc-cli with `arguments` (default: the command line's) and end the process.

    Raises: SystemExit, always; its codes are those of `errors.Exit`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(read_to_the_end_or_not(lambda: _run(given)))


def _run(given: list[str]) -> int:
    as_json = _wants_json(given)
    try:
        return int(app(args=given, prog_name="ipc-cli", standalone_mode=False) or 0)
    except AdminError as error:
        return report(error, as_json=as_json)
    except Unavailable as error:
        hint = "look with `ipc-cli doctor`, or raise --timeout"
        return report(AdminError("unreachable", str(error), hint), as_json=as_json)
    except InvalidName as error:
        return report(AdminError("invalid", str(error)), as_json=as_json)
    except typer.TyperException as error:
        return _usage(error, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        return report(AdminError("interrupted", "interrupted"), as_json=as_json)


def _usage(error: typer.TyperException, *, as_json: bool) -> int:
    message = error.format_message()
    if not message:  # Without a command, typer has shown the help already.
        return Exit.USAGE
    return report(AdminError("usage", message, "see `ipc-cli --help`"), as_json=as_json)


def _wants_json(given: Sequence[str]) -> bool:
    """Told before parsing, because what can't be parsed is answered in the right form too."""
    pairs = itertools.pairwise(given)
    return any(word in _JSON_WORDS for word in given) or any(
        name in ("-o", "--output") and value in ("json", "jsonl") for name, value in pairs
    )
