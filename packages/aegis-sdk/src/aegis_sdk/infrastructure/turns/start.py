"""What an instance begins with: the newest checkpoints of the resources that it follows."""

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

READ_TIMEOUT_S: Final = 5.0
AT_ONCE_MAX: Final = 500


async def newest_saved(
    link: Link, names: LogSubjects, resources: Collection[str]
) -> list[SavedUpTo]:
    """What the newest checkpoints of these say, as far as there are any. Raises: StoreError."""
    subjects = [names.checkpoint(resource) for resource in resources]
    messages = []
    for at in range(0, len(subjects), AT_ONCE_MAX):
        messages += await link.collect(
            f"{link.api_prefix}DIRECT.GET.{names.stream}",
            {"multi_last": subjects[at : at + AT_ONCE_MAX]},
            timeout_s=READ_TIMEOUT_S,
        )
    try:
        return [SavedUpTo.parse(message.headers.get(SAVED, "")) for message in messages]
    except ValueError as error:
        raise StoreUnreachable(f"a checkpoint of {names.service}: {error}") from error


async def newest_checkpoints(
    link: Link, names: LogSubjects, resources: Sequence[str]
) -> dict[str, FoundCheckpoint]:
    """By resource. Any server of the cluster may answer, with an older one: then more of the log is read. Raises: StoreError."""
    found: dict[str, FoundCheckpoint] = {}
    for at in range(0, len(resources), AT_ONCE_MAX):
        by_subject = {names.checkpoint(each): each for each in resources[at : at + AT_ONCE_MAX]}
        messages = await link.collect(
            f"{link.api_prefix}DIRECT.GET.{names.stream}",
            {"multi_last": list(by_subject)},
            timeout_s=READ_TIMEOUT_S,
        )
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
    """Read at the leader, so that none is missed. Raises: StoreError."""
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
    """With its parts. Raises: ValueError, StoreError: also when a newer one has replaced it meanwhile."""
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
