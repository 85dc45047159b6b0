"""How callers that nobody answers come to know what became of their requests (R6), all of one moment together.

Theory of operation. Each stores an *end* of its request. Then they look up who may write their resources, *behind* the last end:
looked up before it, a move in between would hide the new owner. A new owner that comes after the end reads it before it
serves. Each of the writers found needs a gate behind the ends. Anybody's will do, and where there is one already, none is stored:
thousands of callers that give up together do not shut a writer out thousands of times. From its gate on, a writer has read
the ends. So what the log holds up to the last of these gates is the truth: a request that has an outcome there was done,
every other one can never take effect. Only headers are read, from the time of the oldest request.

A request whose outcome has a name of its own (a single, the group's) needs none of it: its caller stores its cancel under
that name. Create-only decides who was first, and tells what is there.

What must stay true: the steps are in this order, and a step that failed is tried again from where it was, never skipped.
What would break: without the look, a turn that was stored before the gates would be called cancelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aegis_sdk.contract.envelope import Outcome
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.domain.turns.entries import Own
from aegis_sdk.domain.turns.ownership import UNOWNED
from aegis_sdk.domain.turns.states import GIVE_UP, GiveUpEvent, GiveUpState, step


class GivingUp:
    """Requests of one service whose callers give up at the same moment. What its host has to do is told by `state`."""

    def __init__(self, resources: Mapping[str, str], named: Iterable[str] = ()) -> None:
        """`resources`: by request id; `named`: ids of requests whose outcomes have names of their own."""
        self.state = GiveUpState.ENDING
        self.cancels = sorted(named)
        """ENDING: store a cancel under the name of each of these."""
        self.ends = {i: resource for i, resource in resources.items() if i not in self.cancels}
        """ENDING: store an end for each of these."""
        self.last_end = 0
        """FINDING: who may write `resources`, by the log up to there, and the newest gate of each."""
        self.writers: list[str] = []
        """SHUTTING: store a gate of each of these."""
        self.last_gate = 0
        """LOOKING: read the log up to there."""
        self.outcomes: dict[str, Outcome] = {}
        """KNOWN: what was done. The others never will be."""

    @property
    def resources(self) -> set[str]:
        return set(self.ends.values())

    def ended(self, ends: Iterable[int], cancelled: Mapping[str, Outcome]) -> None:
        """All ends are stored, at these places; and what now stands under the names of the others."""
        self.outcomes.update(cancelled)
        self.last_end = max(ends, default=0)
        self._step(GiveUpEvent.ENDED if self.ends else GiveUpEvent.SETTLED)

    def found(self, writers: Iterable[str], gates: Mapping[str, int]) -> None:
        """Who may write, and the newest gate of each that is known."""
        may_write = set(writers)
        behind = [seq for writer in may_write if (seq := gates.get(writer, 0)) > self.last_end]
        self.writers = sorted(w for w in may_write if gates.get(w, 0) <= self.last_end)
        self.last_gate = max(behind, default=self.last_end)
        self._step(GiveUpEvent.FOUND)

    def shut(self, gates: Iterable[int]) -> None:
        """Their gates are stored, at these places."""
        self.last_gate = max(self.last_gate, *gates, self.last_end)
        self._step(GiveUpEvent.SHUT)

    def looked(self, outcomes: Mapping[str, Outcome]) -> None:
        """Those of the requests that have an outcome up to `last_gate`."""
        self.outcomes.update(outcomes)
        self._step(GiveUpEvent.LOOKED)

    def _step(self, event: GiveUpEvent) -> None:
        self.state = step(GIVE_UP, self.state, event)


def may_write(resource: str, newest: Checkpoint | None, owns: Iterable[Own]) -> set[str]:
    """All whose turns may hold the resource, for a caller that has not followed the log.

    `owns`: the ownership entries behind the resource's newest checkpoint, or from the beginning of the log. Everybody named
    since then counts, shut out or not: a gate too many does no harm.
    """
    found = {newest.writer} if newest is not None else set()
    known = newest.own if newest is not None else 0
    found.update(
        own.moves[resource] for own in owns if own.number > known and resource in own.moves
    )
    return found - UNOWNED
