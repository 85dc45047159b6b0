"""How large the model is searched, and what must go wrong when a rule is taken away.

Values only. A budget is how often a run may meet that fault, wherever it likes; a search with a
budget covers all smaller ones. The promises' ids (G1 to G7) are those of the protocol's design.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

PROMISES = {
    1: "accepted is kept",
    2: "one outcome",
    3: "one effect",
    5: "one active",
    6: "failover loses nothing",
    7: "order",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The size of a search of the protocol: who takes part, and how often each fault may strike."""

    instances: int = 2
    requests: int = 2
    losses: int = 0
    crashes: int = 0
    suspicions: int = 0
    duplicates: int = 0
    cancels: int = 0
    control_steps: bool = False
    """Two control replicas step by step, instead of any number of them without memory."""
    model: ClassVar[str] = "protocol.pml"

    def flags(self) -> list[str]:
        """The budget as options of spin."""
        sizes = {
            "INSTANCES": self.instances,
            "REQUESTS": self.requests,
            "LOSSES": self.losses,
            "CRASHES": self.crashes,
            "SUSPICIONS": self.suspicions,
            "DUPLICATES": self.duplicates,
            "CANCELS": self.cancels,
        }
        flags = [f"-D{name}={size}" for name, size in sizes.items()]
        return [*flags, "-DCONTROL_STEPS"] if self.control_steps else flags


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowingBudget:
    """The size of a search of how an instance joins and follows a journal."""

    outcomes: int = 1
    fences: int = 1
    switches: int = 0
    losses: int = 0
    from_start: bool = False
    """What is held is released by where its reader began, instead of by the acknowledged marker."""
    model: ClassVar[str] = "following.pml"

    def flags(self) -> list[str]:
        """The budget as options of spin."""
        sizes = {
            "OUTCOMES": self.outcomes,
            "FENCES": self.fences,
            "SWITCHES": self.switches,
            "LOSSES": self.losses,
        }
        flags = [f"-D{name}={size}" for name, size in sizes.items()]
        return [*flags, "-DFROM_START"] if self.from_start else flags


@dataclass(frozen=True, slots=True)
class Search:
    """A search of an unchanged model, which must find nothing."""

    name: str
    budget: Budget | FollowingBudget


@dataclass(frozen=True, slots=True)
class Mutation:
    """A rule taken away. The search, checking one promise alone, must find it broken."""

    flag: str
    rule: str
    promise: int
    budget: Budget | FollowingBudget

    @property
    def name(self) -> str:
        return f"{self.flag} against G{self.promise}"

    def flags(self) -> list[str]:
        """The search as options of spin."""
        return [*self.budget.flags(), "-DMUTATED", f"-D{self.flag}", f"-DONLY={self.promise}"]


SHORT = (
    Search(
        "a loss, a crash and a wrong suspicion",
        Budget(losses=1, crashes=1, suspicions=1),
    ),
    Search(
        "following: an outcome, a fence, a switch and a loss",
        FollowingBudget(switches=1, losses=1),
    ),
    Search(
        "following, released by the reader's start: an outcome, a fence, a switch and a loss",
        FollowingBudget(switches=1, losses=1, from_start=True),
    ),
)

CYCLES = (Budget(losses=1, crashes=1), FollowingBudget(losses=1))
"""Small, because a search for cycles visits each state twice."""

LONG = (
    *SHORT,
    Search(
        "a loss, a suspicion, a request stored twice and a cancel",
        Budget(losses=1, suspicions=1, duplicates=1, cancels=1),
    ),
    Search(
        "a crash, a suspicion, a request stored twice and a cancel",
        Budget(crashes=1, suspicions=1, duplicates=1, cancels=1),
    ),
    Search(
        "control step by step: a loss, a crash and a suspicion",
        Budget(losses=1, crashes=1, suspicions=1, control_steps=True),
    ),
    Search(
        "three instances: a crash and two suspicions",
        Budget(instances=3, crashes=1, suspicions=2),
    ),
    Search(
        "three requests: two losses, a suspicion and a cancel",
        Budget(requests=3, losses=2, suspicions=1, cancels=1),
    ),
    Search(
        "two losses, a suspicion, a request stored twice and a cancel",
        Budget(losses=2, suspicions=1, duplicates=1, cancels=1),
    ),
    Search(
        "following: an outcome, two fences and a loss",
        FollowingBudget(fences=2, losses=1),
    ),
    Search(
        "following: an outcome, a fence, a switch and two losses",
        FollowingBudget(switches=1, losses=2),
    ),
    Search(
        "following: two outcomes, two fences and a switch",
        FollowingBudget(outcomes=2, fences=2, switches=1),
    ),
)

