"""Who may write each resource, as the log says: the fold of ownership entries and gates.

Theory of operation. A writer's turns are checked by the server against the writer's *gate*: a subject of the log whose
last sequence must be the one that the writer has read. An ownership entry alone therefore stops nobody: the old writer may
not have read it, and can still store turns. Storing a new gate of the old writer stops it, because its next turn names a
sequence that is no longer the last. So a resource passes in two steps, both of them in the log: the ownership entry, then a
gate of every writer that the resource was taken from (R4). Between the two, the old writer's turns still count. Behind the
second, no further one can exist, and whoever has read that far has read all of them.

A reader may begin at checkpoints, each of which tells one resource's owner at a position of its own. What stands in the log up to
there is known for that resource, and skipped for it (`restore`).

What must stay true: entries are folded in the log's order, each once. Ownership entries are numbered without gaps, and
a reader that sees a gap stops. Gates replace each other: a reader may miss one, never what it announced (R5).
What would break: a new owner that serves before it has read those gates loses the turns that it has not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

NOBODY: Final = ""
"""The owner of a resource that was taken from its writer and given to no other."""
RETIRED: Final = "-"
"""The same of one that an operator has ended: nobody is missing. No writer has that name."""
IDLE: Final = "~"
"""The same of one that nobody asks for: it is given to somebody when it is."""
UNOWNED: Final = frozenset({NOBODY, RETIRED, IDLE})


class MissingOwnership(Exception):
    """An ownership entry is missing from what was read: nothing behind it can be judged."""


@dataclass(slots=True)
class Tenure:
    """One owner's time with a resource."""

    owner: str
    epoch: int
    """The number of the ownership entry that began it."""
    open: set[str] = field(default_factory=set)
    """Writers that lost the resource and have no gate behind that entry yet: their turns may still come."""
    told: int = 0
    """The last ownership entry that its checkpoint knew."""
    since_s: float = 0.0
    """When that entry was stored (Unix time, by the log); 0.0 when nobody had the resource before."""
    why: str = ""
    """What it says of its reason."""


class Ownership:
    """The fold. `number` is the last ownership entry read, `gates` the newest gate read of each writer.

    It begins wherever the log does, which may be trimmed, unless `begin` says what comes first.
    """

    def __init__(self) -> None:
        self.number = 0
        self._begins_anywhere = True
        self.gates: dict[str, int] = {}
        self._tenures: dict[str, Tenure] = {}
        self._waiting: dict[str, dict[str, None]] = {}
        """For each writer, the resources that wait for a gate of it: a gate costs what it ends, not what exists."""

    def begin(self, number: int | None) -> None:
        """What is read comes behind ownership entry `number`; None: wherever the log begins."""
        self.number = number or 0
        self._begins_anywhere = number is None

    def restore(self, resource: str, owner: str, *, epoch: int, own: int) -> None:
        """As a checkpoint has it that its owner made, behind ownership entry `own` and every gate that it needed."""
        self._tenures[resource] = Tenure(owner, epoch, told=own)

    def adopt(self, resource: str, other: Ownership) -> None:
        """As another fold has it, which has read just as far."""
        tenure = other._tenures.get(resource)
        if tenure is not None:
            self._tenures[resource] = tenure
            for writer in tenure.open:
                self._waiting.setdefault(writer, {})[resource] = None

    def read_own(
        self, number: int, moves: Mapping[str, str], at_s: float = 0.0, why: str = ""
    ) -> list[str]:
        """Fold ownership entry `number`; the resources whose owner changed.

        Raises: MissingOwnership.
        """
        if number <= self.number:
            return []
        if self._begins_anywhere:
            self._begins_anywhere = False
        elif number != self.number + 1:
            raise MissingOwnership(
                f"ownership entry {number} follows {self.number} in what was read: the log is not whole"
            )
        self.number = number
        return [
            resource for resource, owner in moves.items() if self._move(resource, owner, at_s, why)
        ]

    def _move(self, resource: str, owner: str, at_s: float, why: str) -> bool:
        old = self._tenures.get(resource)
        if old is None:
            self._tenures[resource] = Tenure(owner, self.number)
            return True
        if old.owner == owner or self.number <= old.told:
            return False
        unshut = old.open | {old.owner}
        unshut -= {owner} | UNOWNED  # a writer's own turns are in order with what it does now
        self._tenures[resource] = Tenure(owner, self.number, unshut, since_s=at_s, why=why)
        for writer in unshut:
            self._waiting.setdefault(writer, {})[resource] = None
        return True

    def read_gate(self, writer: str, seq: int) -> list[str]:
        """Fold a gate; the resources whose owner waited for this one and for no other."""
        self.gates[writer] = seq
        return [name for name in self._waiting.pop(writer, ()) if self._shut(name, writer)]

    def _shut(self, resource: str, writer: str) -> bool:
        open_ = self._tenures[resource].open
        waited = writer in open_
        open_.discard(writer)
        return waited and not open_

    def resources(self) -> Iterable[str]:
        """All that were ever named, as far as it was read."""
        return self._tenures.keys()

    def owner(self, resource: str) -> str:
        """The writer that the newest entry names; one of UNOWNED, which is none."""
        tenure = self._tenures.get(resource)
        return NOBODY if tenure is None else tenure.owner

    def epoch(self, resource: str) -> int:
        """The fencing token: rises with each change of owner; 0 before the first."""
        tenure = self._tenures.get(resource)
        return 0 if tenure is None else tenure.epoch

    def since_s(self, resource: str) -> float:
        """Since when its owner has it from another (Unix time, by the log); 0.0 when it is the first one."""
        tenure = self._tenures.get(resource)
        return 0.0 if tenure is None else tenure.since_s

    def why(self, resource: str) -> str:
        """Why its owner has it, as the ownership entry says."""
        tenure = self._tenures.get(resource)
        return "" if tenure is None else tenure.why

    def is_whole(self, resource: str) -> bool:
        """Whether no writer before the owner can store a turn of the resource any more."""
        return not self.unshut((resource,))

    def unshut(self, resources: Iterable[str]) -> set[str]:
        """Writers that lost one of `resources` and were not shut out yet: each needs a gate (R4)."""
        found: set[str] = set()
        for resource in resources:
            if (tenure := self._tenures.get(resource)) is not None:
                found |= tenure.open
        return found

    def may_write(self, resource: str) -> set[str]:
        """All whose turns may hold the resource: who wants to rule out an effect stores a gate of each (R6)."""
        return self.unshut((resource,)) | ({self.owner(resource)} - UNOWNED)
