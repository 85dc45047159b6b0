"""NATS messages as bytes, both ways, past the client library's slower path (ADR 0008).

The library keeps the connection: addresses, TLS, credentials, pings, reconnects, subscriptions. What
passes by the thousand is done here: a message of a tapped subscription goes from the socket's bytes to
its callback, and a published one from its parts to the library's pending buffer. Everything else that
the server says is left to the library's own parser.

To the server a subject is bytes. Anybody who may publish may have put a blank of another kind, a line feed's
neighbour or half a character into one, and a stream keeps it for ever. So lines are parted at CRLF and at the one blank that
the protocol writes, lengths part everything else, and text that is none is read with replacements. Nothing that a stranger
has sent may raise here: it would end the read loop, and the process would be deaf without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from nats.aio.client import Client

from aegis_sdk.nats.connection import Spelling
from aegis_sdk.telemetry import log

_VERSION: Final = "NATS/1.0"
_CRLF: Final = b"\r\n"


class Message:
    """A received message. `headers` is parsed when it is first asked for; empty when there are none.

    Most messages are looked at by one or two headers only (`header`). `data` is a copy: it may be kept for as long as one
    likes.
    """

    __slots__ = ("_headers", "_raw", "data", "reply", "subject")

    def __init__(self, subject: str, reply: str, raw_headers: bytes, data: bytes) -> None:
        self.subject = subject
        self.reply = reply
        self.data = data
        self._raw = raw_headers
        self._headers: dict[str, str] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """By name, as written: NATS tells upper and lower case apart. Of two of one name the last counts."""
        if self._headers is None:
            self._headers = parse_headers(self._raw)
        return self._headers

    def header(self, name: bytes) -> str:
        """One header as it was written, without parsing the others; empty when it isn't there. The first of its name counts."""
        _, found, rest = self._raw.partition(b"\r\n" + name + b": ")
        return rest[: rest.find(_CRLF)].decode(errors="replace") if found else ""

    @property
    def status(self) -> str:
        """The code of a message that is no message but a status (`NATS/1.0 404 …`), or empty."""
        return self._raw[9:12].decode(errors="replace") if self._raw[8:9] == b" " else ""


Callback = Callable[[Message], None]
"""Runs inside the connection's reading. It must be quick; what it raises is logged, and the message is gone."""


def parse_headers(raw: bytes) -> dict[str, str]:
    """The header lines of a `NATS/1.0` block as a dict; the status line is skipped."""
    headers = {}
    for line in raw.decode(errors="replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name] = value.strip(" \t")
    return headers


def encode(subject: str, reply: str, headers: Mapping[str, str] | None, payload: bytes) -> bytes:
    """A PUB or HPUB command. Raises: ValueError when a line break in a header would forge another.

    Subjects are not looked at: they are made of tokens that names.py has encoded, or came from the server.
    """
    if not headers:
        return b"PUB %s %s %d\r\n%s\r\n" % (
            subject.encode(),
            reply.encode(),
            len(payload),
            payload,
        )
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    text = f"{_VERSION}\r\n{''.join(lines)}\r\n"
    if text.count("\n") + text.count("\r") != 2 * len(lines) + 4:
        raise ValueError(f"a header of a message to {subject} has a line break in it")
    block = text.encode()
    return b"HPUB %s %s %d %d\r\n%s%s\r\n" % (
        subject.encode(),
        reply.encode(),
        len(block),
        len(block) + len(payload),
        block,
        payload,
    )


class Tap(Spelling):
    """The connection's parser: hands messages of tapped subscriptions out, leaves the rest to the library.

    Invariant: between two calls `_rest` is the beginning of one incomplete operation.
    """

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._rest = bytes(client._ps.buf)
        self.callbacks: dict[int, Callback] = {}
        """By subscription id, which survives a reconnect."""

    def reset(self) -> None:
        """A new connection begins."""
        super().reset()
        self._rest = b""

    async def parse(self, data: bytes = b"") -> None:
        """Everything in `data` that is whole, in its order: what is tapped to its callback, the rest to the library.

        A large message comes in many pieces, and each of them is added to `_rest` and looked at from the message's beginning
        on; the look is at one line, not at the message.
        """
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        while at < end:
            at, other = self._take(data, at)
            if not other:
                break
            await super().parse(data[at:other])
            at = other
        self._rest = data[at:]

    def _take(self, data: bytes, at: int) -> tuple[int, int]:
        """Hand out what is tapped from `at` on: (where it ended, where the operation that isn't ends; 0: incomplete)."""
        callbacks, size = self.callbacks, len(data)
        while at < size:
            line_end = data.find(_CRLF, at)
            if line_end < 0:
                return at, 0
            # By the one blank that the server writes: a subject may hold any other byte, blank or not.
            words = data[at:line_end].split(b" ")
            operation = words[0]
            if operation not in (b"HMSG", b"MSG"):
                return at, line_end + 2
            start = line_end + 2
            end = start + int(words[-1])
            if size < end + 2:
                return at, 0
            callback = callbacks.get(int(words[2]))
            if callback is None:
                return at, end + 2
            if operation == b"HMSG":
                reply = words[3].decode(errors="replace") if len(words) == 6 else ""
                body = start + int(words[-2])
            else:
                reply = words[3].decode(errors="replace") if len(words) == 5 else ""
                body = start
            subject = words[1].decode(errors="replace")
            message = Message(subject, reply, data[start:body], data[body:end])
            at = end + 2
            try:
                callback(message)
            except Exception as error:  # would end the connection's read loop
                log.error("callback_failed", subject=message.subject, exc_info=error)
        return at, 0
