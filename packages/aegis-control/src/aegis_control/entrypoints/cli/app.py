"""The commands about what is there and who is active: ask control, show the answer."""

from __future__ import annotations

import platform
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated, Final, Generic, TypeVar

import typer
from aegis_sdk.contract.control import (
    RESOURCES_A_MOVE_MAX,
    FailoverResources,
    Moved,
    ServiceView,
    TargetInstance,
)
from aegis_sdk.contract.names import encode_token
from pydantic import BaseModel

from aegis_control.domain.operators import asyncapi
from aegis_control.entrypoints.cli import render
from aegis_control.entrypoints.cli.change import carry_out
from aegis_control.entrypoints.cli.doctor import unwell
from aegis_control.entrypoints.cli.errors import Exit
from aegis_control.entrypoints.cli.options import (
    As,
    Cli,
    Context,
    Creds,
    Domain,
    DryRun,
    InboxPrefix,
    Nkey,
    OutputOption,
    Password,
    Prefix,
    Reason,
    ServiceOption,
    Timeout,
    TlsCa,
    TlsCert,
    TlsKey,
    Url,
    User,
    Yes,
    command,
)
from aegis_control.infrastructure.admin_client import (
    AdminClient,
    AdminError,
    ControlStatus,
)

_EPILOG: Final = (
    "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 unreachable or timed out, 5 refused, "
    "6 degraded, 130 interrupted."
)

Order = TypeVar("Order", TargetInstance, FailoverResources)

