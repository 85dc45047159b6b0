"""How far subscriptions are: their positions, and what of the streams of events is behind those."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from aegis_sdk.contract.control import SubscriptionRecord, SubscriptionView
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.codes import ERR_NO_STREAM
from aegis_sdk.nats.jetstream import ApiRefused, JetStream, Kept, from_seq

from aegis_control.infrastructure.nats_reading import last


async def subscriptions(link: JetStream, subjects: Subjects) -> list[SubscriptionView]:
    """All that ever began, by subscriber and event. One whose position can't be read is left out. Raises: Unavailable."""
    bucket = subjects.subscriptions_bucket
    found: list[SubscriptionView] = []
    try:
        async for kept in link.read_last_of_each(f"KV_{bucket}", f"$KV.{bucket}.>"):
            if (record := _record(kept, bucket)) is not None:
                found.append(await _view(link, subjects, record))
    except ApiRefused as error:
        if error.code == ERR_NO_STREAM:
            return found  # control never ran here, or a stream of events was removed just now
        raise Unavailable(f"the subscriptions could not be read: {error}") from error
    return sorted(found, key=lambda view: (view.service, view.takes))


def _record(kept: Kept, bucket: str) -> SubscriptionRecord | None:
    if kept.headers.get("KV-Operation") in ("DEL", "PURGE"):
        return None
    with suppress(ValueError):
        return SubscriptionRecord.read(kept.subject.removeprefix(f"$KV.{bucket}."), kept.payload)
    return None


async def _view(
    link: JetStream, subjects: Subjects, record: SubscriptionRecord
) -> SubscriptionView:
    """Raises: Unavailable, ApiRefused."""
    emitter, _, event = record.takes.partition(".")
    stream, subject = subjects.emitted_stream(emitter), subjects.emitted_all(emitter, event)
    view = SubscriptionView(service=record.service, takes=record.takes, position=record.seq)
    newest = await last(link, stream, subject)
    if newest is None or newest.seq <= record.seq:
        return view
    oldest = await link.first_of(stream, subject, from_seq=record.seq + 1)
    if oldest is not None:
        view.lag_s = round(max(0.0, time.time() - oldest.at_s), 3)
        view.lag_entries = await _count(link, stream, subject, record.seq)
    return view


async def _count(link: JetStream, stream: str, subject: str, seq: int) -> int:
    """What a reader from behind `seq` would have to read."""
    config: dict[str, Any] = {
        "filter_subject": subject,
        "ack_policy": "none",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": 1_000_000_000,
        **from_seq(seq + 1),
    }
    made = await link.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
    await link.api(f"CONSUMER.DELETE.{stream}.{made['name']}")
    return int(made["num_pending"])
