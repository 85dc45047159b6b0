"""The console page over HTTP: its files, its documents, and changes for those who have the token.

The files are this package's own data and nothing else is loaded: the headers forbid it. Each answer is
JSON with an `error` when it is one. A change needs the token in a header of its own, which no other site's
page can send. Each document has a turnstile of its own (application/operators/turnstile.py), so that a crowd that asks
for one costs control the time of one.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from importlib import resources
from pathlib import PurePosixPath
from typing import Final

import pydantic
from aegis_sdk.contract.control import AdminReply, ServiceRecord
from aegis_sdk.contract.values import field_errors
from aegis_sdk.errors import InvalidName, Unavailable
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aegis_control.application.operators.console import VERBS, Action, Console
from aegis_control.application.operators.explain import NotFound
from aegis_control.application.operators.survey import FindResources
from aegis_control.application.operators.turnstile import Busy, Turnstile
from aegis_control.infrastructure.seldom import Seldom

TOKEN_HEADER: Final = "x-aegis-console-token"
BODY_BYTES_MAX: Final = 16_384
GUESS_S: Final = 1.0
"""Between two wrong tokens from one address."""
GUESSERS_MAX: Final = 1_000
"""Addresses that are kept; when more guess within a second, everybody waits."""
EXPLAINING_MAX: Final = 3
"""One is searched for, the others wait: more than that nobody would wait for."""
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_STATUS: Final = {
    "not_found": HTTPStatus.NOT_FOUND,
    "refused": HTTPStatus.CONFLICT,
    "invalid": HTTPStatus.BAD_REQUEST,
}
"""By control's codes; any other one is an internal error."""

Handler = Callable[[Request], Awaitable[Response]]


class StrictHeaders:
    """ASGI: every answer says that nothing foreign may be loaded, framed or guessed at."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    etag: str


def console_routes(console: Console, token: str, seldom: Seldom) -> list[Route]:
    """`token` empty: nothing can be changed from here."""
    files = _load_files()
    lock = Lock(token, seldom)
    return [
        Route("/", _file(files["index.html"])),
        *(Route(f"/console/{name}", _file(file)) for name, file in files.items()),
        Route("/api/overview", told(_overview(console), Turnstile())),
        Route("/api/resources", told(_resources(console), Turnstile())),
        Route("/api/contract", told(_contract(console), Turnstile())),
        Route("/api/asyncapi", told(_asyncapi(console), Turnstile())),
        Route("/api/events", told(_events(console), Turnstile())),
        Route("/api/dlq", told(_letters(console), Turnstile())),
        Route("/api/explain", told(_explain(console), Turnstile(EXPLAINING_MAX - 1))),
        Route("/api/actions/{verb}", told(_act(console, lock), Turnstile()), methods=["POST"]),
    ]


# --- the page's files --------------------------------------------------------------------------------
def _load_files() -> dict[str, _File]:
    folder = resources.files("aegis_control") / "console"
    return {
        entry.name: _load(entry.name, entry.read_bytes())
        for entry in folder.iterdir()
        if PurePosixPath(entry.name).suffix in _TYPES
    }


def _load(name: str, content: bytes) -> _File:
    digest = hashlib.sha256(content).hexdigest()[:32]
    return _File(content, _TYPES[PurePosixPath(name).suffix], f'"{digest}"')


def _file(file: _File) -> Handler:
    async def serve(request: Request) -> Response:
        headers = {"etag": file.etag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    return serve


# --- documents ---------------------------------------------------------------------------------------
class _Wrong(Exception):
    """The request can't be answered as it is."""

    def __init__(self, status: HTTPStatus, message: str, after_s: int = 0) -> None:
        """`after_s`: when it may be asked again; 0 when that would change nothing."""
        super().__init__(message)
        self.status = status
        self.after_s = after_s


def told(handle: Handler, turnstile: Turnstile) -> Handler:
    """What goes wrong is told as JSON, in the words of who noticed it."""

    async def serve(request: Request) -> Response:
        try:
            async with turnstile():
                return await handle(request)
        except Busy:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, "too many ask for this; ask again", 1)
        except _Wrong as error:
            return _error(error.status, str(error), error.after_s)
        except pydantic.ValidationError as error:
            return _error(HTTPStatus.BAD_REQUEST, "; ".join(field_errors(error)))
        except InvalidName as error:
            return _error(HTTPStatus.BAD_REQUEST, str(error))
        except Unavailable as error:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))

    return serve


def _error(status: HTTPStatus, message: str, after_s: int = 0) -> Response:
    headers = {"retry-after": str(after_s)} if after_s else None
    return JSONResponse({"error": message}, status_code=status, headers=headers)


