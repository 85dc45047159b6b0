"""The connection to NATS, one for instances, callers, control and its tools: it is refused aloud, and never closes by itself.

Theory of operation. nats-py keeps the socket, the pings and the subscriptions, and makes a lost connection
again. What it does with a refusal is not for processes that shall live for months: most of the server's
`-ERR` close it for good, an error that it does not know ends its reconnecting, and neither is said. Here:

- An `-ERR` closes nothing. Its reason is kept as `trouble` and logged; what the server wants closed, it closes,
  and a lost connection is made again for ever, with longer pauses while the server refuses it.
- Whatever is in a file (credentials, seed, certificates) is read again for each connection.
- A login that is in no file can't change by itself. When one was refused for LOGIN_GRACE_S, `hopeless` says so,
  and the process's own loop ends it: nobody else can give it another.
- A violated permission is told to whoever asked on that subject, in the server's words.

The reason of a refusal has to be caught on its way. A server that refuses a login writes its `-ERR` and closes. The
library may meet the closed socket before it has parsed what was read, and then knows nothing but "connection reset". So the
words are looked for in the reader's buffer (`_said_before`), and where there are none, the login is tried some times more
(UNTOLD_MAX): one of the tries usually brings them. The library also turns errors into lower case, which a subject or a user's
name does not survive; `Spelling` keeps them as they came.

Two times are told apart. While it is opened (`_failures` is a list), each server is tried once, and what failed is the
answer to whoever opens it. From then on (`_failures` is None) nothing is raised to anybody: what fails is tried again, and
told by the log, by `trouble` and by `hopeless`.

It rests on private parts of nats-py (ADR 0008), which library.py bounds by version: `_select_next_server`,
`_attempt_reconnect`, `_process_connect_init`, `_connect_command`, `_process_err`, `_build_message` and the parser. What each of
them must still do is what tests/contract/test_link.py and tests/adverse try with real servers.

It knows nothing of requests, resources or JetStream.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from nats.aio.client import Client, Srv
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.protocol import command
from nats.protocol.parser import Parser

from aegis_sdk.contract.addresses import Address
from aegis_sdk.errors import RefusedByNats, Unavailable
from aegis_sdk.nats.login import LoginUnreadable, Server

RECONNECT_WAIT_S: Final = 0.1
"""Between two tries of one server. It is part of what callers wait when their connection breaks."""
REFUSED_WAIT_S_MAX: Final = 5.0
"""A server that refuses is asked more and more seldom."""
LOGIN_GRACE_S: Final = 10.0
"""How long a login that can't change may be refused: a server's users may be written in two steps."""
PING_INTERVAL_S: Final = 2.0
"""A peer that is gone without a word (a cable, a paused machine) is noticed when the third ping would be due: after 6 s."""
CONNECT_TIMEOUT_S: Final = 2.0
"""For each step with one server: TCP, its first word, its answer to the login."""
CLOSE_TIMEOUT_S: Final = 0.5
PENDING_BYTES_MAX: Final = 64 * 1024 * 1024
"""nats-py's own 2 MiB is a tenth of a second of a busy gateway while NATS restarts."""
SUBSCRIBE_AGAIN_S: Final = 5.0
"""The server forgets a subscription that it does not permit; permissions come by a reload."""
SAY_AGAIN_S: Final = 30.0
TROUBLE_S: Final = 10.0
"""For so long a refusal explains what is not answered, though the server closed nothing."""
UNTOLD_MAX: Final = 10
"""A server that refuses us closes, and the system may drop its reason before we read it. So it is asked again, until so many
errors came; most tries bring two, the second one from closing what is closed.
"""
_RIGHT_TOKENS: Final = 3
"""So many words of a subject are told apart when violations are logged."""
_SAID_MAX: Final = 1000
"""Kinds of lines that are remembered; beyond it all are forgotten, and some lines come once more."""

