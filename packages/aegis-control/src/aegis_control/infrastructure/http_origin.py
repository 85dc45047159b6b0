"""Who a browser may come as: the names and pages that are control's own.

A page of another site must neither read control nor ask it for anything, also when the operator's browser
can reach it and the page can't. A browser tells two things that a page can't forge. `Host` is the name in the
address bar: a page at evil.example that has its name point to 127.0.0.1 (DNS rebinding) still sends its own
name. `Origin` is the page that sent the request. So a request is answered if its Host is ours and its
Origin, if it has one, is the same. Programs send any Host that they like; this is no login.

An IP address as Host is always ours: nobody can have a name point elsewhere who uses none. Scrapes and
probes by address go on. /livez and /readyz say nothing about the system, and are asked under any name.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from aegis_control.infrastructure.seldom import Seldom

PROBES: Final = frozenset({"/livez", "/readyz"})
_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[^:\[\]/@\s]+))(?::\d{1,5})?")
_NOT_PUBLIC: Final = (".svc", ".cluster.local", ".internal")
"""Endings under which nobody can register a name: those of Kubernetes and of private networks."""


def name_of(host: str) -> str:
    """The name or address in a Host header, or behind `//` in an origin; empty when it is none."""
    found = _HOST.fullmatch(host)
    return (found["v6"] or found["name"]).lower().rstrip(".") if found else ""


class OwnNames:
    """The names under which this control is reached.

    On loopback these are localhost, the machine's name, and those that were set. On any other address also
    names that no public page can have: who comes by one is in the network that may reach control.
    """

    def __init__(self, bound: str, extra: Iterable[str] = ()) -> None:
        machine = socket.gethostname().lower()
        self.extra = frozenset(map(name_of, extra))
        self._names = {"localhost", bound.lower(), machine, machine.partition(".")[0], *self.extra}
        self._is_local = bound == "localhost" or (_is_address(bound) and _is_loopback(bound))

    def has(self, name: str) -> bool:
        if name in self._names or name.endswith(".localhost") or _is_address(name):
            return True
        return bool(name) and not self._is_local and ("." not in name or name.endswith(_NOT_PUBLIC))


class OwnPages:
    """ASGI: 403 for what comes by a strange name, or from a strange page."""

    def __init__(self, app: ASGIApp, *, names: OwnNames, seldom: Seldom) -> None:
        self._app = app
        self._names = names
        self._seldom = seldom

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        why = self._refusal(scope["path"], Headers(scope=scope))
        if not why:
            await self._app(scope, receive, send)
            return
        client = scope["client"][0] if scope["client"] else ""
        self._seldom.warn("console_page_refused", client=client, reason=why)
        await JSONResponse({"error": why}, status_code=403)(scope, receive, send)

    def _refusal(self, path: str, headers: Headers) -> str:
        """Empty when it may come in."""
        host = headers.get("host", "")
        if path in PROBES:
            return ""
        if not self._names.has(name_of(host)):
            return (
                f"this control is not known as {host[:100]!r}; if a proxy or an alias of yours has that"
                " name, add it to the setting console_hosts (AEGIS_CONSOLE_HOSTS)"
            )
        origin = headers.get("origin")
        if origin is not None and not self._is_ours(origin, host):
            return f"a page of {origin[:100]!r} may not ask this control"
        site = headers.get("sec-fetch-site", "none")
        if path.startswith("/api/") and site not in ("none", "same-origin"):
            return "a page of another site may not ask this control"
        return ""

    def _is_ours(self, origin: str, host: str) -> bool:
        """The page of this very address; behind a proxy that changes Host, one of the names that were set."""
        scheme, _, came_from = origin.partition("://")
        if scheme not in ("http", "https"):
            return False
        return came_from.lower() == host.lower() or name_of(came_from) in self._names.extra


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback
