"""Ask a control service as an operator: one NATS request for each verb, contract models both ways.

It knows neither terminals nor exit codes. Whatever goes wrong becomes one `AdminError`, whose `code`
says what kind of failure it was and whose `hint` says what to do next.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aegis_sdk
from aegis_sdk.contract.addresses import shown
from aegis_sdk.contract.control import (
    AcceptLoss,
    AdminReply,
    CheckupView,
    DeadLetterMoved,
    DeadLetterOrder,
    FailoverResources,
    ForgetService,
    Forgotten,
    LossAccepted,
    Moved,
    PauseTraffic,
    PauseView,
    Rebalance,
    Rebalanced,
    Retired,
    RetireResource,
    RouteView,
    ServiceRecord,
    ServiceView,
    ShowRoute,
    TargetInstance,
    TrafficPaused,
)
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.errors import InvalidAddress, RefusedByNats, Unavailable
from aegis_sdk.nats.calls import NoAnswer, NobodyListens, ask
from aegis_sdk.nats.jetstream import JetStream
from aegis_sdk.nats.link import Link
from nats import errors as nats_errors
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from aegis_control.application.operators.survey import Overview
from aegis_control.infrastructure.nats_archive import NatsArchive
from aegis_control.infrastructure.nats_connect import Credentials, CredentialsUnusable

_T = TypeVar("_T")

_CLOSE_TIMEOUT_S: Final = 0.5
"""Closing only says goodbye; an operator doesn't wait for it."""


class ControlStatus(BaseModel):
    """What the leading control says of itself; counts by state."""

    leader: str
    version: str = ""
    leading_since: float = 0.0
    services: int = 0
    instances: dict[str, int] = {}
    resources: dict[str, int] = {}
    paused: list[PauseView] = []


class ServiceDescription(BaseModel):
    """A service in full: its registered contract, its instances, and the route of each resource."""

    service: ServiceRecord
    view: ServiceView
    routes: list[RouteView] = []


_ABOUT_LOGIN: Final = re.compile("authorization|authentication", re.IGNORECASE)
_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")
"""What Python puts in the place of bytes that are no UTF-8."""
_SERVICES: Final = TypeAdapter(list[ServiceView])
_ROUTES: Final = TypeAdapter(list[RouteView])
_MOVED: Final = TypeAdapter(Moved)
_REBALANCED: Final = TypeAdapter(Rebalanced)
_PAUSED: Final = TypeAdapter(TrafficPaused)
_RETIRED: Final = TypeAdapter(Retired)
_FORGOTTEN: Final = TypeAdapter(Forgotten)
_ACCEPTED: Final = TypeAdapter(LossAccepted)
_CHECKUP: Final = TypeAdapter(CheckupView)
_LETTER: Final = TypeAdapter(DeadLetterMoved)
_OVERVIEW: Final = TypeAdapter(Overview)
_STATUS: Final = TypeAdapter(ControlStatus)
_DESCRIPTION: Final = TypeAdapter(ServiceDescription)
_CONTRACT: Final = TypeAdapter(ServiceRecord)


