"""Asking whoever listens on a subject, for those that speak in the SDK's public errors: control and its tools.

It keeps apart what a `Link` keeps apart. "Nobody listens" is definite, and may be asked again or elsewhere without a second
thought. "No answer" is not: what was asked for may be done, or be done yet.
"""

from __future__ import annotations

from aegis_sdk.application.ports import StoreError, StoreForbidden, StoreMissing
from aegis_sdk.errors import RefusedByNats, Unavailable
from aegis_sdk.nats.link import Link, NotInTime


class NobodyListens(Unavailable):
    """The server knows of nobody on that subject: nothing was done."""


class NoAnswer(Unavailable):
    """None came in time: it may have been done, or be done yet."""


async def ask(link: Link, subject: str, data: bytes, *, timeout_s: float) -> bytes:
    """Core request/reply: the answer's body.

    Raises: NobodyListens; RefusedByNats: this login may not ask there; NoAnswer, Unavailable: it may have been done.
    """
    try:
        return await link.request(subject, data, timeout_s=timeout_s)
    except StoreMissing as error:
        raise NobodyListens(str(error)) from error
    except StoreForbidden as error:
        raise RefusedByNats(str(error)) from error
    except NotInTime as error:
        raise NoAnswer(str(error)) from error
    except StoreError as error:
        raise Unavailable(str(error)) from error
