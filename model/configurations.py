"""How large the model is searched, and what must go wrong when a rule is taken away.

Values only. A budget is how often a run may meet that fault, wherever it likes; a search with a
budget covers all smaller ones. The promises' ids (G1 to G6) are those of docs/guarantees.md.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

PROMISES = {
    1: "accepted is kept",
    2: "one outcome",
    3: "one effect",
    4: "definite answers",
    5: "one active",
    6: "failover loses nothing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The size of a search of `model`: who takes part, and how often each fault may strike."""

    model: ClassVar[str]

    def flags(self) -> list[str]:
        """The size as options of spin: a name and a number, or a name that is there or not."""
        sizes = [(field.name.upper(), getattr(self, field.name)) for field in fields(self)]
        return [
            f"-D{name}" if size is True else f"-D{name}={size}"
            for name, size in sizes
            if size is not False
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnBudget(Size):
    """Gates, ownership entries, turns, ends."""

    writers: int = 2
    resources: int = 1
    requests: int = 1
    controls: int = 1
    moves: int = 0
    crashes: int = 0
    losses: int = 0
    ends: int = 0
    polite: int = 0
    bumps: int = 0
    expires: bool = False
    """Ends have a time to live."""
    held: bool = False
    """Handlers wait: they begin long before their outcome is judged again and stored."""
    clone: bool = False
    """Writer 1 is a copy of writer 0's machine."""
    claims: bool = False
    """A process that connects claims its writer's name first."""
    numbers_with_gaps: bool = False
    one_outcome_in_name: bool = False
    """Two rules that claims make unnecessary are not kept."""
    owner_shuts_alone: bool = False
    """Control always dies behind its ownership entry."""
    swift: bool = False
    """Control stores its ownership entry and the gates in one step."""
    model: ClassVar[str] = "turns.pml"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckBudget(Size):
    """How the server checks a turn's gate."""

    gates: int = 2
    turns: int = 2
    servers: int = 2
    elections: int = 1
    one_node: bool = False
    """Check and store are one step, as on one node."""
    wildcard: bool = False
    """The check names a wildcard: on one node it holds."""
    model: ClassVar[str] = "check.pml"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointBudget(Size):
    """Checkpoints and the trim of the log."""

    resources: int = 1
    turns: int = 2
    ends: int = 1
    checkpoints: int = 2
    losses: int = 1
    model: ClassVar[str] = "checkpoints.pml"


@dataclass(frozen=True, slots=True)
class Search:
    """A search of an unchanged model, which must find nothing."""

    name: str
    budget: Size
    fast: bool = True
    """It pays to have the verifier optimised."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """A rule taken away. The search, checking one promise alone, must find it broken."""

    flag: str
    rule: str
    promise: int
    budget: Size

    @property
    def name(self) -> str:
        return f"{self.flag} against G{self.promise}"

    def flags(self) -> list[str]:
        """The search as options of spin."""
        return [*self.budget.flags(), "-DMUTATED", f"-D{self.flag}", f"-DONLY={self.promise}"]


SHORT = (
    Search("turns: a move and an end", TurnBudget(moves=1, ends=1), fast=False),
    Search(
        "turns, three writers: two moves, their owners shut the old ones out",
        TurnBudget(writers=3, moves=2, owner_shuts_alone=True),
        fast=False,
    ),
    Search(
        "turns: a clone, and a gate for no reason",
        TurnBudget(writers=3, requests=2, clone=True, bumps=1),
        fast=False,
    ),
    Search("check: two gates, two turns and an election", CheckBudget(), fast=False),
    Search(
        "check of a wildcard on one node",
        CheckBudget(servers=1, elections=0, one_node=True, wildcard=True),
        fast=False,
    ),
    Search(
        "checkpoints: two turns, an end, two checkpoints and a loss",
        CheckpointBudget(),
        fast=False,
    ),
)

CYCLES = (
    TurnBudget(moves=1, bumps=1, held=True),
    CheckBudget(gates=1, turns=1),
    CheckpointBudget(turns=1),
)
"""Small, because a search for cycles visits each state twice."""

LONG = (
    *SHORT,
    Search("turns: two requests, a move and an end", TurnBudget(requests=2, moves=1, ends=1)),
    Search("turns: two moves and an end", TurnBudget(moves=2, ends=1)),
    Search(
        "turns, three writers: two moves and an end, their owners shut the old ones out",
        TurnBudget(writers=3, moves=2, ends=1, owner_shuts_alone=True),
    ),
    Search("turns, three writers: two moves", TurnBudget(writers=3, moves=2)),
    Search(
        "turns, two control replicas: a move and a crash",
        TurnBudget(controls=2, moves=1, crashes=1),
    ),
    Search("turns, two resources: two moves", TurnBudget(resources=2, requests=2, moves=2)),
    Search(
        "turns of handlers that wait: two requests and two moves",
        TurnBudget(requests=2, moves=2, held=True),
    ),
    Search(
        "turns of handlers that wait: a move and an end that expires",
        TurnBudget(moves=1, ends=1, expires=True, held=True),
    ),
    Search("turns: a move, an end and a loss", TurnBudget(moves=1, ends=1, losses=1)),
    Search("turns: a move, an end and a crash", TurnBudget(moves=1, ends=1, crashes=1)),
    Search(
        "turns: a move, an end and a polite cancel",
        TurnBudget(moves=1, ends=1, polite=1),
    ),
    Search("turns: two requests and two ends", TurnBudget(requests=2, ends=2)),
    Search(
        "turns: two requests, a move, a loss and a gate for no reason",
        TurnBudget(requests=2, moves=1, losses=1, bumps=1),
    ),
    Search(
        "turns: a clone, a loss and a gate for no reason",
        TurnBudget(writers=3, requests=2, clone=True, losses=1, bumps=1),
    ),
    Search(
        "turns: a clone with claims alone",
        TurnBudget(
            writers=3,
            requests=2,
            clone=True,
            claims=True,
            numbers_with_gaps=True,
            one_outcome_in_name=True,
            bumps=1,
        ),
    ),
    Search("check: three gates, three turns and an election", CheckBudget(gates=3, turns=3)),
    Search("checkpoints of two resources", CheckpointBudget(resources=2)),
)

MUTATIONS = (
    Mutation(
        "LATE_GATE",
        "R1: the gate is read before anything is judged",
        4,
        TurnBudget(ends=1),
    ),
    Mutation(
        "LATE_GATE",
        "R1: the gate is read before anything is judged",
        3,
        TurnBudget(moves=1),
    ),
    Mutation(
        "ADOPT_UNREAD",
        "R2: a newer gate is adopted only by reading the log up to it",
        3,
        TurnBudget(moves=1),
    ),
    Mutation(
        "WILDCARD",
        "R3: the check names one exact subject",
        5,
        CheckBudget(elections=0, servers=1),
    ),
    Mutation(
        "LEADS_BEFORE_IT_APPLIED",
        "the server: a new leader applies what it has before it checks anything",
        5,
        CheckBudget(),
    ),
    Mutation(
        "SERVE_AT_OWN",
        "R4: a new owner serves only when it has read the old writer's gate",
        3,
        TurnBudget(moves=1),
    ),
    Mutation(
        "LAST_OWNER_ALONE",
        "R4: a writer that an owner before took the resource from is shut out too",
        3,
        TurnBudget(writers=3, moves=2, owner_shuts_alone=True),
    ),
    Mutation(
        "CONTROL_SHUTS_ALONE",
        "R4: the new owner stores the old writer's gate itself",
        1,
        TurnBudget(moves=1),
    ),
    Mutation(
        "ENDS_ROLLED_UP",
        "R5: ends are never rolled up",
        4,
        TurnBudget(requests=2, ends=2),
    ),
    Mutation(
        "OWNS_ROLLED_UP",
        "R5: ownership entries are never rolled up",
        3,
        TurnBudget(moves=2, swift=True),
    ),
    Mutation(
        "OWN_NOT_CREATE_ONLY",
        "an ownership entry's number is given once",
        5,
        TurnBudget(controls=2, moves=2),
    ),
    Mutation(
        "GATE_OF_OWNER_ALONE",
        "R6: a caller stores the gate of every writer that may write, not of the owner alone",
        4,
        TurnBudget(moves=1, ends=1),
    ),
    Mutation(
        "WHO_MAY_BEFORE_END",
        "R6: who may write is judged by the log up to the end, not before it",
        4,
        TurnBudget(moves=1, ends=1),
    ),
    Mutation(
        "STORED_AGAIN_UNJUDGED",
        "R7: what a refused turn computed is dropped, or judged again",
        4,
        TurnBudget(ends=1),
    ),
    Mutation(
        "STALE_IS_FINE",
        "R7: a kept outcome is dropped when its resource was given away in between",
        3,
        TurnBudget(requests=2, moves=2, held=True, swift=True),
    ),
    Mutation(
        "OWN_TURNS_SKIPPED",
        "R7: a refused turn may be stored all the same; the reader says so",
        3,
        TurnBudget(requests=2, bumps=1, losses=1),
    ),
    Mutation(
        "ANSWER_BEFORE_ACK",
        "R8: answers follow the acknowledgement",
        4,
        TurnBudget(),
    ),
    Mutation(
        "APPLY_BEFORE_ACK",
        "R8: memory changes after the acknowledgement",
        1,
        TurnBudget(bumps=1),
    ),
    Mutation(
        "NO_AGE_LIMIT",
        "R9: a request older than half of an end's time to live is not run",
        4,
        TurnBudget(ends=1, expires=True),
    ),
    Mutation(
        "AGE_AT_START_ALONE",
        "R9: its age counts again when its outcome is judged again",
        4,
        TurnBudget(ends=1, expires=True, held=True),
    ),
    Mutation(
        "EXISTS_IS_STORED",
        "R10: a turn whose subject is taken by another body stops its writer",
        4,
        TurnBudget(writers=3, requests=2, clone=True),
    ),
    Mutation(
        "NUMBERS_WITH_GAPS",
        "R10: a refused turn leaves its number to the next one",
        3,
        TurnBudget(writers=3, requests=2, clone=True, bumps=1),
    ),
    Mutation(
        "ONE_OUTCOME_IN_NAME",
        "R10: a turn's subject is its writer and number, nothing else",
        3,
        TurnBudget(writers=3, requests=2, clone=True),
    ),
    Mutation(
        "CHECKPOINT_AT_ACK",
        "a checkpoint's position is its writer's reader's, not that of its last turn",
        4,
        CheckpointBudget(),
    ),
    Mutation(
        "CHECKPOINT_WITHOUT_NUMBER",
        "a checkpoint names the last turn in it",
        3,
        CheckpointBudget(),
    ),
    Mutation(
        "CHECKPOINT_WITHOUT_ENDS",
        "a checkpoint has the ends",
        4,
        CheckpointBudget(),
    ),
    Mutation(
        "NO_GATE_IN_DOUBT",
        "a writer in doubt about a checkpoint stores and reads a gate before the next",
        6,
        CheckpointBudget(),
    ),
    Mutation(
        "TRIM_TAKES_GATES",
        "the trim leaves the gates",
        1,
        CheckpointBudget(),
    ),
    Mutation(
        "TRIM_BY_NEWEST",
        "the trim goes up to the oldest of the resources' checkpoints",
        6,
        CheckpointBudget(resources=2),
    ),
)