class AdminError(Exception):
    """A request to control that did not work.

    Attributes:
        code: `unreachable` (no NATS), `denied` (credentials), `no_control` (nobody listens),
            `timed_out`, `garbled` (the answer is not ours), or control's own code: `not_found`,
            `refused`, `invalid`, `internal`.
        message: what was wrong, one line.
        hint: what to do next, one line; may be empty.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class AdminClient:
    """One connection to NATS for operators' requests; an async context manager.

    Args:
        url: NATS URL, or several with commas between; may hold a user and a password.
        prefix: the environment's prefix of subjects.
        timeout_s: for connecting, and for each answer.
        credentials: how to log in, if not by the URL; the files for TLS.

    Every method raises AdminError.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "aegis",
        timeout_s: float = 3.0,
        credentials: Credentials | None = None,
    ) -> None:
        self._url = url
        self._credentials = credentials or Credentials()
        self._subjects = Subjects(prefix)
        self._timeout_s = timeout_s
        self._opened: Link | None = None

    @property
    def link(self) -> JetStream:
        """The streams, for what is read from NATS itself."""
        return JetStream(self._link, api_timeout_s=self._timeout_s)

    @property
    def _link(self) -> Link:
        assert self._opened is not None
        return self._opened

    @property
    def subjects(self) -> Subjects:
        return self._subjects

    @property
    def archive(self) -> NatsArchive:
        """What is stored; it needs no control. Its methods raise Unavailable."""
        return NatsArchive(self.link, self._subjects)

    def caller(self) -> AbstractAsyncContextManager[aegis_sdk.Aegis]:
        """A connection that makes requests, by the same login. Entering it raises Unavailable."""
        return aegis_sdk.connect(
            self._url,
            prefix=self._subjects.prefix,
            name="ipc-cli",
            wait_s=self._timeout_s,
            metrics=False,
            **self._credentials.login(),
        )

    @property
    def server(self) -> dict[str, Any]:
        """What the server said of itself when it greeted us (version, max_payload, cluster, ...)."""
        return dict(self._link.client._server_info)

    @property
    def safe_url(self) -> str:
        """The URL without passwords and tokens."""
        return shown(self._url)

    @property
    def server_version(self) -> str:
        """The version of the NATS server that this connection reached."""
        version = self._link.client.connected_server_version
        return f"{version.major}.{version.minor}.{version.patch}"

    async def __aenter__(self) -> Self:
        try:
            server = self._credentials.server(self._url)
            async with asyncio.timeout(self._timeout_s):
                self._opened = await Link.open(
                    server, name="ipc-cli", keep=False, timeout_s=self._timeout_s, logger=None
                )
        except InvalidAddress as error:
            raise AdminError("invalid", str(error)) from error
        except CredentialsUnusable as error:
            raise AdminError("usage", str(error)) from error
        except TimeoutError as error:
            raise self._unreachable(f"no answer within {self._timeout_s:g} s") from error
        except RefusedByNats as error:
            raise self._refused(str(error)) from error
        except Unavailable as error:
            why = str(error).removeprefix(f"NATS does not answer at {self.safe_url}: ")
            raise self._unreachable(why) from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._link.close()
        except (TimeoutError, OSError, nats_errors.Error):
            pass

    async def status(self) -> ControlStatus:
        """Which control leads, and how many of everything it knows."""
        return await self._ask("status", b"", _STATUS)

    async def overview(self) -> Overview:
        """Every service with its instances; its resources are counted."""
        return await self._ask("overview", b"", _OVERVIEW)

    async def describe(self, service: str) -> ServiceDescription:
        """One service in full."""
        return await self._ask("describe", json.dumps({"service": service}).encode(), _DESCRIPTION)

    async def contract(self, service: str) -> ServiceRecord:
        """What a service registered: its methods, with the JSON schemas of their requests and replies."""
        return await self._ask("contract", json.dumps({"service": service}).encode(), _CONTRACT)

    async def list_services(self) -> list[ServiceView]:
        """All services that ever registered, with their instances."""
        return await self._ask("list-services", b"", _SERVICES)

    async def show_route(self, resource: str, *, service: str | None = None) -> list[RouteView]:
        """Who is active for a resource; one view for each service that has a resource of this id."""
        query = ShowRoute(resource=resource, service=service)
        return await self._ask("show-route", _body(query), _ROUTES)

    async def disconnect(self, target: TargetInstance) -> Moved:
        """Take an instance out at once; its resources move to standbys."""
        return await self._ask("disconnect", _body(target), _MOVED)

    async def drain(self, target: TargetInstance) -> Moved:
        """Let an instance finish what it began, then leave; its resources move to standbys."""
        return await self._ask("drain", _body(target), _MOVED)

    async def failover(self, order: FailoverResources) -> Moved:
        """Move resources on purpose."""
        return await self._ask("failover", _body(order), _MOVED)

    async def rebalance(self, order: Rebalance) -> Rebalanced:
        """Have the AUTO resources spread evenly from now on."""
        return await self._ask("rebalance", _body(order), _REBALANCED)

    async def accept_loss(self, order: AcceptLoss) -> LossAccepted:
        """Go on without what a service's streams lost."""
        return await self._ask("accept-loss", _body(order), _ACCEPTED)

    async def pause(self, order: PauseTraffic) -> TrafficPaused:
        """Begin nothing new of a resource, a service or a method; again, it is asked what has begun."""
        return await self._ask("pause", _body(order), _PAUSED)

    async def resume(self, order: PauseTraffic) -> TrafficPaused:
        """Serve it again."""
        return await self._ask("resume", _body(order), _PAUSED)

    async def retire(self, order: RetireResource) -> Retired:
        """End a resource for good."""
        return await self._ask("retire", _body(order), _RETIRED)

    async def forget(self, order: ForgetService) -> Forgotten:
        """Remove a service from everywhere."""
        return await self._ask("forget", _body(order), _FORGOTTEN)

    async def checkup(self) -> CheckupView:
        """What only control can say for `doctor`."""
        return await self._ask("checkup", b"", _CHECKUP)

    async def redrive(self, order: DeadLetterOrder) -> DeadLetterMoved:
        """Send a dead letter's request again."""
        return await self._ask("dlq-redrive", _body(order), _LETTER)

    async def drop(self, order: DeadLetterOrder) -> DeadLetterMoved:
        """Forget a dead letter."""
        return await self._ask("dlq-drop", _body(order), _LETTER)

    async def _ask(self, verb: str, body: bytes, reply: TypeAdapter[_T]) -> _T:
        data = _accepted(await self._request(verb, body))
        try:
            return reply.validate_python(data)
        except ValidationError as error:
            raise _garbled(verb) from error

    async def _request(self, verb: str, body: bytes) -> AdminReply:
        try:
            reply = await ask(
                self._link, self._subjects.admin(verb), body, timeout_s=self._timeout_s
            )
            return AdminReply.model_validate_json(reply)
        except NobodyListens as error:
            raise self._no_control() from error
        except NoAnswer as error:
            raise AdminError(
                "timed_out",
                f"control did not answer {verb} at {self.safe_url} within {self._timeout_s:g} s",
                "it may still act on it: look with `ipc-cli list-services`, or raise --timeout",
            ) from error
        except RefusedByNats as error:
            raise AdminError(
                "denied", str(error), "give this login the right to ask there"
            ) from error
        except Unavailable as error:
            raise self._unreachable(_one_line(error)) from error
        except ValidationError as error:
            raise _garbled(verb) from error

    def _no_control(self) -> AdminError:
        return AdminError(
            "no_control",
            f"no control service answers at {self.safe_url} for the prefix "
            f"{self._subjects.prefix!r}",
            "start one with: aegis-control serve",
        )

    def _refused(self, reason: str) -> AdminError:
        if reason.startswith("TLS"):
            hint = "give its CA with --tls-ca, and --tls-cert and --tls-key where it asks for ours"
            return AdminError("denied", reason, hint)
        if _ABOUT_LOGIN.search(reason):
            return AdminError(
                "denied",
                f"NATS at {self.safe_url} refused the credentials ({reason.partition(' (at ')[0]})",
                "give --user and --password, --creds or --nkey, or nats://USER:PASSWORD@HOST:PORT",
            )
        return AdminError("denied", reason, "look at NATS's limits and log")

    def _unreachable(self, why: str) -> AdminError:
        return AdminError(
            "unreachable",
            f"NATS is not reachable at {self.safe_url} ({why})",
            "check that the server runs; give its URL with --url or AEGIS_URL",
        )


def _body(argument: BaseModel) -> bytes:
    """Raises: AdminError for what a shell took from a file's name: bytes that are no text."""
    try:
        return argument.model_dump_json().encode()
    except PydanticSerializationError as error:
        words = [v for v in argument.model_dump().values() if isinstance(v, str)]
        odd = next(filter(_HALF_PAIR.search, words))
        raise AdminError("invalid", f"{odd!r} is not valid Unicode text") from error


def _accepted(reply: AdminReply) -> Any:
    """The reply's data. Raises: AdminError with control's own words when it said no."""
    if reply.ok:
        return reply.data
    code = reply.code or "internal"
    hint = "see control's log" if code == "internal" else ""
    raise AdminError(code, reply.message or f"control answered {code}", hint)


def _garbled(verb: str) -> AdminError:
    return AdminError(
        "garbled",
        f"the answer to {verb} is not one that this ipc-cli understands",
        "use the ipc-cli of the same version as the control service",
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
