"""What a message of a service's log says, as a value (entries.py). Its subject tells the kind; names of subjects: contract/turns/subjects.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from aegis_sdk.contract.ids import is_request_id
from aegis_sdk.contract.names import decode_token
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import (
    EntryUnreadable,
    Moves,
    begun_of,
    decode_turn,
    marks_of,
    writer_of,
)
from aegis_sdk.domain.turns.entries import Claim, End, Entry, Gate, Own, Saved, Settled, Turn


def parse_entry(
    words: list[str], header: str, data: bytes, seq: int, stored_s: float, *, own: str = ""
) -> Entry | Claim | None:
    """None for what is no entry: a stranger's, or of a kind that does not concern whoever folds the log.

    `words`: the subject's, behind the service. `header`: a turn's list of ids, or empty. `own`: a writer whose turns are
    given without their outcomes, since the reader knows them. Raises: EntryUnreadable for one that counts and can't be read.
    """
    parse = _KINDS.get((words[0], len(words)))
    return None if parse is None else parse(words, header, data, seq, stored_s, own)


def _turn(
    words: list[str], header: str, data: bytes, seq: int, at_s: float, own: str
) -> Entry | None:
    writer, number = words[1], words[2]
    if not (number.isdecimal() and number.isascii()) or not header:
        return None
    turn = Turn(seq, writer, int(number), (), data, at_s)
    if writer != own:
        turn.settled, turn.sent, turn.begun = _settled(data), marks_of(data), begun_of(data)
    return turn


def _single(
    words: list[str], header: str, data: bytes, seq: int, at_s: float, own: str
) -> Entry | None:
    if words[2] != "out" or not header:
        return None
    writer = writer_of(data)
    settled = () if own and writer == own else _settled(data)
    return Turn(seq, writer, f"{words[3]}.{words[4]}", settled, data, at_s)


def _saved(words: list[str], _: str, data: bytes, seq: int, at_s: float, own: str) -> Entry | None:
    if words[2] != "state":
        return None
    try:
        return Saved(seq, Checkpoint.decode(data), at_s)
    except ValueError as error:
        raise EntryUnreadable(f"a checkpoint: {error}") from error


def _settled(data: bytes) -> list[Settled]:
    """Raises: EntryUnreadable."""
    return [
        Settled(record.request_id, record.resource or "", record.outcome)
        for record in decode_turn(data)
    ]


def _gate(words: list[str], _: str, data: bytes, seq: int, at_s: float, own: str) -> Entry:
    return Gate(seq, words[1])


def _claim(words: list[str], _: str, data: bytes, seq: int, at_s: float, own: str) -> Claim:
    return Claim(seq, words[1], words[2])


def _own(words: list[str], _: str, data: bytes, seq: int, at_s: float, own: str) -> Entry | None:
    number = words[1]
    if not (number.isdecimal() and number.isascii()):
        return None
    said = Moves.decode(data)
    return Own(seq, int(number), said.moves, at_s, said.why, said.holds)


def _end(words: list[str], _: str, data: bytes, seq: int, at_s: float, own: str) -> Entry | None:
    request_id = f"{words[2]}.{words[3]}"
    try:
        resource = decode_token(words[1])
    except ValueError:
        return None
    if not is_request_id(request_id):
        return None
    return End(seq, resource, request_id, at_s)


_Parse = Callable[[list[str], str, bytes, int, float, str], Entry | Claim | None]
_KINDS: Final[Mapping[tuple[str, int], _Parse]] = {
    ("turn", 3): _turn,
    ("turn", 5): _turn,
    ("gate", 2): _gate,
    ("own", 2): _own,
    ("end", 4): _end,
    ("at", 5): _single,
    ("at", 3): _saved,
    ("claim", 3): _claim,
}
"""By the kind, and the number of words with it."""
