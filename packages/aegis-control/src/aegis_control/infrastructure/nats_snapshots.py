"""Where the snapshots of callers and instances arrive: core NATS, at every replica of control."""

from __future__ import annotations

from collections.abc import Callable

import pydantic
import structlog
from aegis_sdk.contract.metrics import Snapshot
from aegis_sdk.contract.subjects import Subjects
from nats.aio.msg import Msg

from aegis_control.infrastructure.nats_link import NatsLink


async def listen_for_snapshots(
    link: NatsLink, subjects: Subjects, heard: Callable[[Snapshot], None]
) -> None:
    """Until the connection closes. What can't be read is left out: its next one may be readable."""

    async def receive(message: Msg) -> None:
        try:
            snapshot = Snapshot.model_validate_json(message.data)
        except pydantic.ValidationError as error:
            structlog.stdlib.get_logger("aegis_control").debug(
                "snapshot_unreadable", subject=message.subject, reason=str(error)
            )
            return
        heard(snapshot)

    await link.client.subscribe(subjects.metrics("*"), cb=receive)
