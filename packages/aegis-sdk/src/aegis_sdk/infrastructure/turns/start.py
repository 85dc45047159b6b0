"""What an instance begins with: the newest checkpoints of the resources that it follows, and the newest ownership entry.

Checkpoints are read by direct gets of many subjects, which any node of the stream's cluster answers. A node may lag, so a
checkpoint may be an older one. That is safe: its reader begins further back. If the log was trimmed past there, the
missing number shows it (domain/turns/work.py), and the start is made anew.

The ownership entry is read at the leader, since an older one would do harm: an operator's pause that stands in the newest
would be missed (docs/guarantees.md, Pauses). It is read behind the checkpoints and before the log is; what is
stored later comes by the reader.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from aegis_sdk.application.ports import StoreUnreachable
from aegis_sdk.application.turns.ports import FoundCheckpoint
from aegis_sdk.contract.turns.checkpoint import SAVED, Checkpoint, SavedUpTo
from aegis_sdk.contract.turns.entries import EntryUnreadable
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.domain.turns.entries import Own
from aegis_sdk.domain.turns.parsing import parse_entry
from aegis_sdk.infrastructure.messages import last_message
from aegis_sdk.nats.jetstream import parse_time
from aegis_sdk.nats.link import Link

READ_TIMEOUT_S: Final = 30.0
"""For one answer of the server, which is up to AT_ONCE_MAX checkpoints, or some 64 MB."""
AT_ONCE_MAX: Final = 500
"""Subjects of one question; the server takes a thousand."""


async def newest_saved(
    link: Link, names: LogSubjects, resources: Collection[str]
) -> list[SavedUpTo]:
    """What the newest checkpoints of these say in their headers, as far as there are any. Raises: StoreError.

    It tells who may have written a resource whose ownership entries were trimmed (last_word.py). One that can't be read
    raises: to leave it out would leave a writer out.
    """
    subjects = [names.checkpoint(resource) for resource in resources]
    messages = []
    for at in range(0, len(subjects), AT_ONCE_MAX):
        messages += await link.newest(
            names.stream, subjects[at : at + AT_ONCE_MAX], timeout_s=READ_TIMEOUT_S
        )
    try:
        return [SavedUpTo.parse(message.headers.get(SAVED, "")) for message in messages]
    except ValueError as error:
        raise StoreUnreachable(f"a checkpoint of {names.service}: {error}") from error


async def newest_checkpoints(
    link: Link, names: LogSubjects, resources: Sequence[str]
) -> dict[str, FoundCheckpoint]:
    """By resource. Any server of the cluster may answer, with an older one: then more of the log is read. Raises: StoreError.

    A resource that has none is left out: it begins where the log does. One that can't be read is the error that says why, and
    concerns that resource alone. Those in parts cost a round trip for each part.
    """
    found: dict[str, FoundCheckpoint] = {}
    for at in range(0, len(resources), AT_ONCE_MAX):
        by_subject = {names.checkpoint(each): each for each in resources[at : at + AT_ONCE_MAX]}
        messages = await link.newest(names.stream, list(by_subject), timeout_s=READ_TIMEOUT_S)
        for message in messages:
            resource = by_subject[message.headers["Nats-Subject"]]
            try:
                checkpoint = await _whole(link, names, Checkpoint.decode(message.data))
            except ValueError as error:
                found[resource] = error
            else:
                found[resource] = checkpoint, parse_time(message.headers["Nats-Time-Stamp"])
    return found


async def newest_own(link: Link, names: LogSubjects) -> Own | None:
    """Read at the leader, so that none is missed. None: the log has none, so nobody ever owned anything. Raises: StoreError."""
    stored = await last_message(link, names.stream, names.own_anywhere)
    if stored is None:
        return None
    try:
        entry = parse_entry(
            names.words(stored.subject), "", stored.payload, stored.seq, stored.at_s
        )
    except EntryUnreadable as error:
        raise StoreUnreachable(f"{stored.subject}: {error}") from error
    return entry if isinstance(entry, Own) else None


async def _whole(link: Link, names: LogSubjects, checkpoint: Checkpoint) -> Checkpoint:
    """With its parts, which are read at the leader one by one. Raises: ValueError, StoreError: also when a newer one has
    replaced it meanwhile, whose owner has purged these. Then the whole question is asked again.
    """
    if not checkpoint.parts:
        return checkpoint
    data = b""
    for n in range(checkpoint.parts):
        subject = names.part(checkpoint.resource, checkpoint.id, n)
        part = await last_message(link, names.stream, subject)
        if part is None:
            raise StoreUnreachable(f"{subject}: there is a newer checkpoint by now")
        data += part.payload
    return Checkpoint.decode(data)