MUTATIONS = (
    Mutation(
        "NO_FENCE",
        "the server checks a commit's fence",
        5,
        Budget(suspicions=1),
    ),
    Mutation(
        "NO_FENCE",
        "the server checks a commit's fence",
        3,
        Budget(suspicions=1),
    ),
    Mutation(
        "NO_CREATE_ONLY",
        "a request's outcome is create-only",
        2,
        Budget(cancels=1),
    ),
    Mutation(
        "NO_CREATE_ONLY",
        "a request's outcome is create-only",
        3,
        Budget(duplicates=1),
    ),
    Mutation(
        "SERVE_BEFORE_OWN_FENCE",
        "a new active serves only when it has read its own fence",
        6,
        Budget(suspicions=1),
    ),
    Mutation(
        "START_LATE",
        "a new grant starts behind the acknowledged requests, not behind the delivered ones",
        1,
        Budget(crashes=1),
    ),
    Mutation(
        "LEASE_WITHOUT_CAS",
        "the lease is written by compare-and-set",
        1,
        Budget(crashes=1, control_steps=True),
    ),
    Mutation(
        "FENCE_WITHOUT_EXPECTED",
        "a fence is written only over the fence that its writer read",
        5,
        Budget(suspicions=1, control_steps=True),
    ),
    Mutation(
        "IGNORE_INCARNATION",
        "a restarted instance does not take its former life's fence for its own",
        6,
        Budget(crashes=1),
    ),
    Mutation(
        "NO_GAP_CHECK",
        "an active that sees a gap in its deliveries asks again from the start",
        1,
        Budget(losses=1),
    ),
    Mutation(
        "ACK_BEFORE_COMMIT",
        "a request is acknowledged only after its commit",
        1,
        Budget(crashes=1),
    ),
    Mutation(
        "APPLY_BEFORE_ACK",
        "a change is applied only after the server acknowledged it",
        3,
        Budget(cancels=1),
    ),
    Mutation(
        "EXISTS_MEANS_CANCELLED",
        "an active whose commit meets an outcome looks whether it is its own",
        3,
        Budget(losses=1),
    ),
    Mutation(
        "STALE_ANSWER",
        "a refusal counts only for the epoch whose commit it refused",
        1,
        Budget(suspicions=1),
    ),
    Mutation(
        "NO_SKIP",
        "a redelivered request up to the highest committed sequence is skipped",
        3,
        Budget(losses=1),
    ),
    Mutation(
        "NO_MARKER",
        "the past ends at the marker, not where its reader has nothing pending",
        6,
        FollowingBudget(),
    ),
    Mutation(
        "MARKER_FIRST",
        "the live reader is made before the marker is written",
        6,
        FollowingBudget(),
    ),
    Mutation(
        "DROP_HELD",
        "what the live reader gives before the past is complete is kept",
        6,
        FollowingBudget(),
    ),
    Mutation(
        "FOLD_AT_ONCE",
        "what the live reader gives before the past is complete is held back",
        6,
        FollowingBudget(),
    ),
    Mutation(
        "START_AT_LIVE",
        "the past starts behind what the actor has, not where the live reader is",
        6,
        FollowingBudget(),
    ),
    Mutation(
        "START_AT_FENCE",
        "an actor that fell behind starts from its own position, not behind the fence that said so",
        1,
        FollowingBudget(fences=2),
    ),
    Mutation(
        "ANY_MARKER",
        "an older marker does not end the past",
        6,
        FollowingBudget(switches=1),
    ),
    Mutation(
        "EXACT_MARKER",
        "a marker behind the acknowledged one, which replaced it, ends the past too",
        1,
        FollowingBudget(losses=1),
    ),
    Mutation(
        "REMADE_FROM_NOW",
        "a live reader that was lost is made again from its position, not from now",
        6,
        FollowingBudget(losses=1),
    ),
    Mutation(
        "NARROW_IS_ENOUGH",
        "only a reader that gave the actor everything takes the part of the past",
        1,
        FollowingBudget(fences=2),
    ),
    Mutation(
        "NARROW_ANYWAY",
        "an actor that was fenced during the switch to fences alone is behind",
        1,
        FollowingBudget(fences=2),
    ),
)
