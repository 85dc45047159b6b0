"""Where the snapshots of callers and instances arrive: core NATS, at every replica of control."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pydantic
import structlog
from aegis_sdk.contract.metrics import Snapshot
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.nats.link import Link
from nats.aio.msg import Msg

from aegis_control.application.unreadable import said_by

_TOLD_MAX: Final = 1_000
"""A source that sends such snapshots sends one each second: it is told of once."""


async def listen_for_snapshots(
    link: Link, subjects: Subjects, heard: Callable[[Snapshot], None]
) -> None:
    """Until the connection closes. What can't be read is left out: its next one may be readable."""
    told: set[str] = set()

    async def receive(message: Msg) -> None:
        try:
            snapshot = Snapshot.model_validate_json(message.data)
        except pydantic.ValidationError as error:
            if message.subject not in told and len(told) < _TOLD_MAX:
                told.add(message.subject)
                structlog.stdlib.get_logger("aegis_control").warning(
                    "snapshot_unreadable", subject=message.subject, reason=said_by(error)
                )
            return
        heard(snapshot)

    await link.client.subscribe(subjects.metrics("*"), cb=receive)
