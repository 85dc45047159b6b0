"""Builds of the product with one rule of docs/protocol.md broken, for the suite to show that it finds what the rule prevents.

Each is a patch in the suite's processes; the product knows nothing of it. `python -m bench.chaos.breaks MODULE …` runs a
module of the product so.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, Final

from aegis_sdk.domain.turns import writer
from aegis_sdk.domain.turns.giveup import GivingUp
from aegis_sdk.domain.turns.outbox import Outbox
from aegis_sdk.domain.turns.ownership import Ownership
from aegis_sdk.domain.turns.reads import Freshness
from aegis_sdk.domain.turns.work import Write
from aegis_sdk.domain.turns.writer import Writer
from aegis_sdk.infrastructure.turns.log import TurnLog

BROKEN: Final = "CHAOS_BROKEN"
"""In the environment of the suite's processes: the rule that is broken in them."""


def late_gate() -> None:
    """R1: what was judged under an older gate is stored under the newer one, as it is."""
    undo = Writer._undo

    def store_again(of: Writer, write: Write) -> None:
        gate = of.ownership.gates.get(of.name, 0)
        if write.is_done or gate <= write.gate:
            undo(of, write)
            return
        write.gate = gate
        of.desk.out.store.append(write)

    _patch(Writer, "_undo", store_again)


def wildcard() -> None:
    """R3: the server's check of a gate names a wildcard, though one that no other gate fits."""
    begin = TurnLog.__init__

    def begin_so(log: TurnLog, *arguments: Any, **options: Any) -> None:
        begin(log, *arguments, **options)
        log._gate = f"*.{log._gate.partition('.')[2]}"

    _patch(TurnLog, "__init__", begin_so)


def nobody_shut_out() -> None:
    """R4: a new owner serves when it has read that it is the owner, and nobody shuts out those before."""
    _patch(Ownership, "unshut", lambda *_: set())


def no_gates() -> None:
    """R6: who gives up looks for its outcome up to its end, and shuts nobody out."""
    found = GivingUp.found

    def nobody(giving_up: GivingUp, writers: Iterable[str], gates: Mapping[str, int]) -> None:
        found(giving_up, (), gates)

    _patch(GivingUp, "found", nobody)


def no_proofs() -> None:
    """Reads: an active answers whatever it has in memory, without a proof that it still is the active."""
    _patch(Freshness, "is_proven", lambda *_, **__: True)


def fires_blindly() -> None:
    """Timers: the request of one that is due runs, whatever became of the timer while it waited."""
    _patch(writer, "_is_timer_of", lambda *_: True)
    _patch(writer, "_is_set", lambda *_: True)


def sends_nothing_again() -> None:
    """Events: what its last owner had not stored, the next one does not store."""
    _patch(Outbox, "owned", lambda *_: None)


BREAKS: Final[dict[str, Callable[[], None]]] = {
    "R1": late_gate,
    "R3": wildcard,
    "R4": nobody_shut_out,
    "R6": no_gates,
    "reads": no_proofs,
    "timers": fires_blindly,
    "events": sends_nothing_again,
}


def break_what_is_told() -> None:
    """In a process of the suite, before it begins. Raises: TypeError, when the SDK is compiled."""
    if rule := os.environ.get(BROKEN):
        BREAKS[rule]()


def _patch(owner: type | ModuleType, name: str, instead: Any) -> None:
    setattr(owner, name, instead)


if __name__ == "__main__":
    break_what_is_told()
    sys.argv.pop(0)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
