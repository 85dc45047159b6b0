"""How entries of a service's log are written: turns and ownership entries. The other kinds say all in their subject.

A turn lists its request ids in one header, so that a reader who looks for one need not open the body. The body begins with a
line about the writer. For each outcome there follow a line that tells it and how long its three parts are, the parts, and a line
feed. The parts are the request's payload, the reply or error, and the state change:

    1 writer=accounts-1.6f2e log=5f0c… nonce=a81b…
    Kq3v9x2m.17 ACC-1 book 31 24 40 executed epoch=3 instance=accounts-1 trace=00-…
    {"account":"ACC-1","quantity":5}{"account":"ACC-1","qty":5}{"set":{"position":5},"delete":[]}

Lengths, not line feeds, part them, since a payload is whatever a client sent. The nonce is known to one process alone: two
processes of one identity never write the same turn. The first line ends in `sent=ACC-1:40,ACC-2:7` when it says
up to which of a resource's outcomes all is sent that they hand in. With `begun=1:ACC-1:Kq3v9x2m.17` it says that a request is
begun for the second time, since its first begin may have ended the process. A version that adds words at the end of a line is read by this one;
one that changes what is there has another number in front.

An entry stays until a checkpoint covers it, and longer, and is read by every version that runs meanwhile. What one can't read is `EntryUnreadable`, never half of it: the fold of a resource without one of its outcomes would be a
wrong state that looks right. Its instance stands back from the resources that the entry's subject and header name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic_core import from_json, to_json

from aegis_sdk.contract.envelope import OUTCOME, Outcome, Request
from aegis_sdk.contract.ids import is_request_id
from aegis_sdk.contract.names import NO_RESOURCE, decode_token, encode_token
from aegis_sdk.contract.subjects import resource_token
from aegis_sdk.contract.turns.holds import Hold, Holds, holds_of, holds_to_json
from aegis_sdk.contract.turns.sent import POSITION

TURN: Final = "aegis-turn"
VERSION: Final = "1"
_NO_IDS: Final = "-"
_SENT: Final = b" sent="
_BEGUN: Final = b" begun="
PAYLOAD_KEPT_BYTES_MAX: Final = 65_536
"""A larger payload is left out of the entry, which else might not fit into one message."""


class EntryUnreadable(ValueError):
    """An entry that counts, and that this version can't read: what it says is not known here."""


Begun = tuple[str, str, int]
"""Resource, request id, and how many begins of it are noted with this one: the first is not."""


@dataclass(slots=True)
class Record:
    """One outcome in a turn, with the request that it is of."""

    request_id: str
    resource: str | None
    method: str
    payload: bytes
    outcome: Outcome


def turn_header(request_ids: Iterable[str]) -> dict[str, str]:
    return {TURN: ",".join(request_ids) or _NO_IDS}


def ids_of(header: str) -> list[str]:
    """The request ids that a turn's header lists."""
    return [] if header == _NO_IDS else header.split(",")


def turn_head(writer: str, log_id: str, nonce: str) -> bytes:
    """The first line, the same for all turns of a process."""
    return f"{VERSION} writer={writer} log={log_id} nonce={nonce}\n".encode()


def noted(head: bytes, sent: Mapping[str, int], begun: Iterable[Begun]) -> bytes:
    """`head`, with marks of what was sent and notes of what is begun again."""
    line = head[:-1]
    if marks := ",".join([f"{encode_token(r)}:{number}" for r, number in sent.items()]):
        line += _SENT + marks.encode()
    if notes := ",".join([f"{n}:{encode_token(r)}:{request_id}" for r, request_id, n in begun]):
        line += _BEGUN + notes.encode()
    return line + b"\n"


def marks_of(data: bytes) -> dict[str, int]:
    """Up to which outcome all is sent, by resource. Raises: EntryUnreadable."""
    try:
        pairs = [mark.split(":") for mark in _listed(data, _SENT)]
        return {decode_token(token): _length(number) for token, number in pairs}
    except ValueError as error:
        raise EntryUnreadable(f"marks of a turn: {error}") from error


def begun_of(data: bytes) -> list[Begun]:
    """Raises: EntryUnreadable."""
    try:
        notes = [note.split(":", 2) for note in _listed(data, _BEGUN)]
        return [(decode_token(token), request_id, _length(n)) for n, token, request_id in notes]
    except ValueError as error:
        raise EntryUnreadable(f"notes of a turn: {error}") from error


def _listed(data: bytes, word: bytes) -> list[str]:
    """What the first line lists behind `word`."""
    line, _, _ = data.partition(b"\n")
    _, found, rest = line.partition(word)
    return rest.split(b" ", 1)[0].decode().split(",") if found else []


