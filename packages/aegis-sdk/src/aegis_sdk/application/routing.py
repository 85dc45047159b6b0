"""Whether a request can be sent, as its caller is told."""

from __future__ import annotations

from collections.abc import Callable

from aegis_sdk.application.composing import CLOSED
from aegis_sdk.application.ports import Directory, StoreError, StoreForbidden
from aegis_sdk.contract.envelope import Request
from aegis_sdk.errors import Draining, RefusedByNats, Unavailable


async def check_route(
    directory: Directory, request: Request, *, is_gone: Callable[[], bool]
) -> None:
    """Return when it can be sent. `is_gone`: whether the client is closed by then.

    Raises: NoRoute, UnknownService and the others of `Directory.check`; RefusedByNats, Unavailable, Draining.
    """
    service, method, resource = request.service, request.method, request.resource
    if directory.admits(service, method, resource):
        return
    try:
        await directory.check(service, method, resource)
    except StoreForbidden as error:
        raise RefusedByNats(f"the registry could not be read: {error}") from error
    except StoreError as error:
        if is_gone():
            raise Draining(CLOSED) from error
        raise Unavailable(f"the registry could not be read: {error}") from error
