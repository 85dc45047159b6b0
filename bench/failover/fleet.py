"""Instances, each a process, of which one begins as the active: who has which resource, and replacing one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

from aegis_control.infrastructure.admin_client import AdminClient, AdminError
from aegis_sdk.contract.control import InstanceState

from bench.bed import Bed, BedError, Process
from bench.ledger import Tally

MOVED_TIMEOUT_S = 30.0
SETTLE_S = 0.3
"""Two heartbeats after its registration control knows how far a standby has read."""
POLL_S = 0.05
CALM_POLLS = 6
"""Two heartbeats long: the first one may be from before the standby knew how much there is."""
LAG_MAX = 50
"""Entries on their way under load are no lag."""
SERVICE = "accounts"


class Member:
    """One instance's process and what it said of its roles."""

    def __init__(self, name: str, process: Process, changed: asyncio.Condition) -> None:
        """`changed` is told of whatever any member of the fleet says."""
        self.name = name
        self.process = process
        self.active: dict[str, float] = {}
        """Resource: when it became active for it."""
        self.orders = Tally()
        """The group requests that it ran; known when it was drained."""
        self._registered = False
        self._changed = changed
        self._listener = asyncio.create_task(self._listen())
        self._ended = False

    async def ready(self) -> None:
        """Wait until it is registered. Raises: BedError."""
        await self._until(lambda: self._registered)

    async def has(self, resources: Iterable[str]) -> float:
        """Wait until it is active for all of them; when the last one was. Raises: BedError."""
        wanted = set(resources)
        await self._until(lambda: wanted <= self.active.keys())
        return max(self.active[name] for name in wanted)

    async def has_none(self) -> None:
        """Wait until it knows that it is active for nothing. Raises: BedError."""
        await self._until(lambda: not self.active)

    async def drained(self) -> None:
        """Wait until it ended by itself, with all that it had to say. Raises: BedError."""
        await self.process.ended(MOVED_TIMEOUT_S)
        await self._listener

    async def _until(self, reached: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(MOVED_TIMEOUT_S), self._changed:
                await self._changed.wait_for(lambda: reached() or self._ended)
        except TimeoutError:
            words = self.process.last_words()
            raise BedError(f"{self.name}: {len(self.active)} resources, waited{words}") from None
        if not reached():
            raise BedError(f"{self.name} ended{self.process.last_words()}")

    async def _listen(self) -> None:
        with contextlib.suppress(BedError):
            while True:
                said = await self.process.read(None)
                async with self._changed:
                    self._take(said)
                    self._changed.notify_all()
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self, said: dict[str, Any]) -> None:
        self._registered = self._registered or "ready" in said
        self.orders.merge(Tally(*said.get("orders", ())))
        self.active |= dict.fromkeys(said.get("promoted", ()), said.get("at_s", 0.0))
        for resource in said.get("demoted", ()):
            self.active.pop(resource, None)


class Fleet:
    """`size` members, the oldest first.

    Of two, `active` has resources and `standby` none, but for handovers of single resources.
    """

    def __init__(self, bed: Bed, *, size: int = 2) -> None:
        self._bed = bed
        self._size = size
        self._numbers = itertools.count(1)
        self._changed = asyncio.Condition()
        self.resources = bed.settings.accounts
        self.admin = AdminClient(bed.url)
        self.members: list[Member] = []

    async def start(self) -> None:
        """Returns when one member serves all resources and the others follow. Raises: BedError."""
        await self._bed.stack.enter_async_context(self.admin)
        first = await self.start_member()
        await first.has(self.resources)
        self.members = [first]
        while len(self.members) < self._size:
            await self.join()

    @property
    def active(self) -> Member:
        return max(self.members, key=lambda member: len(member.active))

    @property
    def standby(self) -> Member:
        return self.members[1 - self.members.index(self.active)]

    async def replace(self, gone: Member) -> None:
        """A new standby in its place; returns when it follows. Raises: BedError."""
        self.members.remove(gone)
        await self.join()

    async def join(self) -> None:
        """One member more; returns when it follows. Raises: BedError."""
        member = await self.start_member()
        self.members.append(member)
        await self.caught_up(member)

    async def moved(self, resources: Iterable[str], gone: Member) -> float:
        """Wait until other members are active for all of `resources`; when the last one was.

        Raises: BedError.
        """
        wanted = list(resources)

        def since_s() -> list[float]:
            others = [member.active for member in self.members if member is not gone]
            return [max(each.get(name, 0.0) for each in others) for name in wanted]

        try:
            async with asyncio.timeout(MOVED_TIMEOUT_S), self._changed:
                await self._changed.wait_for(lambda: all(since_s()))
        except TimeoutError:
            raise BedError(f"what {gone.name} had was not taken over by others") from None
        return max(since_s())

    async def end(self) -> Tally:
        """Drain all, one after the other; the group requests that they ran. Raises: BedError."""
        ran = Tally()
        for member in self.members:
            member.process.send(signal.SIGTERM)
            await member.drained()
            ran.merge(member.orders)
        return ran

    async def all_live(self) -> None:
        """Wait until control finds both fit to take over. Raises: BedError."""
        give_up_s = time.monotonic() + MOVED_TIMEOUT_S
        while time.monotonic() < give_up_s:
            lags = await self._lags()
            if len(lags) == len(self.members):
                return
            await asyncio.sleep(POLL_S)
        raise BedError("a member did not come back to life")

    async def caught_up(self, standby: Member) -> None:
        """Wait until it has read the journal: a failover to one that has not takes as long
        as its reading, which is not what is asked here. Raises: BedError."""
        await asyncio.sleep(SETTLE_S)
        give_up_s = time.monotonic() + MOVED_TIMEOUT_S
        calm = 0
        while calm < CALM_POLLS:
            if time.monotonic() > give_up_s:
                raise BedError("a standby did not catch up")
            lag = (await self._lags()).get(standby.name, LAG_MAX + 1)
            calm = calm + 1 if lag <= LAG_MAX else 0
            await asyncio.sleep(POLL_S)

    async def _lags(self) -> dict[str, int]:
        """Entries that each live member has yet to read, as control knows."""
        try:
            view = (await self.admin.describe(SERVICE)).view
        except AdminError:
            return {}
        names = {member.name for member in self.members}
        return {
            each.instance_id: each.lag_entries
            for each in view.instances
            if each.state is InstanceState.LIVE and each.instance_id in names
        }

    async def start_member(self) -> Member:
        """Returns when it is registered. Raises: BedError."""
        name = f"m{next(self._numbers)}"
        options = {
            "url": self._bed.url,
            "id": name,
            "resources": self.resources,
            "loop": self._bed.settings.loop,
        }
        process = await Process.start(name, ["-m", "bench.failover.member"], self._bed.folder)
        self._bed.stack.push_async_callback(_end, process)
        await process.tell(options)
        member = Member(name, process, self._changed)
        await member.ready()
        return member


async def _end(process: Process) -> None:
    process.send(signal.SIGCONT)
    await process.kill()
