"""What stands in a service's log, as values. How it is written to NATS is not known here.

The subject of each is named in the table of docs/turns.md. Entries arrive in the log's order, and `seq` is their place in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aegis_sdk.contract.envelope import Outcome

# Not `frozen`, though never changed: that makes their making five times as slow (contract/envelope.py).


@dataclass(slots=True)
class Settled:
    """One request's outcome within an entry."""

    request_id: str
    resource: str
    outcome: Outcome


@dataclass(slots=True)
class Gate:
    """Anybody's word that `writer` has to read up to here before it may store again."""

    seq: int
    writer: str


@dataclass(slots=True)
class Own:
    """The `number`-th change of ownership: for each resource, its writer from now on."""

    seq: int
    number: int
    moves: Mapping[str, str]


@dataclass(slots=True)
class Turn:
    """All that `writer` did in one round, or one outcome of it under its own name (a single)."""

    seq: int
    writer: str
    name: int | str
    """The round's number, or the request id of a single."""
    settled: Sequence[Settled] = ()
    """Not needed by the writer itself."""
    content: bytes = b""
    """The entry as stored, by which a writer knows its own."""
    stored_s: float = 0.0
    """Unix time, by the log."""


@dataclass(slots=True)
class End:
    """The caller of a request gave up on it."""

    seq: int
    resource: str
    request_id: str
    stored_s: float = 0.0


Entry = Gate | Own | Turn | End


@dataclass(slots=True)
class Claim:
    """A process says that it is `writer`; `nonce` is known to it alone (claims.py). Not folded by a writer."""

    seq: int
    writer: str
    nonce: str