app = typer.Typer(
    name="ipc-cli",
    help="See and move what AegisIPC's control service manages.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

InstanceArgument = Annotated[str, typer.Argument(metavar="INSTANCE", help="The instance's id.")]
ResourceArgument = Annotated[str, typer.Argument(metavar="RESOURCE", help="The resource's id.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ipc-cli {_version('aegis-control')}")
        raise typer.Exit(Exit.DONE)


@app.callback()
def _shared(
    ctx: typer.Context,
    *,
    url: Url = None,
    context: Context = None,
    prefix: Prefix = None,
    timeout: Timeout = None,
    output: OutputOption = None,
    user: User = None,
    password: Password = None,
    creds: Creds = None,
    nkey: Nkey = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    domain: Domain = None,
    inbox_prefix: InboxPrefix = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    cli = Cli.from_environment().within(context)
    cli = cli.but(url=url, prefix=prefix, timeout_s=timeout, output=output)
    login = {"user": user, "password": password, "creds": creds, "nkey": nkey}
    login |= {"tls_ca": tls_ca, "tls_cert": tls_cert, "tls_key": tls_key}
    ctx.obj = cli.logged_in(login | {"domain": domain, "inbox_prefix": inbox_prefix})


@command(app, "list-services")
async def list_services(cli: Cli) -> None:
    """All services with their instances, states and roles."""
    async with cli.admin() as admin:
        services = await admin.list_services()
    if cli.as_json:
        render.show_json(services)
    else:
        render.show_services(services)


@command(app, "list-instances")
async def list_instances(cli: Cli, service: ServiceOption = None) -> None:
    """All instances: state, roles, lag behind the journal, last heartbeat, where they run."""
    async with cli.admin() as admin:
        services = await admin.list_services()
    if service is not None:
        services = [_find(services, service)]
    instances = [instance for entry in services for instance in entry.instances]
    if cli.as_json:
        render.show_json(instances)
    else:
        render.show_instances(instances)


@command(app, "describe")
async def describe(
    cli: Cli,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="Its name.")],
    *,
    as_asyncapi: Annotated[
        bool, typer.Option("--asyncapi", help="Its contract alone, as an AsyncAPI 3 document.")
    ] = False,
) -> None:
    """One service in full: methods, resources with their routes, and each of its instances."""
    async with cli.admin() as admin:
        if as_asyncapi:
            render.show_json(asyncapi.document(await admin.contract(service), cli.prefix))
            return
        found = await admin.describe(service)
    if cli.as_json:
        render.show_json(found)
    else:
        render.show_service(found.view, found.service, found.routes)


@command(app, "show-route")
async def show_route(cli: Cli, resource: ResourceArgument, service: ServiceOption = None) -> None:
    """Where requests to a resource go: its active, the epoch, the standbys and their lag."""
    async with cli.admin() as admin:
        routes = await admin.show_route(resource, service=service)
    if not routes:
        raise AdminError("not_found", f"no instance ever served a resource {resource!r}")
    if cli.as_json:
        render.show_json(routes)
    else:
        render.show_routes(routes)


@command(app, "disconnect")
async def disconnect(
    cli: Cli,
    instance: InstanceArgument,
    *,
    reason: Reason = "",
    as_: As = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> int:
    """Take an instance out at once: its resources move to standbys, and this run of it can't return."""
    order = TargetInstance(instance_id=instance, reason=reason, dry_run=dry_run, by=cli.by(as_))
    change = Change(order, AdminClient.disconnect, "is disconnected", "would be disconnected")
    return await _carry_out(cli, change, name=instance, yes=yes)


@command(app, "drain")
async def drain(
    cli: Cli,
    instance: InstanceArgument,
    *,
    reason: Reason = "",
    as_: As = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> int:
    """Let an instance finish what it began and leave; its resources move to standbys."""
    order = TargetInstance(instance_id=instance, reason=reason, dry_run=dry_run, by=cli.by(as_))
    change = Change(order, AdminClient.drain, "drains", "would drain")
    return await _carry_out(cli, change, name=instance, yes=yes)


@command(app, "failover")
async def failover(
    cli: Cli,
    resources: Annotated[
        list[str], typer.Argument(metavar="RESOURCE...", help="One or several resources' ids.")
    ],
    *,
    service: ServiceOption = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="INSTANCE", help="Default: the best standby.")
    ] = None,
    reason: Reason = "",
    as_: As = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> int:
    """Move resources to a standby on purpose; callers see only time.

    They stay there, whatever else is spread over the instances, until it leaves or fails, or until `rebalance`.
    """
    if len(resources) > RESOURCES_A_MOVE_MAX:
        raise AdminError(
            "usage", f"{len(resources)} resources: give at most {RESOURCES_A_MOVE_MAX} in one call"
        )
    for name in resources:
        encode_token(name)
    order = FailoverResources(
        resources=resources,
        service=service,
        to=to,
        reason=reason,
        dry_run=dry_run,
        by=cli.by(as_),
    )
    one = len(set(resources)) == 1
    change = Change(order, AdminClient.failover, "has moved" if one else "have moved", "would move")
    name = resources[0] if one else f"{len(set(resources))} resources"
    return await _carry_out(cli, change, name=name, yes=yes)


@command(app, "status")
async def status(cli: Cli) -> int:
    """Is NATS there, who leads control, is every instance and resource well? Exit code 6 if one is not."""
    async with cli.admin() as admin:
        asked = time.perf_counter()
        control = await admin.status()
        report = Status(
            url=admin.safe_url,
            nats_version=admin.server_version,
            answered_s=round(time.perf_counter() - asked, 6),
            control=control,
            unwell=[finding.found for finding in await unwell(admin)],
        )
    if cli.as_json:
        render.show_json(report)
    else:
        render.show_pairs(_status_lines(report))
    return Exit.DEGRADED if report.unwell else Exit.DONE


@command(app, "version")
async def version(cli: Cli) -> None:
    """The versions of this tool and of what it is built on; asks nobody."""
    report = {
        "ipc_cli": _version("aegis-control"),
        "aegis_sdk": _version("aegis-sdk"),
        "nats_py": _version("nats-py"),
        "python": platform.python_version(),
    }
    if cli.as_json:
        render.show_json(report)
    else:
        render.show_pairs(report.items())


def _find(services: Sequence[ServiceView], name: str) -> ServiceView:
    """Raises: AdminError when no service is called `name`."""
    for service in services:
        if service.service == name:
            return service
    known = ", ".join(service.service for service in services[:5]) or "none yet"
    raise AdminError(
        "not_found", f"no service {name!r} ever registered", f"known services: {known}"
    )


@dataclass(frozen=True, slots=True)
class Change(Generic[Order]):
    """An order to control, with the words for what it did or, dry, would do."""

    order: Order
    send: Callable[[AdminClient, Order], Awaitable[Moved]]
    did: str
    would: str


async def _carry_out(cli: Cli, change: Change[Order], *, name: str, yes: bool) -> int:

    def show(moved: Moved) -> None:
        render.show_moved(moved, done=f"{name} {change.did}", planned=f"{name} {change.would}")

    return await carry_out(cli, change.order, change.send, show, yes=yes)


class Status(BaseModel):
    """What `status` says; `unwell` is what `doctor` finds bad of the running system."""

    url: str
    nats_version: str
    answered_s: float
    control: ControlStatus
    unwell: list[str]


def _status_lines(report: Status) -> list[tuple[str, str]]:
    control = report.control
    return [
        ("nats", f"{report.url}, version {report.nats_version}"),
        ("control", f"{control.leader} leads; answered in {report.answered_s * 1000:.1f} ms"),
        ("services", str(control.services)),
        ("instances", render.by_state(control.instances)),
        ("resources", render.by_state(control.resources)),
        ("paused", "; ".join(map(render.pause, control.paused)) or "nothing"),
        ("health", f"degraded: {'; '.join(report.unwell)}" if report.unwell else "ok"),
    ]


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"