def _document(model: pydantic.BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


def _overview(console: Console) -> Handler:
    async def serve(_: Request) -> Response:
        return _document(await console.overview())

    return serve


def _resources(console: Console) -> Handler:
    async def serve(request: Request) -> Response:
        wanted = FindResources.model_validate(dict(request.query_params))
        return _answer(await console.resources(wanted.model_dump_json().encode()))

    return serve


def _contract(console: Console) -> Handler:
    async def serve(request: Request) -> Response:
        return _answer(await console.contract(request.query_params.get("service", "")))

    return serve


def _asyncapi(console: Console) -> Handler:
    async def serve(request: Request) -> Response:
        reply = await console.contract(request.query_params.get("service", ""))
        if not reply.ok:
            return _answer(reply)
        return JSONResponse(console.asyncapi(ServiceRecord.model_validate(reply.data)))

    return serve


def _events(console: Console) -> Handler:
    async def serve(request: Request) -> Response:
        after = request.query_params.get("after", "0")
        if not (after.isascii() and after.isdecimal() and len(after) < 20):
            raise _Wrong(HTTPStatus.BAD_REQUEST, "after is an event's sequence")
        return _document(console.events(int(after)))

    return serve


def _letters(console: Console) -> Handler:
    async def serve(_: Request) -> Response:
        return _document(await console.letters())

    return serve


def _explain(console: Console) -> Handler:
    async def serve(request: Request) -> Response:
        request_id = request.query_params.get("request_id", "")
        try:
            story = await console.explain(request_id)
        except NotFound as error:
            raise _Wrong(HTTPStatus.NOT_FOUND, _not_found(error)) from error
        return JSONResponse(asdict(story))

    return serve


def _not_found(error: NotFound) -> str:
    if error.complete:
        return (
            f"nothing is stored of request {error}; it was never accepted, or is older than"
            " requests and outcomes are kept"
        )
    return f"request {error} was not found in a short search; try ipc-cli explain {error}"


# --- changes -----------------------------------------------------------------------------------------
class Lock:
    """Opens to the token. Who tried a wrong one has to wait a second, so that it can't be guessed."""

    def __init__(self, token: str, seldom: Seldom) -> None:
        self._token = token
        self._seldom = seldom
        self._refused_at_s: dict[str, float] = {}
        """By the client's address, the oldest first."""

    def check(self, sent: str, client: str, now_s: float) -> None:
        """Raises: _Wrong. The comparison takes the same time wherever the two differ."""
        if not self._token:
            what = "this control was started without console_token: the page can only show"
            raise _Wrong(HTTPStatus.FORBIDDEN, what)
        self._forget_before(now_s - GUESS_S)
        if client in self._refused_at_s or len(self._refused_at_s) >= GUESSERS_MAX:
            self._seldom.warn("console_token_refused", client=client)
            raise _Wrong(HTTPStatus.TOO_MANY_REQUESTS, "wrong token just now; wait a second", 1)
        if not hmac.compare_digest(sent.encode(), self._token.encode()):
            self._refused_at_s[client] = now_s
            self._seldom.warn("console_token_refused", client=client)
            raise _Wrong(HTTPStatus.UNAUTHORIZED, "wrong token")

    def _forget_before(self, then_s: float) -> None:
        for client, at_s in list(self._refused_at_s.items()):
            if at_s > then_s:
                return
            del self._refused_at_s[client]


def _act(console: Console, lock: Lock) -> Handler:
    async def serve(request: Request) -> Response:
        client = request.client.host if request.client else ""
        lock.check(request.headers.get(TOKEN_HEADER, ""), client, time.monotonic())
        verb = request.path_params["verb"]
        if verb not in VERBS:
            raise _Wrong(
                HTTPStatus.NOT_FOUND, f"no action {verb!r}; use {', '.join(sorted(VERBS))}"
            )
        action = Action.model_validate_json(await _body(request))
        return _answer(await console.act(verb, action))

    return serve


async def _body(request: Request) -> bytes:
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                raise _Wrong(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"over {BODY_BYTES_MAX} bytes")
    except ClientDisconnect as error:  # the answer goes to nobody
        raise _Wrong(HTTPStatus.BAD_REQUEST, "it ended before its body did") from error
    return body


def _answer(reply: AdminReply) -> Response:
    if reply.ok:
        return JSONResponse(reply.data)
    return _error(_STATUS.get(reply.code, HTTPStatus.INTERNAL_SERVER_ERROR), reply.message)
