"""What a running instance offers: resources that come and go.

Both ways have three steps, in an order in which each may be the last one. To add: what is stored for the resources is kept
from now on; control registers and places them; the instance follows them, and serves those that the log gives to it. To
remove: the instance begins nothing new on them, and what is under way ends; control gives them to others, or to nobody; the
instance has read so, and forgets them. What fails before control has answered leaves all as it was: `Membership` sees to it
that control comes to know.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aegis_sdk.application.membership import Membership
from aegis_sdk.application.turns.serving import TurnServing
from aegis_sdk.contract import arguments
from aegis_sdk.contract.control import Role, roles_of
from aegis_sdk.errors import InvalidArgument, Unavailable

CHANGE_TIMEOUT_S: Final = 10.0
REST_S: Final = 1.0
"""What rests waits so long for its checkpoint, and tries later: meanwhile nothing else can be added."""


class Offering:
    """Of one instance. `serving` gives the parts that serve now; `check` raises if nothing may be changed any more."""

    def __init__(
        self,
        membership: Membership,
        serving: Callable[[], TurnServing],
        check: Callable[[], None],
    ) -> None:
        self._membership = membership
        self._serving = serving
        self._check = check
        self.lock = asyncio.Lock()
        """Held while something changes, and while the parts that serve are made anew."""

    async def add(self, resources: Mapping[str, Role] | Iterable[str], *, timeout_s: float) -> None:
        wanted = _roles(resources)
        async with self._changing(timeout_s) as give_up_s:
            new = {name: role for name, role in wanted.items() if self._is_new(name, role)}
            if not new:
                return
            serving = self._serving()
            coming = serving.expect(new)
            try:
                reply = await self._membership.change(
                    add=new, remove=(), wait_s=give_up_s - time.monotonic()
                )
            except BaseException:
                serving.unexpect(coming)
                raise
            serving.add(coming, log_after=reply.log_after)

    def _is_new(self, resource: str, role: Role) -> bool:
        """Raises: InvalidArgument."""
        known = self._membership.resources.get(resource, role)
        if known is not role:
            raise InvalidArgument(
                f"this instance offers {resource!r} as {known} already: remove it, then add it as {role}"
            )
        return resource not in self._membership.resources

    async def come(self, resources: Iterable[str]) -> None:
        """Control gives them to this instance, which takes them on demand. Raises: AegisError, as `add`."""
        offered = self._membership.resources
        wanted = dict.fromkeys((name for name in resources if name not in offered), Role.AUTO)
        await self.add(wanted, timeout_s=CHANGE_TIMEOUT_S)

    async def go(self, resources: Iterable[str], *, rests: bool = False) -> None:
        """Of what was given on demand: nobody asks for it (`rests`), or others follow it. Raises: AegisError, as `remove`."""
        offered = self._membership.resources
        names = [name for name in resources if name in offered]
        await self.remove(names, timeout_s=CHANGE_TIMEOUT_S, rests=rests)

    async def remove(
        self, resources: Iterable[str], *, timeout_s: float, rests: bool = False
    ) -> None:
        example = '["ACC-1", "ACC-2"]'
        named = arguments.several(resources, "resources", example)
        names = list(dict.fromkeys(arguments.text(name, "a resource's id") for name in named))
        async with self._changing(timeout_s) as give_up_s:
            if not names:
                return
            self._check_known(names)
            serving = self._serving()
            release_s = give_up_s - time.monotonic()
            if not await serving.release(
                names, timeout_s=min(release_s, REST_S) if rests else release_s
            ):
                raise Unavailable(
                    f"a request of {_some(names)} is still under way after {timeout_s:g} s: nothing was removed,"
                    " and all goes on; remove it again later, or with a longer timeout_s"
                )
            try:
                reply = await self._membership.change(
                    add={}, remove=names, wait_s=give_up_s - time.monotonic(), rests=rests
                )
            except BaseException:
                serving.keep(names)
                raise
            await serving.forget(names, log_end=reply.log_end)

    def _check_known(self, names: list[str]) -> None:
        unknown = [name for name in names if name not in self._membership.resources]
        if unknown:
            raise InvalidArgument(
                f"this instance does not offer {_some(unknown)}: nothing was removed; it was never added here, or"
                " removed before"
            )

    @asynccontextmanager
    async def _changing(self, timeout_s: float) -> AsyncIterator[float]:
        """One change at a time. Gives the time (monotonic) at which to give up. Raises: Unavailable."""
        timeout_s = arguments.duration_s(timeout_s, "timeout_s")
        give_up_s = time.monotonic() + timeout_s
        self._check()
        try:
            async with asyncio.timeout(timeout_s):
                await self.lock.acquire()
        except TimeoutError:
            raise Unavailable(
                f"this instance is still busy with an earlier change, or with reading its log anew, after {timeout_s:g}"
                " s: nothing was changed; try again"
            ) from None
        try:
            self._check()
            yield give_up_s
        finally:
            self.lock.release()


def _roles(resources: Mapping[str, Role] | Iterable[str]) -> dict[str, Role]:
    """Raises: InvalidArgument, InvalidName."""
    if not isinstance(resources, Mapping):
        example = '{"ACC-1"} or {"ACC-1": Role.AUTO}'
        named = arguments.several(resources, "resources", example)
        resources = {arguments.text(name, "a resource's id"): Role.AUTO for name in named}
    return roles_of(resources)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]!r}{more}"
