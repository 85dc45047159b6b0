"""Control's HTTP side, in the same event loop: /metrics, /livez, /readyz, /api/history, the console."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import fields
from typing import Final

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from aegis_control.application.operators.history import STEP_S, Point, Query
from aegis_control.application.operators.turnstile import Turnstile
from aegis_control.infrastructure.console_http import StrictHeaders, told
from aegis_control.infrastructure.http_connections import (
    BOUNDS,
    HEAD_BYTES_MAX,
    IDLE_S,
    Bounds,
    bounded,
)
from aegis_control.infrastructure.http_origin import OwnNames, OwnPages
from aegis_control.infrastructure.seldom import Seldom

_STOP_TIMEOUT_S: Final = 2
_BACKLOG: Final = 16
"""How many connections the system accepts before we look at them."""


class _Server(uvicorn.Server):
    """Signals belong to the process, not to its HTTP side."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_app(
    *,
    metrics: Callable[[], bytes],
    not_ready: Callable[[], str],
    history: Callable[[Query], Mapping[str, Sequence[Point]]],
    console: Sequence[Route],
    names: OwnNames,
    seldom: Seldom,
) -> Starlette:
    """`not_ready` says why this replica is not ready; empty when it is."""

    async def serve_metrics(_: Request) -> Response:
        return Response(metrics(), media_type=CONTENT_TYPE_LATEST)

    async def serve_history(request: Request) -> Response:
        try:
            after_s = float(request.query_params.get("after_s", "0"))
        except ValueError:
            return JSONResponse({"error": "after_s is Unix seconds"}, status_code=400)
        found = history(Query(request.query_params.get("service"), after_s))
        services = {name: [_plain(point) for point in points] for name, points in found.items()}
        return JSONResponse({"step_s": STEP_S, "services": services})

    async def live(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_: Request) -> Response:
        why = not_ready()
        return PlainTextResponse(f"{why}\n" if why else "ok\n", status_code=503 if why else 200)

    return Starlette(
        routes=[
            Route("/metrics", told(serve_metrics, Turnstile())),
            Route("/livez", live),
            Route("/readyz", ready),
            Route("/api/history", told(serve_history, Turnstile())),
            *console,
        ],
        middleware=[
            Middleware(StrictHeaders),
            Middleware(OwnPages, names=names, seldom=seldom),
        ],
    )


def _plain(point: Point) -> dict[str, float | None]:
    """`asdict` would take most of the time of a page with many services."""
    return {name: getattr(point, name) for name in _FIELDS}


_FIELDS: Final = tuple(field.name for field in fields(Point))


@asynccontextmanager
async def serve(
    app: Starlette, *, host: str, port: int, seldom: Seldom, bounds: Bounds = BOUNDS
) -> AsyncIterator[int]:
    """Serve `app` while the context is open; gives the port (`port` 0 picks a free one).

    Raises: OSError when the address can't be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, reuse_port=False)
    config = uvicorn.Config(
        app,
        http=bounded(seldom, bounds),
        ws="none",
        backlog=_BACKLOG,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        timeout_keep_alive=IDLE_S,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_STOP_TIMEOUT_S,
    )
    server = _Server(config)
    running = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await running
        listening.close()