_BROKE_OFF: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""The server went away in the handshake: that says nothing of anybody's certificate."""
_CLOSED: Final = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
_UNTOLD: Final = "the server closed the connection in the login; its own log says why"
_REFUSAL: Final = re.compile(r"nats: '(.*)'")
_IN_A_BUFFER: Final = re.compile(rb"-ERR\s+'(.*?)'\r\n")
_FORBIDDEN: Final = re.compile(
    r'permissions violation for (publish|subscription)\D*? "(.*?)"', re.IGNORECASE
)
_LOGIN: Final = re.compile(
    r"authorization|authentication|revoked|secure connection|^TLS", re.IGNORECASE
)
_PASSING: Final = re.compile(r"timeout|try again|shutdown|^broke off", re.IGNORECASE)
"""What a busy or a starting server says, and what breaks a handshake off; another try may go well."""

OnForbidden = Callable[[str, str], None]
"""Called with (subject, the server's words)."""


class Forbidden(NatsError):
    """The server does not permit this subject; its words."""


@dataclass(slots=True)
class Hooks:
    """What a connection's owner wants to know; each runs on the loop and must not raise."""

    lost: Callable[[], None] = lambda: None
    restored: Callable[[], Awaitable[None]] | None = None
    forbidden: list[OnForbidden] = field(default_factory=list)


_CRLF: Final = b"\r\n"


class Spelling(Parser):
    """Gives the library one whole operation at a time, its control line as text.

    The library writes errors in lower case, and subjects are not. Its read loop ends without a word at a subject that
    is no text, and it reconnects for ever at one with a white space of another kind than the blank. To the server subjects are
    bytes: anybody who may publish can store such a one, and it is read again and again.
    """

    def reset(self) -> None:
        super().reset()
        self._incomplete = b""

    async def parse(self, data: bytes = b"") -> None:
        data = self._incomplete + data if self._incomplete else data
        at = 0
        while (line_end := data.find(_CRLF, at)) >= 0:
            line, end = data[at:line_end], line_end + len(_CRLF)
            if line.startswith(b"-ERR"):
                self.nc.spell(data[at:end])
            elif line.startswith((b"MSG ", b"HMSG ")):
                end += int(line.rpartition(b" ")[2]) + len(_CRLF)
                if len(data) < end:
                    break
                line = _as_text(line)
            await super().parse(line + data[line_end:end])
            at = end
        self._incomplete = data[at:]


def _as_text(line: bytes) -> bytes:
    """The same bytes if they are printable UTF-8; odd ones are written as `\\xff`."""
    if not line.isascii():
        line = line.decode(errors="backslashreplace").encode()
    return line.replace(b"\x0b", rb"\x0b").replace(b"\x0c", rb"\x0c")


