"""What stands in a service's log, as values. How it is written to NATS is not known here.

The subject of each is named in the table of docs/protocol.md. Entries arrive in the log's order, and `seq` is their place in it.

Each outcome that takes its turn in its resource's queue has a *number*: the first one of the resource is 1, the next one 2,
whoever stores it and wherever. One out of turn has none: a cancel, which changes nothing. By the numbers a reader knows what it
has folded already, from a checkpoint, from its own acknowledgement, or from the log. A number that is missing shows it a hole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aegis_sdk.contract.envelope import Outcome
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import Begun
from aegis_sdk.contract.turns.holds import Hold, Holds

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
    stored_s: float = 0.0
    why: str = ""
    holds: Holds = field(default_factory=dict[str, Hold])
    """All that is paused from now on."""


@dataclass(slots=True)
class Turn:
    """All that `writer` did in one round, or one outcome of it under its own name (a single)."""

    seq: int
    writer: str
    """Empty for a single that its caller stored: a cancel."""
    name: int | str
    """The round's number, or the request id of a single."""
    settled: Sequence[Settled] = ()
    """Not needed by the writer itself."""
    content: bytes = b""
    """The entry as stored, by which a writer knows its own."""
    stored_s: float = 0.0
    """Unix time, by the log."""
    sent: Mapping[str, int] = field(default_factory=dict)
    """For each resource named, up to which of its outcomes all that they hand in was sent."""
    begun: Sequence[Begun] = ()
    """Requests that are begun once more (begins.py)."""


@dataclass(slots=True)
class End:
    """The caller of a request gave up on it."""

    seq: int
    resource: str
    request_id: str
    stored_s: float = 0.0


@dataclass(slots=True)
class Saved:
    """A resource's newest checkpoint. It replaces the one before."""

    seq: int
    checkpoint: Checkpoint
    stored_s: float = 0.0


Entry = Gate | Own | Turn | End | Saved


@dataclass(slots=True)
class Claim:
    """A process says that it is `writer`; `nonce` is known to it alone (claims.py). Not folded by a writer."""

    seq: int
    writer: str
    nonce: str
