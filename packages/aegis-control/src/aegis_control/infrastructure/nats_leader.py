"""Asking the leading replica of control what only it knows, as any operator does."""

from __future__ import annotations

from typing import Final

import pydantic
from aegis_sdk.contract.control import AdminReply
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.calls import NobodyListens, ask
from aegis_sdk.nats.link import Link

_TIMEOUT_S: Final = 5.0
"""A drain or a handover waits for an instance, up to twice 2 s."""


class NatsLeader:
    """For a replica that does not lead."""

    def __init__(self, link: Link, subjects: Subjects) -> None:
        self._link = link
        self._subjects = subjects

    async def ask(self, verb: str, data: bytes) -> AdminReply:
        """Raises: Unavailable."""
        if not self._link.is_connected:
            raise Unavailable("this control is not connected to NATS")
        try:
            reply = await ask(self._link, self._subjects.admin(verb), data, timeout_s=_TIMEOUT_S)
            return AdminReply.model_validate_json(reply)
        except NobodyListens as error:
            raise Unavailable("no replica of control leads") from error
        except Unavailable as error:
            raise Unavailable(f"the leading control did not answer {verb}") from error
        except pydantic.ValidationError as error:
            raise Unavailable("the leading control is of another version") from error