class Connection(Client):
    """A client that is refused aloud and never closes by itself.

    One link owns it, from `open` until `close`. It lives on one event loop. Invariants: `_refused_since_s` is set only while
    this login, which can't change, is refused, and a login that went well ends that. `forbidden` holds subscriptions of the
    present connection alone: a new one subscribes anew, and learns anew.
    """

    def __init__(self, server: Server, hooks: Hooks, log: Any = None) -> None:
        """`log` is a structlog logger; None says nothing."""
        super().__init__()
        self._ps = Spelling(self)
        self._server = server
        self._logins = {(a.host.strip("[]").lower(), a.port): a for a in server.addresses}
        self._hooks = hooks
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._failures: list[Exception] | None = []
        """While it is opened: what each server's failure was."""
        self._untold = 0
        """While it is opened: connections that were closed without a word."""
        self._trouble = ""
        self._troubled_s = 0.0
        self._spelled: dict[str, str] = {}
        """Errors as the server wrote them, by their lower case, until the library hands them over."""
        self._said: dict[str, float] = {}
        """When a line of each kind was logged last (the machine's monotonic clock)."""
        self._refusals = 0
        """In a row, since the last login that went well; the pause between tries doubles with each."""
        self._refused_since_s: float | None = None
        self._watched: dict[str, set[asyncio.Future[Any]]] = {}
        """By subject: who has asked there by `request`, and is to be told when that is forbidden."""
        self.forbidden: dict[str, str] = {}
        """Our subscriptions that the server does not permit now, and its words."""
        self.hopeless: asyncio.Future[str] = self._loop.create_future()
        """Its result is the reason, when a login that can't change was refused for too long."""

    async def _process_headers(self, headers: Any) -> dict[str, str] | None:
        """Anybody may send a message with broken headers: it must not end the read loop, and with it the connection."""
        try:
            found: dict[str, str] | None = await super()._process_headers(headers)
        except Exception:  # whatever the library's parser raises: this message alone is odd
            return None
        return found

    # --- opening ------------------------------------------------------------------------------------------
    async def open(self, *, name: str, keep: bool, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        """Try each server once. `keep`: later losses are repaired. Raises: RefusedByNats, Unavailable.

        One refusal among the servers' reasons makes it RefusedByNats: the login is wrong somewhere, though another server was
        only out of reach. Whatever it raises, nothing is left open.
        """
        login: dict[str, Any] = {}
        if self._server.credentials or self._server.nkeys_seed:
            login = {"signature_cb": self._sign}
        if self._server.inbox_prefix:
            login["inbox_prefix"] = self._server.inbox_prefix.encode()
        if self._server.credentials:
            login["user_jwt_cb"] = self._server.jwt
        try:
            connecting = self.connect(
                [address.url for address in self._server.addresses],
                name=name,
                error_cb=self._on_error,
                disconnected_cb=self._on_lost,
                reconnected_cb=self._on_restored,
                connect_timeout=timeout_s,  # type: ignore[arg-type] # any number
                reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]
                allow_reconnect=keep,
                max_reconnect_attempts=-1,
                ping_interval=PING_INTERVAL_S,  # type: ignore[arg-type]
                max_outstanding_pings=2,
                pending_size=PENDING_BYTES_MAX,
                **login,
            )
            await _or_cancelled(connecting)
        except (_AllFailed, NatsError, OSError) as error:
            reasons = [_words(each) for each in self._failures or [error]]
            await self.give_up()
            raise _not_opened(self._server, reasons) from None
        except BaseException:
            await self.give_up()
            raise
        self._failures = None

    def on_forbidden(self, callback: OnForbidden) -> None:
        """Called at each violated permission."""
        self._hooks.forbidden.append(callback)

    async def give_up(self) -> None:
        """Close without waiting long: after a failed TLS handshake the library would for ever."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.close()
        except (TimeoutError, NatsError, OSError, RuntimeError, _AllFailed):
            return

    async def _select_next_server(self) -> None:
        """The server that failed least. Those that only another server told us of come later: what it
        advertises may be out of our reach, and each try of that takes CONNECT_TIMEOUT_S.
        """
        while True:
            server = min(self._server_pool, key=_failed)
            await asyncio.sleep(self._pause_s(server))
            try:
                await self._connect_to_server(server)
            except Exception as error:  # whatever it is, the next try may not meet it
                server.reconnects += 1
                self._err = error
                await self._on_error(error)
            else:
                self._current_server = server
                return
            finally:
                server.last_attempt = time.monotonic()

    def _pause_s(self, server: Srv) -> float:
        """How long to wait before that server is tried: not at all the first time, and while it is opened."""
        if server.last_attempt is None or self._failures is not None:
            return 0.0
        pause_s = min(RECONNECT_WAIT_S * 2 ** min(self._refusals, 10), REFUSED_WAIT_S_MAX)
        since_s = time.monotonic() - float(server.last_attempt)
        return max(0.0, min(float(pause_s) - since_s, float(pause_s)))

    async def _attempt_reconnect(self) -> None:
        # One that another took over from ends the other's future, and the other can't end it again.
        with contextlib.suppress(asyncio.InvalidStateError):
            await super()._attempt_reconnect()

    async def _process_connect_init(self) -> None:
        """The login. What the library does not catch around it would end its reconnecting for ever: all becomes what it knows.

        When it went well, what was said of earlier refusals holds no more.
        """
        try:
            await super()._process_connect_init()
        except (OSError, NatsError) as error:
            raise self._said_before(error) from error
        except Exception as error:  # anything else would end the reconnecting, unseen
            raise NatsError(f"{type(error).__name__}: {error}") from error
        if not self.is_connected:  # neither PONG nor -ERR came, and the library goes on as if
            for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
                if task is not None:
                    task.cancel()
            raise ConnectionResetError(_UNTOLD)
        self._trouble, self._refusals, self._refused_since_s = "", 0, None
        self.forbidden.clear()

    def _said_before(self, error: Exception) -> Exception:
        """A server that refuses us closes: its reason may have been read, and not be looked at."""
        reader = getattr(self._transport, "_io_reader", None)
        found = _IN_A_BUFFER.search(bytes(getattr(reader, "_buffer", b"")))
        if found is not None:
            return NatsError(f"nats: '{found[1].decode(errors='replace')}'")
        return _untold(error)

    # --- login --------------------------------------------------------------------------------------------
    def _connect_command(self) -> bytes:
        """CONNECT with what the login says now: files are read here, for each connection.

        A login beside the addresses wins; else it is that of the address that is tried. The library is given addresses without
        their logins, so none of its own errors can show one. Raises: LoginUnreadable.
        """
        server, address = self._server, self._address()
        if server.nkeys_seed and not server.credentials:
            self._public_nkey = server.key_pair().public_key.decode()
        given = (server.user, server.token, server.credentials, server.nkeys_seed)
        if any(each is not None for each in given):
            self.options |= {"user": server.user, "password": server.password}
            self.options["token"] = server.token
        elif address is not None:
            named = address.user or address.password
            self.options |= {"user": address.user if named else None, "password": address.password}
            self.options["token"] = address.token or None
        self._auth_configured = True
        return super()._connect_command()

    def _address(self) -> Address | None:
        """The one that stands for the current server; for a server that another told us of, any with a login."""
        assert self._current_server is not None
        uri = self._current_server.uri
        found = self._logins.get((uri.hostname or "", uri.port))
        if found is not None and not self._current_server.discovered:
            return found
        with_login = (a for a in self._logins.values() if a.user or a.password or a.token)
        return found or next(with_login, None)

    def _sign(self, nonce: str) -> bytes:
        return base64.b64encode(self._server.key_pair().sign(nonce.encode()))

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """The library asks for it at each connection. Its own answer is what it was given at the start, however old that is."""
        return self._server.ssl_context()

    # --- what goes wrong ------------------------------------------------------------------------------------
    def spell(self, data: bytes) -> None:
        """Remember errors as the server wrote them."""
        for found in _IN_A_BUFFER.findall(data):
            text = found.decode(errors="replace")
            self._spelled[text.lower()] = text

    async def _process_err(self, err_msg: str) -> None:
        """An -ERR of an open connection. It closes nothing here, as the library would: a permission is no end of a
        connection.
        """
        text = err_msg.strip("'")
        text = self._spelled.pop(text, text)
        self._spelled.clear()
        if found := _FORBIDDEN.match(text):
            self._forbid(found[2], text, subscription=found[1].lower() == "subscription")
        else:
            self._refuse(text)

    async def _on_error(self, error: Exception) -> None:
        """The library's word for whatever failed.

        While it is opened, failures are collected, and the trying ends (`_AllFailed`) when each server has failed, or one can't
        be trusted. Later, they are sorted by what somebody has to do about them: a refusal, a file that can't be read, or
        nothing, since the next try may go well.
        """
        if self._failures is not None:
            if isinstance(error, _CLOSED) and self._untold < UNTOLD_MAX:
                self._untold += 1
                return
            self._failures.append(_untold(error))
            if len(self._failures) >= len(self._server.addresses) or isinstance(
                error, ssl.SSLError
            ):
                raise _AllFailed
            return
        words = _words(error)
        if isinstance(error, ssl.SSLError) and not isinstance(error, _BROKE_OFF):
            self._refuse(words)
        elif found := _REFUSAL.fullmatch(str(error)):
            self._refuse(found[1])
        elif isinstance(error, LoginUnreadable):
            self._trouble = words
            self._say("login_unreadable", words, reason=words)
        else:
            if not self.is_connected and not self._refusals:
                self._trouble = words
            if self._log is not None:
                self._log.debug("nats_error", error_code=type(error).__name__, error=words)

    def _refuse(self, reason: str) -> None:
        """The server refused. `hopeless` is set when it is this login's fault, nothing of it can change, and it has lasted."""
        now_s = self._troubled_s = time.monotonic()
        told = _with_expiry(reason, self._server)
        self._trouble = told if reason.startswith("TLS") else f"NATS refused: {told}"
        self._refusals += 1
        self._say("nats_refused", told, reason=told)
        if not _is_of_login(reason) or self._server.may_change(reason):
            return
        if self._refused_since_s is None:
            self._refused_since_s = now_s
        if now_s - self._refused_since_s > LOGIN_GRACE_S and not self.hopeless.done():
            self.hopeless.set_result(
                f"{self._trouble} (at {self._server.shown_url}, for {LOGIN_GRACE_S:g} s, and this login is in"
                " no file that could change): start again with one that is right"
            )

    def _forbid(self, subject: str, text: str, *, subscription: bool) -> None:
        """A permission is missing. Whoever waits for an answer on that subject is told now, and not by a timeout.

        If it is the subscription to answers, that is everybody. The server forgets a subscription that it refuses, and an
        operator may grant it meanwhile: so it is made again, now and then, for as long as it stands here.
        """
        reason = f"NATS refused: {text}"
        # A request's, an outcome's or an acknowledgement's subject is met once: its beginning is the right.
        right = ".".join(subject.split(".")[:_RIGHT_TOKENS])
        self._say("nats_forbade", right, reason=text, subject=subject)
        if subscription:
            self.forbidden[subject] = reason
            self._loop.call_later(SUBSCRIBE_AGAIN_S, self._subscribe_again, subject)
        everything = subscription and subject == self._answers
        for watched, waiting in self._watched.items():
            if everything or watched == subject:
                _fail(waiting, reason)
        for told in self._hooks.forbidden:
            told(subject, reason)

    def _subscribe_again(self, subject: str) -> None:
        if self.forbidden.pop(subject, None) is None or not self.is_connected:
            return  # subscribed by the reconnect
        for sid, subscription in self._subs.items():
            if subscription._subject == subject:
                self._pending.append(command.sub_cmd(subject, subscription._queue, sid))
                self._pending_data_size += len(self._pending[-1])
        self._loop.create_task(self._flush_pending())

    def _say(self, event: str, kind: str, **about: str) -> None:
        """At warning level, but not each of a kind: what is refused is tried again and again."""
        now_s, key = time.monotonic(), event + kind
        if self._log is None or now_s - self._said.get(key, -SAY_AGAIN_S) < SAY_AGAIN_S:
            return
        if len(self._said) >= _SAID_MAX:
            self._said.clear()
        self._said[key] = now_s
        self._log.warning(
            event, url=self._server.shown_url, connection=self.options.get("name"), **about
        )

    async def _on_lost(self) -> None:
        if self._failures is None:
            self._hooks.lost()

    async def _on_restored(self) -> None:
        if self._hooks.restored is None:
            return
        try:
            await self._hooks.restored()
        except Exception:  # would end the library's reconnecting
            if self._log is not None and not self.is_closed:
                self._log.exception("after_reconnect_failed", connection=self.options.get("name"))

    @property
    def trouble(self) -> str:
        """Why there is no connection now, or was none a moment ago, in words that name the reason; or empty."""
        recent = not self.is_connected or time.monotonic() - self._troubled_s < TROUBLE_S
        return self._trouble if recent else ""

    # --- asking ---------------------------------------------------------------------------------------------
    @property
    def _answers(self) -> str:
        """The subject on which the library hears all answers; empty before the first request."""
        prefix = self._resp_sub_prefix
        return "" if prefix is None else f"{bytes(prefix).decode()}*"

    async def request(self, subject: str, *arguments: Any, **options: Any) -> Msg:
        """As the library's. Raises: Forbidden at once, where that would wait for its timeout.

        `finally` sees to it that no future is left with an exception that nobody has looked at: asyncio would log that.
        """
        if (reason := self.forbidden.get(self._answers)) is not None:
            raise Forbidden(reason)
        refused: asyncio.Future[Any] = self._loop.create_future()
        waiting = self._watched.setdefault(subject, set())
        waiting.add(refused)
        asking: asyncio.Future[Msg]
        asking = asyncio.ensure_future(super().request(subject, *arguments, **options))
        both: set[asyncio.Future[Any]] = {asking, refused}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            return await (asking if asking.done() else refused)
        finally:
            asking.cancel()
            if not refused.cancel():
                refused.exception()  # seen
            waiting.discard(refused)
            if not waiting:
                self._watched.pop(subject, None)

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        """Any client may have chosen the subjects: bytes that are no text must not end our reading."""
        words = (subject.decode(errors="replace"), reply.decode(errors="replace"))
        return self.msg_class(
            subject=words[0], reply=words[1], data=data, headers=headers, _client=self, _sid=sid
        )


