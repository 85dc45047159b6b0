"""NATS messages as bytes: what one connection hears comes out the same however the bytes are cut."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from aegis_sdk.nats.wire import Message, Tap, encode, parse_headers
from hypothesis import given
from hypothesis import strategies as st

HEADERS = b"NATS/1.0\r\naegis-outcome: executed seq=7\r\nNats-Sequence: 12\r\n\r\n"


class _Library:
    """What the library's client does with what the tap leaves to it."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []
        self._ps = self
        self.buf = bytearray()

    async def _process_ping(self) -> None:
        self.heard.append(("PING",))

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self.heard.append((sid, subject, data))


def tap_of(library: Any) -> Tap:
    return Tap(library)


def hear(chunks: list[bytes]) -> tuple[list[Message], list[tuple[object, ...]]]:
    """Subscription 1 is tapped, any other is the library's."""
    library = _Library()
    messages: list[Message] = []
    tap = tap_of(library)
    tap.callbacks[1] = messages.append
    for chunk in chunks:
        parsing = tap.parse(chunk)
        with pytest.raises(StopIteration):
            parsing.send(None)  # nothing in it waits
    return messages, library.heard


STREAM = (
    b"MSG a.b 1 5\r\nhello\r\n"
    b"PING\r\n"
    b"MSG other 2 inbox.1 3\r\n\r\n!\r\n"
    b"HMSG a.c 1 inbox.9 "
    + b"%d %d\r\n" % (len(HEADERS), len(HEADERS) + 4)
    + HEADERS
    + b"\r\n\r\n\r\n"
    b"MSG a.d 1 inbox.7 0\r\n\r\n"
    b"HMSG a.e 1 16 16\r\nNATS/1.0 404\r\n\r\n\r\n"
    b"PING\r\n"
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_messages_come_out_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(STREAM)]
    messages, heard = hear([STREAM[a:b] for a, b in itertools.pairwise(at)])
    assert [(m.subject, m.reply, m.data) for m in messages] == [
        ("a.b", "", b"hello"),
        ("a.c", "inbox.9", b"\r\n\r\n"),
        ("a.d", "inbox.7", b""),
        ("a.e", "", b""),
    ]
    assert messages[1].headers == {"aegis-outcome": "executed seq=7", "Nats-Sequence": "12"}
    assert messages[1].header(b"aegis-outcome") == "executed seq=7"
    assert messages[1].header(b"outcome") == ""
    assert [m.status for m in messages] == ["", "", "", "404"]
    assert heard == [("PING",), (2, b"other", b"\r\n!"), ("PING",)]


def test_a_new_connection_forgets_the_end_of_the_old_one() -> None:
    library = _Library()
    messages: list[Message] = []
    tap = tap_of(library)
    tap.callbacks[1] = messages.append
    for chunk in (b"MSG a 1 5\r\nhel", b"MSG b 1 2\r\nok\r\n"):
        tap.reset()
        with pytest.raises(StopIteration):
            tap.parse(chunk).send(None)
    assert [m.subject for m in messages] == ["b"]


@given(
    st.dictionaries(
        st.text("abc-", min_size=1, max_size=5),
        st.text(max_size=9).map(str.strip),
        min_size=1,
        max_size=4,
    )
)
def test_headers_come_back_as_they_were_sent_or_are_refused(headers: dict[str, str]) -> None:
    if any(mark in value for value in headers.values() for mark in "\r\n"):
        with pytest.raises(ValueError, match="line break"):
            encode("a", "", headers, b"")
        return
    command = encode("a", "", headers, b"payload")
    line, _, rest = command.partition(b"\r\n")
    size, total = map(int, line.split()[-2:])
    assert rest[size:] == b"payload\r\n"
    assert total == size + len(b"payload")
    assert parse_headers(rest[:size]) == headers


def test_a_command_without_headers_is_a_plain_publish() -> None:
    assert encode("a.b", "inbox", None, b"x") == b"PUB a.b inbox 1\r\nx\r\n"
    assert encode("a.b", "", None, b"") == b"PUB a.b  0\r\n\r\n"