def writer_of(data: bytes) -> str:
    """Who stored the entry; empty when it does not say."""
    line, _, _ = data.partition(b"\n")
    _, _, rest = line.partition(b" writer=")
    return rest.split(b" ", 1)[0].decode(errors="replace")


def log_of(data: bytes) -> str:
    """The identity of the log that the entry was written for."""
    line, _, _ = data.partition(b"\n")
    _, _, rest = line.partition(b" log=")
    return rest.split(b" ", 1)[0].decode(errors="replace")


def encode_record(
    request: Request, outcome: Outcome, kept_bytes_max: int = PAYLOAD_KEPT_BYTES_MAX
) -> bytes:
    """One outcome's line and parts. A payload of more than `kept_bytes_max` is left out, and reads as empty: then a key
    that comes back is compared by its fingerprint alone.
    """
    payload = request.payload
    if len(payload) > kept_bytes_max:
        payload = b""
    body, change = outcome.body, outcome.change
    line = (
        f"{request.request_id} {resource_token(request.resource)} {request.method}"
        f" {len(payload)} {len(body)} {len(change)} {outcome.words()}\n"
    )
    return b"%s%s%s%s\n" % (line.encode(), payload, body, change)


def decode_turn(data: bytes) -> list[Record]:
    """Raises: EntryUnreadable."""
    version, _, _ = data[:16].partition(b" ")
    if version != VERSION.encode():
        raise EntryUnreadable(f"a turn of version {version[:8]!r}: this one reads {VERSION}")
    at = data.find(b"\n") + 1
    records = []
    while at < len(data):
        try:
            record, at = _record(data, at)
        except (ValueError, KeyError) as error:
            raise EntryUnreadable(f"byte {at} of a turn: {error}") from error
        records.append(record)
    return records


def _record(data: bytes, at: int) -> tuple[Record, int]:
    """The record at `at`, and where the next one begins. Raises: ValueError, KeyError."""
    end = data.find(b"\n", at)
    if at == 0 or end < 0:
        raise ValueError("its line has no end")
    words = data[at:end].decode().split(" ", 6)
    if len(words) < 7:
        raise ValueError("a word is missing")
    request_id, token, method, payload_bytes, body_bytes, change_bytes, said = words
    if not is_request_id(request_id):
        raise ValueError(f"{request_id[:80]!r} is no request id")
    body_at = end + 1 + _length(payload_bytes)
    change_at = body_at + _length(body_bytes)
    end_at = change_at + _length(change_bytes)
    if data[end_at : end_at + 1] != b"\n":
        raise ValueError("its parts are not as long as it says")
    outcome = Outcome.told(said, data[body_at:change_at], data[change_at:end_at])
    resource = None if token == NO_RESOURCE else decode_token(token)
    return Record(request_id, resource, method, data[end + 1 : body_at], outcome), end_at + 1


def _length(word: str) -> int:
    if not (word.isdecimal() and word.isascii()):
        raise ValueError(f"{word[:20]!r} is no length")
    return int(word)


def reply_headers(outcome: Outcome) -> dict[str, str]:
    """Of an answer that its writer sends: the outcome without its change, which callers have no use for."""
    if outcome.position:
        return {OUTCOME: outcome.words(), POSITION: outcome.position}
    return {OUTCOME: outcome.words()}


@dataclass(slots=True)
class Moves:
    """What an ownership entry says: for each resource, its writer from now on; and all that is paused (holds.py).

    Its number is in its subject. `moves` has only what moves, `holds` everything that is paused: the newest entry alone
    tells that. Owners that are no writers are words of domain/turns/ownership.py (nobody, idle, retired). `why` is for people.
    """

    moves: Mapping[str, str]
    why: str = ""
    log_id: str = ""
    holds: Holds = field(default_factory=dict[str, Hold])

    def encode(self) -> bytes:
        by_writer: dict[str, list[str]] = {}
        for resource, writer in self.moves.items():
            by_writer.setdefault(writer, []).append(resource)
        said: dict[str, object] = {"to": by_writer, "why": self.why, "log": self.log_id}
        if self.holds:
            said["holds"] = holds_to_json(self.holds)
        return to_json(said)

    @classmethod
    def decode(cls, data: bytes) -> Moves:
        """Raises: EntryUnreadable."""
        try:
            raw = from_json(data)
            by_writer = raw["to"]
            why, log_id = _text(raw.get("why", "")), _text(raw.get("log", ""))
            holds = holds_of(raw["holds"]) if "holds" in raw else {}
            moves = {}
            for writer, resources in by_writer.items():
                if type(resources) is not list:
                    raise ValueError(f"what {writer!r} gets is no list")
                for resource in resources:
                    moves[_text(resource)] = writer
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EntryUnreadable(f"an ownership entry: {error!r}") from error
        return cls(moves, why, log_id, holds)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value