class _AllFailed(Exception):
    """Every server of the list was tried once, or one can't be trusted."""


async def _or_cancelled(work: Coroutine[Any, Any, None]) -> None:
    """Await it. Before Python 3.12 the client's `wait_for` can swallow a cancellation, which is counted all the same.

    Not in a task of its own: what that leaves to the collector closes a connection whose TLS has just begun.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    await work
    if task.cancelling() > before:
        raise asyncio.CancelledError


def _is_of_login(reason: str) -> bool:
    """Whether this login is refused, and will be again, unlike by a server that has no time for it now."""
    return bool(_LOGIN.search(reason)) and not _PASSING.search(reason)


def _with_expiry(reason: str, server: Server) -> str:
    """The server calls an expired login as it calls an unknown one."""
    expired = server.expired() if _is_of_login(reason) else ""
    return f"{reason} ({expired})" if expired else reason


def _failed(server: Srv) -> int:
    """By which servers are ordered. One that was only heard of, and never reached, counts as having failed eight times as
    often.
    """
    reached = server.did_connect or not server.discovered
    return server.reconnects if reached else 8 * server.reconnects + 1


def _fail(waiting: set[asyncio.Future[Any]], reason: str) -> None:
    for future in waiting:
        if not future.done():
            future.set_exception(Forbidden(reason))


def _not_opened(server: Server, reasons: list[str]) -> Unavailable:
    what = "; ".join(_with_expiry(reason, server) for reason in dict.fromkeys(reasons))
    if any(r.startswith(("NATS refused", "TLS")) and not _PASSING.search(r) for r in reasons):
        return RefusedByNats(f"{what} (at {server.shown_url})")
    return Unavailable(f"NATS does not answer at {server.shown_url}: {what}")


def _untold(error: Exception) -> Exception:
    return ConnectionResetError(_UNTOLD) if isinstance(error, _CLOSED) else error


def _words(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, _BROKE_OFF):
        return f"broke off in the TLS handshake: {text}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {text}"
    if found := _REFUSAL.fullmatch(text):
        return f"NATS refused: {found[1]}"
    return text
