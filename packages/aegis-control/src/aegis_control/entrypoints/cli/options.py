"""The options that all commands share, accepted before and after the command's name.

A command is an async function whose first parameter is `Cli`; `command` makes a typer command of it
that also takes the shared options. What stands after the name wins over what stands before it.
"""

from __future__ import annotations

import asyncio
import getpass
import inspect
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Concatenate, Final, ParamSpec

import typer
from aegis_sdk.contract.names import check_service
from aegis_sdk.errors import InvalidName

from aegis_control.entrypoints.cli import render
from aegis_control.entrypoints.cli.contexts import read_context
from aegis_control.infrastructure.admin_client import AdminClient, AdminError
from aegis_control.infrastructure.nats_connect import Credentials

P = ParamSpec("P")

DEFAULT_URL: Final = "nats://127.0.0.1:4222"
DEFAULT_TIMEOUT_S: Final = 3.0
NO_LOGIN: Final = Credentials()
_UNITS_S: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    """Each document in one line."""


@dataclass(frozen=True, slots=True)
class Cli:
    """Where to ask, and how to answer."""

    url: str = field(default=DEFAULT_URL, repr=False)
    prefix: str = "aegis"
    timeout_s: float = DEFAULT_TIMEOUT_S
    output: Output = Output.TABLE
    operator: str = ""
    """Who changes something; empty is `user@host`."""
    credentials: Credentials = NO_LOGIN

    @classmethod
    def from_environment(cls) -> Cli:
        """The defaults, with AEGIS_URL, AEGIS_PREFIX, AEGIS_OPERATOR, AEGIS_CONTEXT and the login's in their place where set.

        What the context says wins. Raises: AdminError.
        """
        found = {name: os.environ.get(f"AEGIS_{name.upper()}") or None for name in LOGIN}
        cli = cls().but(
            url=os.environ.get("AEGIS_URL") or None,
            prefix=os.environ.get("AEGIS_PREFIX") or None,
            operator=os.environ.get("AEGIS_OPERATOR") or None,
        )
        return cli.logged_in(found).within(os.environ.get("AEGIS_CONTEXT"))

    def within(self, context: str | None) -> Cli:
        """This with what a context of the `nats` command says, if one is named. Raises: AdminError."""
        found = read_context(context) if context else {}
        return self.but(url=found.pop("url", None)).logged_in(found)

    def by(self, given: str | None) -> str:
        """Who asks for a change, for the records: a statement, not a proof."""
        return given or self.operator or _user_at_host()

    @property
    def as_json(self) -> bool:
        return self.output is not Output.TABLE

    def admin(self) -> AdminClient:
        """A client, not connected yet. Raises: AdminError for a prefix that can't be one."""
        try:
            check_service(self.prefix)
        except InvalidName as error:
            raise AdminError("usage", f"--prefix: {error}") from error
        return AdminClient(
            self.url,
            prefix=self.prefix,
            timeout_s=self.timeout_s,
            credentials=self.credentials,
        )

    def but(self, **given: Any) -> Cli:
        """This with those options that were given (are not None)."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def logged_in(self, given: Mapping[str, str | None]) -> Cli:
        """This with those parts of the login that were given (are not None)."""
        login = {name: value for name, value in given.items() if value is not None}
        return replace(self, credentials=replace(self.credentials, **login))


def _positive(value: float | None) -> float | None:
    if value is not None and not 0 < value <= 3600:
        raise typer.BadParameter("give seconds above 0, at most 3600")
    return value


_PANEL: Final = "Shared options (before or after the command)"

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help=f"NATS server; several with commas (env AEGIS_URL; default {DEFAULT_URL}).",
        rich_help_panel=_PANEL,
    ),
]
Context = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="NAME",
        help="Address and login as the nats command keeps them (env AEGIS_CONTEXT).",
        rich_help_panel=_PANEL,
    ),
]
Prefix = Annotated[
    str | None,
    typer.Option(
        "--prefix",
        help="The environment's prefix (env AEGIS_PREFIX; default aegis).",
        rich_help_panel=_PANEL,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        callback=_positive,
        help=f"For connecting, and for each answer (default {DEFAULT_TIMEOUT_S:g}).",
        rich_help_panel=_PANEL,
    ),
]
OutputOption = Annotated[
    Output | None,
    typer.Option(
        "--output",
        "-o",
        help="For people or for programs (default table).",
        rich_help_panel=_PANEL,
    ),
]


def _login(name: str, metavar: str, what: str) -> Any:
    return typer.Option(
        f"--{name.replace('_', '-')}",
        metavar=metavar,
        help=f"{what} (env AEGIS_{name.upper()}).",
        rich_help_panel="Login to NATS (before or after the command)",
    )


User = Annotated[str | None, _login("user", "USER", "User, if not in the URL")]
Password = Annotated[
    str | None,
    _login(
        "password",
        "PASSWORD",
        "Its password; others see it in the list of processes, not so in the environment",
    ),
]
Creds = Annotated[str | None, _login("creds", "FILE", "Credentials: JWT and seed")]
Nkey = Annotated[str | None, _login("nkey", "FILE", "NKEY seed")]
TlsCa = Annotated[str | None, _login("tls_ca", "FILE", "CA certificates of the servers, PEM")]
TlsCert = Annotated[str | None, _login("tls_cert", "FILE", "Our certificate, PEM")]
TlsKey = Annotated[str | None, _login("tls_key", "FILE", "Its key, PEM")]
Domain = Annotated[str | None, _login("domain", "NAME", "JetStream domain")]
InboxPrefix = Annotated[
    str | None, _login("inbox_prefix", "SUBJECT", "Prefix of the subjects for answers")
]
LOGIN: Final[Mapping[str, Any]] = {
    "user": User,
    "password": Password,
    "creds": Creds,
    "nkey": Nkey,
    "tls_ca": TlsCa,
    "tls_cert": TlsCert,
    "tls_key": TlsKey,
    "domain": Domain,
    "inbox_prefix": InboxPrefix,
}
"""The options of the login, by their names in `Credentials`."""

ServiceOption = Annotated[
    str | None, typer.Option("--service", "-s", help="Only this service.", metavar="SERVICE")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the records and the log.")]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Don't ask. Only a terminal is asked; a script is not.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, change nothing.")]
As = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="NAME",
        help="Who asks, for the records (env AEGIS_OPERATOR; default user@host).",
    ),
]


def must_ask(cli: Cli, *, yes: bool) -> bool:
    """Like rm: a person at a terminal is asked, a script that names what it wants is obeyed."""
    return not (yes or cli.as_json) and sys.stdin.isatty() and sys.stdout.isatty()


def moment(option: str, text: str) -> float:
    """Unix time. Raises: AdminError for what is neither a duration, back from now, nor a time."""
    span = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if span is not None:
        return max(0.0, time.time() - float(span[1]) * _UNITS_S[span[2]])
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise AdminError(
            "usage", f"{option} {text!r} is no time", "write 90s, 10m, 2h, 1d or 2026-01-31T09:00Z"
        ) from error


def _user_at_host() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def command(
    app: typer.Typer, name: str
) -> Callable[[Callable[Concatenate[Cli, P], Coroutine[Any, Any, int | None]]], None]:
    """Register an async function as the command `name`; what it returns is the exit code (None: 0)."""

    def register(
        function: Callable[Concatenate[Cli, P], Coroutine[Any, Any, int | None]],
    ) -> None:
        app.command(name)(_with_shared_options(function))

    return register


def _with_shared_options(
    function: Callable[..., Coroutine[Any, Any, int | None]],
) -> Callable[..., None]:
    def run(
        ctx: typer.Context,
        url: str | None,
        prefix: str | None,
        timeout: float | None,
        output: Output | None,
        context: str | None,
        **arguments: Any,
    ) -> None:
        login = {name: arguments.pop(name) for name in LOGIN}
        cli: Cli = ctx.obj.within(context).but(
            url=url, prefix=prefix, timeout_s=timeout, output=output
        )
        cli = cli.logged_in(login)
        render.in_lines.set(cli.output is Output.JSONL)
        code = asyncio.run(function(cli, **arguments))
        raise typer.Exit(code or 0)

    # Not functools.wraps: typer would follow it back to the signature without the shared options.
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    signature = _signature(function)
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return run


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """The function's own parameters without `cli`, with the shared options around them."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    _, *own = inspect.signature(function, eval_str=True).parameters.values()
    shared = {
        "url": Url,
        "context": Context,
        "prefix": Prefix,
        "timeout": Timeout,
        "output": OutputOption,
        **LOGIN,
    }
    return inspect.Signature(
        [
            inspect.Parameter("ctx", keyword, annotation=typer.Context),
            *(parameter.replace(kind=keyword) for parameter in own),
            *(
                inspect.Parameter(name, keyword, default=None, annotation=annotation)
                for name, annotation in shared.items()
            ),
        ]
    )
