"""Has a stream of a service lost something? What is known of it, and what is there now; no waiting.

A position means something only in the log it was read from. Two things tell that a log is another one than
it was: its identity, which control wrote into the stream's configuration when it made it, and its end,
which never goes back. `end` is the highest position that anybody living is known to have seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from aegis_sdk.contract.control import LogMark, Loss


@dataclass(frozen=True, slots=True)
class Sight:
    """A stream as it is now."""

    id: str
    first_seq: int
    last_seq: int


def generation_of(identity: str) -> int:
    """How often the log began again before it was this one; 0 when that can't be told."""
    number, dash, _ = identity.partition("-")
    is_one = dash and number.isdecimal() and len(number) <= _GENERATION_DIGITS_MAX
    return int(number) if is_one else 0


def loss_of(stream: str, mark: LogMark, sight: Sight | None, *, end: int) -> Loss | None:
    """What `stream` does not hold any more; None while it is the log that is known."""
    if sight is None:
        return _lost(stream, "is gone", 1, end)
    if sight.id != mark.id:
        return _lost(stream, "is another one than it was", 1, end)
    if sight.last_seq < end:
        return _lost(stream, _OLDER, sight.last_seq + 1, end)
    return None


def emptied(stream: str, sight: Sight, resources: list[str]) -> Loss:
    """A log whose newest ownership entry was removed; it stays for ever otherwise."""
    loss = _lost(stream, "was emptied, wholly or in part", 1, max(1, sight.first_seq - 1))
    return loss.model_copy(update={"resources": sorted(resources)[:RESOURCES_TOLD_MAX]})


def behind(stream: str, sight: Sight) -> Loss:
    """A log without the newest ownership entry, which leases name; it has older ones."""
    return _lost(stream, _OLDER, sight.last_seq + 1, sight.last_seq + 1)


def reported(stream: str, instance_id: str, why: str, end: int) -> Loss:
    """What only an instance can see: the log no longer has what it stored."""
    return _lost(stream, f"is another one than it was: {instance_id} saw that {why}", 1, end)


def _lost(stream: str, what: str, first_seq: int, last_seq: int) -> Loss:
    return Loss(stream=stream, what=what, first_seq=first_seq, last_seq=max(first_seq, last_seq))


_OLDER = "is an older copy"
_GENERATION_DIGITS_MAX = 9
"""An identity may come from anybody, and Python makes no number of thousands of digits."""
RESOURCES_TOLD_MAX = 20
"""Beyond it a list helps nobody."""
