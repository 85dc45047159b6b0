"""Checkpoints of resources that nobody owns, so that none of them holds up the trim of the log.

Theory of operation. Only a resource's owner stores its checkpoints (checkpoints.py). When it belongs to nobody, control does. A
resource that was given to nobody, and whose writers are all shut out, has no further outcomes until it is given away again. So
control folds what stands behind its newest checkpoint, and stores the next one, up to where it has read. Nobody's gate guards
that. It is stored on condition that the newest checkpoint is still the one that was folded from.

What its handlers had handed in and nobody sent is sent before that (`unsent`), under the ids that tell what comes twice.

What must stay true: between the entry that gave the resource to nobody and the position of the new checkpoint, no
ownership entry gives it to anybody, and a gate of each of its writers stands before that position.
What would break: a checkpoint up to a position behind a new owner's turns would leave those out, and the trim takes them.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_core import to_json

from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.domain.turns.checkpoints import restored, timers_of
from aegis_sdk.domain.turns.entries import Claim, End, Entry, Own, Saved, Settled, Turn
from aegis_sdk.domain.turns.outbox import Outbox
from aegis_sdk.domain.turns.ownership import NOBODY, MissingOwnership
from aegis_sdk.domain.turns.sessions import split
from aegis_sdk.domain.turns.work import BehindTrim, Held


class Keeping:
    """The fold of resources without an owner, from their newest checkpoints on."""

    def __init__(self, newest: Mapping[str, Checkpoint | None], *, own: int, log: str) -> None:
        """`own`: the last ownership entry that is known, which says that they are nobody's. Raises: ValueError."""
        self.held: dict[str, Held] = {name: restored(name, each) for name, each in newest.items()}
        self.begins_after = min((max(0, held.saved) for held in self.held.values()), default=0)
        """What is behind this entry of the log is to be read."""
        self._own = own
        self._log = log
        self._log_s = 0.0
        self._outbox = Outbox()

    def read(self, entry: Entry | Claim) -> None:
        """Raises: MissingOwnership: an entry that is not known moves something; BehindTrim."""
        if isinstance(entry, Turn):
            self._read_turn(entry)
        elif isinstance(entry, End):
            self._log_s = max(self._log_s, entry.stored_s)
            if (held := self.held.get(entry.resource)) is not None:
                held.end(entry.request_id, entry.stored_s)
        elif isinstance(entry, Own) and entry.number > self._own:
            raise MissingOwnership(f"ownership entry {entry.number} came after {self._own}")
        elif isinstance(entry, Saved):
            held = self.held.get(entry.checkpoint.resource)
            if held is not None and entry.checkpoint.number > held.number:
                raise BehindTrim(f"{held.name} was saved meanwhile")

    def _read_turn(self, turn: Turn) -> None:
        self._log_s = max(self._log_s, turn.stored_s)
        for settled in turn.settled:
            if (held := self.held.get(settled.resource)) is not None:
                self._fold(held, settled, turn.stored_s)
                held.settled(settled.request_id)
        for resource, request_id, n in turn.begun:
            if (held := self.held.get(resource)) is not None:
                held.begun[request_id] = n
        for resource, number in turn.sent.items():
            if (held := self.held.get(resource)) is not None:
                self._outbox.read(held, number)

    def _fold(self, held: Held, settled: Settled, at_s: float) -> None:
        held.fold(*split(settled.request_id), settled.outcome, at_s)

    def checkpoint(
        self, resource: str, *, read: int, epoch: int, kept_s: float, owner: str = NOBODY
    ) -> Checkpoint:
        """As it is at the entry `read`. `kept_s`: how long outcomes, and so the sessions of silent callers, are kept. `owner`:
        who has it by then, which is nobody, or that it is retired.
        """
        held = self.held[resource]
        old_s = self._log_s - kept_s
        held.sessions.drop_unused(old_s)
        return Checkpoint(
            writer=owner,
            resource=resource,
            log=self._log,
            read=read,
            number=held.number,
            epoch=epoch,
            own=self._own,
            sessions=held.sessions.dump(),
            ended={i: at_s for i, at_s in held.ended.items() if at_s >= old_s},
            unsent=[(number, list(contents)) for number, contents in held.unsent.items()],
            begun=dict(held.begun),
            timers=timers_of(held),
            values=to_json(held.values),
        )


class Remains(Keeping):
    """The same of a log that lost something, and goes on without that since an operator said so.

    A resource of which outcomes are missing has lost its state: it begins again without one. Its callers' requests that are
    in the log count as done.
    """

    def __init__(self, newest: Mapping[str, Checkpoint | None], *, own: int, log: str) -> None:
        super().__init__(newest, own=own, log=log)
        self.torn: set[str] = set()
        """Resources of which outcomes are missing."""

    def _fold(self, held: Held, settled: Settled, at_s: float) -> None:
        if held.name not in self.torn:
            try:
                super()._fold(held, settled, at_s)
                return
            except BehindTrim:
                self.torn.add(held.name)
                held.values, held.unsent, held.timers = {}, {}, None
        held.number = max(held.number, settled.outcome.number)
        held.sessions.add(*split(settled.request_id), at_s)
