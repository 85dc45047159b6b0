"""The NATS client, made to survive any bytes that others send.

The library's read loop ends without a word at the first message whose subject is no text, and the connection
is deaf from then on; a white space of another kind than the blank in a subject makes it reconnect for ever.
To the server subjects are bytes: anybody who may publish can store such a one, and it is read again and again.
"""

from __future__ import annotations

from typing import Any, Final

from nats.aio.client import Client as LibraryClient
from nats.protocol.parser import Parser as LibraryParser

_CRLF: Final = b"\r\n"
_WHITE: Final = {b"\x0b": rb"\x0b", b"\x0c": rb"\x0c"}


class Client(LibraryClient):
    """A subject that is no text is handed on with its odd bytes written as `\\xff`; odd headers are none."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = _Parser(self)

    async def _process_headers(self, headers: Any) -> dict[str, str] | None:
        try:
            found: dict[str, str] | None = await super()._process_headers(headers)
        except Exception:  # whatever the library's parser raises: this message alone is odd
            return None
        return found


class _Parser(LibraryParser):
    """Gives the library one whole operation at a time, its control line as text."""

    def reset(self) -> None:
        super().reset()
        self._rest = b""

    async def parse(self, data: bytes = b"") -> None:
        data = self._rest + data if self._rest else data
        at = 0
        while (line_end := data.find(_CRLF, at)) >= 0:
            line, end = data[at:line_end], line_end + len(_CRLF)
            if line.startswith((b"MSG ", b"HMSG ")):
                end += int(line.rpartition(b" ")[2]) + len(_CRLF)
                if len(data) < end:
                    break
            await super().parse(_as_text(line) + data[line_end:end])
            at = end
        self._rest = data[at:]


def _as_text(line: bytes) -> bytes:
    """The same bytes if they are printable UTF-8."""
    if not line.isascii():
        line = line.decode(errors="backslashreplace").encode()
    for odd, written in _WHITE.items():
        line = line.replace(odd, written)
    return line
