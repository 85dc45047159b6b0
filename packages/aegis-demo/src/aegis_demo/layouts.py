"""How the accounts lie on the instances: all on one, with a standby; or shared among many.

The session is the same for both. It asks its layout where they differ: what control is told, what starts, who is hit, and
who follows. A layout judges by what control wrote (`witness.Directory`); it starts nothing and knows no process.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from aegis_sdk.contract.control import Role

from aegis_demo.accounts import ON_DEMAND
from aegis_demo.witness import Directory


class Layout(Protocol):
    """Instances are named by their ids."""

    @property
    def control_settings(self) -> Mapping[str, str]:
        """Control's environment, beside where NATS is."""

    @property
    def words(self) -> str:
        """The instances that start, for people."""

    @property
    def first_roles(self) -> Sequence[str]:
        """With what role each instance starts."""

    @property
    def later_role(self) -> str:
        """Of an instance that starts in mid-stream."""

    def is_ready(self, directory: Directory) -> bool:
        """Whether orders may flow."""

    def active(self, directory: Directory) -> str | None:
        """The instance to hit, if there is one."""

    async def successor(self, directory: Directory, victim: str) -> str:
        """Wait until nothing is `victim`'s any more, and return who has it, for people."""

    def has_standby(self, directory: Directory, running: Collection[str]) -> bool:
        """Whether the active may be hit; `running` are the instances whose process runs."""

    def failovers(self, directory: Directory, *, since: Mapping[str, int], provoked: int) -> int:
        """How many there were since the epochs `since`, when `provoked` times an active was hit."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One instance is active for all `accounts`, another stands by."""

    accounts: list[str]
    control_settings: ClassVar[Mapping[str, str]] = {"AEGIS_SPREAD": "false"}
    words: ClassVar[str] = "an active and a standby of accounts"
    first_roles: ClassVar[Sequence[str]] = (Role.ACTIVE, Role.STANDBY)
    later_role: ClassVar[str] = Role.AUTO

    def is_ready(self, directory: Directory) -> bool:
        """Either may be the active: on a busy machine, with thousands of accounts, the standby may have taken over."""
        return self.active(directory) is not None

    def active(self, directory: Directory) -> str | None:
        return directory.active_of_all(self.accounts)

    async def successor(self, directory: Directory, victim: str) -> str:
        await directory.until(lambda d: self.active(d) not in (victim, None))
        return str(self.active(directory))

    def has_standby(self, directory: Directory, running: Collection[str]) -> bool:
        active = self.active(directory)
        return active is not None and any(
            name != active and directory.lives(name) for name in running
        )

    def failovers(self, directory: Directory, *, since: Mapping[str, int], provoked: int) -> int:
        """What the leases' epochs say, whatever was provoked."""
        now = directory.epochs()
        return max((now[account] - epoch for account, epoch in since.items()), default=0)


@dataclass(frozen=True, slots=True)
class Shared:
    """`count` instances take accounts on demand, and stand by for each other."""

    count: int
    control_settings: ClassVar[Mapping[str, str]] = {"AEGIS_SPREAD_WAIT_S": "0.5"}
    later_role: ClassVar[str] = ON_DEMAND

    @property
    def words(self) -> str:
        return f"{self.count} that share accounts"

    @property
    def first_roles(self) -> Sequence[str]:
        return (ON_DEMAND,) * self.count

    def is_ready(self, directory: Directory) -> bool:
        """Always: an account is somebody's with its first order."""
        return True

    def active(self, directory: Directory) -> str | None:
        """The instance that is active for most."""
        most = directory.owners().most_common(1)
        return most[0][0] if most else None

    async def successor(self, directory: Directory, victim: str) -> str:
        had = [name for name, lease in directory.leases.items() if lease.owner == victim]
        await directory.until(lambda d: not d.owners()[victim])
        return ", ".join(sorted({directory.leases[name].owner for name in had}))

    def has_standby(self, directory: Directory, running: Collection[str]) -> bool:
        return directory.has_standbys()

    def failovers(self, directory: Directory, *, since: Mapping[str, int], provoked: int) -> int:
        """What was provoked: accounts move when instances come, too, and epochs with them."""
        return provoked


def layout_of(accounts: list[str], *, instances: int, grow: bool) -> Layout:
    """What the demo's options ask for."""
    return Shared(instances) if grow or instances > 2 else Pair(accounts)
