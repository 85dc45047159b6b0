"""`request` and `cancel`: a caller in a shell.

A request is submitted, so that its id is known as soon as it is stored, and waited for. Whatever ends the wait (Ctrl-C, the
deadline) ends the request, and how it ended is said. Standard output has the reply and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import sys
from decimal import Decimal
from typing import Annotated, Any, Final

import aegis_sdk
import typer
from aegis_sdk import Method
from aegis_sdk.contract.envelope import OutcomeKind
from aegis_sdk.contract.ids import check_request_id
from aegis_sdk.contract.names import check_service
from aegis_sdk.errors import (
    AegisError,
    ContractError,
    Expired,
    HandlerFailed,
    InvalidPayload,
    NeverAccepted,
    NoRoute,
    NotExecuted,
    OutcomeUnknown,
    RefusedByNats,
    Rejected,
    Unavailable,
    UnknownMethod,
    UnknownService,
)

from aegis_control.domain.operators.payloads import problems
from aegis_control.entrypoints.cli import render
from aegis_control.entrypoints.cli.errors import Exit
from aegis_control.entrypoints.cli.options import Cli, DryRun, Yes, command, must_ask
from aegis_control.infrastructure.admin_client import AdminClient, AdminError

_CODES: Final = (
    ((InvalidPayload,), "invalid"),
    ((UnknownService, UnknownMethod, NoRoute, NeverAccepted), "not_found"),
    ((RefusedByNats, Rejected), "refused"),
    ((Unavailable,), "unreachable"),
    ((Expired, OutcomeUnknown), "timed_out"),
    ((NotExecuted, ContractError), "refused"),
    ((HandlerFailed,), "handler_failed"),
)
"""The first that fits; all else is `failed`. The exit codes are those of errors.py."""
_OPEN: Final = (
    "it may still take effect: ask with `ipc-cli explain {}`, or end it with `ipc-cli cancel {}`"
)

MethodName = Annotated[
    str, typer.Argument(metavar="SERVICE.METHOD", help="As `ipc-cli describe SERVICE` names it.")
]
ResourceName = Annotated[
    str | None,
    typer.Option("--resource", "-r", metavar="RESOURCE", help="Whose active it goes to."),
]


def mount(app: typer.Typer) -> None:
    command(app, "request")(request)
    command(app, "cancel")(cancel)


# --- request -----------------------------------------------------------------------------------------
async def request(
    cli: Cli,
    method: MethodName,
    payload: Annotated[
        str, typer.Argument(metavar="[JSON|-]", help="Default: null. `-` reads standard input.")
    ] = "null",
    *,
    resource: ResourceName = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", help="The same key again gets the stored outcome."),
    ] = None,
    dry_run: DryRun = False,
) -> int:
    """Make a request, and print its reply as JSON. Its id and its outcome are on standard error.

    --timeout is its deadline: what is not done by then is cancelled, and so it is by Ctrl-C.
    """
    service, name = _names(method)
    value = _value(sys.stdin.read() if payload == "-" else payload)
    async with cli.admin() as admin:
        await _check(admin, service, name, value, resource)
        if dry_run:
            _show_plan(cli, f"{service}.{name}", resource)
            return Exit.DONE
        async with admin.caller() as aegis:
            asked = _Asked(cli, aegis, Method(service, name, request=_ANY, reply=_ANY))
            return await asked.run(value, resource, key)


def _show_plan(cli: Cli, method: str, resource: str | None) -> None:
    if cli.as_json:
        render.show_json({"method": method, "resource": resource, "dry_run": True})
    else:
        where = "the group" if resource is None else resource
        render.show_line(f"dry run: {method} would be asked of {where}")


_ANY: Final[Any] = Any
"""Any JSON value, as a type."""


class _Asked:
    """One request from its sending to its end."""

    def __init__(self, cli: Cli, aegis: aegis_sdk.Aegis, method: Method[Any, Any]) -> None:
        self._cli = cli
        self._aegis = aegis
        self._method = method

    async def run(self, value: Any, resource: str | None, key: str | None) -> int:
        """Raises: AdminError."""
        timeout_s = self._cli.timeout_s
        try:
            ticket = await self._aegis.submit(
                *(self._method, value),
                resource=resource,
                key=key,
                timeout_s=timeout_s,
                expires_s=timeout_s,
            )
        except AegisError as error:
            raise _error(error) from error
        self._say({"request_id": ticket.id}, f"request {ticket.id}")
        try:
            return await self._outcome(ticket.id)
        except OutcomeUnknown:
            return await self._give_up(ticket.id)
        except asyncio.CancelledError:
            await self._give_up(ticket.id)
            return Exit.INTERRUPTED

    async def _outcome(self, request_id: str) -> int:
        """Its reply is printed. Raises: AdminError; OutcomeUnknown, when it has none in time."""
        try:
            reply = await self._aegis.attach(
                request_id, self._method, timeout_s=self._cli.timeout_s
            )
        except OutcomeUnknown:
            raise
        except AegisError as error:
            raise _error(error, request_id) from error
        self._say({"request_id": request_id, "outcome": "executed"}, "executed")
        render.show_json(reply)
        return Exit.DONE

    async def _give_up(self, request_id: str) -> int:
        """End it, and say what became of it. Raises: AdminError."""
        try:
            kind = await self._aegis.cancel(request_id, timeout_s=self._cli.timeout_s)
            if kind not in (OutcomeKind.CANCELLED, OutcomeKind.EXPIRED):
                return await self._outcome(request_id)
        except AegisError as error:
            raise _error(error, request_id) from error
        self._say(
            {"request_id": request_id, "outcome": kind.value}, f"{kind.value}: it has no effect"
        )
        return Exit.UNREACHABLE

    def _say(self, facts: dict[str, str], words: str) -> None:
        print(json.dumps(facts) if self._cli.as_json else words, file=sys.stderr, flush=True)


def _names(method: str) -> tuple[str, str]:
    service, dot, name = method.partition(".")
    if not dot:
        raise AdminError("usage", f"{method!r} names no method", "write SERVICE.METHOD")
    return check_service(service), check_service(name)


def _value(text: str) -> Any:
    """Raises: AdminError for what is no JSON, or holds a number that no JSON reader here keeps."""
    try:
        return json.loads(text, parse_float=_number, parse_constant=_number)
    except (ValueError, RecursionError) as error:
        hint = 'quote it for the shell: \'{"account": "ACC-1"}\''
        raise AdminError("usage", f"the payload is no JSON: {error}", hint) from error


def _number(text: str) -> float:
    number = float(text)
    if number - number != 0 or Decimal(text) != Decimal(repr(number)):
        raise ValueError(f"{text} can't be kept as a number: write it as text")
    return number


async def _check(
    admin: AdminClient, service: str, name: str, value: Any, resource: str | None
) -> None:
    """By the contract as it is registered. Raises: AdminError."""
    try:
        contract = await admin.archive.contract(service)
    except ValueError:
        return  # another version's: the service has the last word anyway
    if contract is None:
        raise AdminError(
            "not_found", f"no service {service!r} ever registered", "see `ipc-cli list-services`"
        )
    spec = next((each for each in contract.methods if each.name == name), None)
    if spec is None:
        known = ", ".join(each.name for each in contract.methods)
        raise AdminError("not_found", f"{service} has no method {name!r}", f"it has: {known}")
    if spec.targeted and resource is None:
        raise AdminError("usage", f"{service}.{name} takes a resource", "give it with --resource")
    if found := problems(value, spec.request_schema):
        raise AdminError(
            "invalid",
            f"the payload does not fit {service}.{name}: {'; '.join(found)}",
            f"see `ipc-cli describe {service}`",
        )


def _error(error: AegisError, request_id: str = "") -> AdminError:
    code = next((code for kinds, code in _CODES if isinstance(error, kinds)), "failed")
    known = request_id or getattr(error, "request_id", "")
    is_open = isinstance(error, OutcomeUnknown) and not isinstance(error, NeverAccepted)
    return AdminError(code, str(error), _OPEN.format(known, known) if is_open and known else "")


# --- cancel ------------------------------------------------------------------------------------------
async def cancel(
    cli: Cli,
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="As in logs and errors.")],
    *,
    method: Annotated[
        str | None,
        typer.Option(
            "--method", metavar="SERVICE.METHOD", help="Of one that may have been sent only."
        ),
    ] = None,
    resource: ResourceName = None,
    yes: Yes = False,
) -> int:
    """End a request that somebody made, and say how it ended. Exit code 5 if it had ended before.

    Its active is asked first, so that a request that has begun may still be executed. See `explain` for how it stands.
    """
    check_request_id(request_id)
    about = None
    if method is not None:
        about = Method(*_names(method), request=_ANY, reply=_ANY)
    async with cli.admin() as admin, admin.caller() as aegis:
        if must_ask(cli, yes=yes) and not typer.confirm(f"End {request_id}?"):
            print("nothing was changed")
            return Exit.FAILED
        try:
            kind = await aegis.cancel(request_id, about, resource=resource, timeout_s=cli.timeout_s)
        except AegisError as error:
            raise _error(error, request_id) from error
    if cli.as_json:
        render.show_json({"request_id": request_id, "outcome": kind.value})
    elif kind is OutcomeKind.CANCELLED:
        render.show_line(f"{request_id} is cancelled: it has no effect")
    else:
        render.show_line(f"{request_id} had ended: {kind.value}")
    return Exit.DONE if kind is OutcomeKind.CANCELLED else Exit.REFUSED
