"""Registers are linearizable: each place's operations fit some order that real time allows.

The search is Wing and Gong's with Lowe's memory of what was tried. It looks at the clients' side
alone, so it would find a journal that agrees with itself and with nobody else. An operation that is
unknown may have taken effect at any time after its invocation, or never. Of those that ask for the same, the first is
as good as any other, and none is tried that would change nothing.

Kinds: `write` {value}, `read` gives the value, `look` the same at the active without being stored, `cas` {old, new} gives whether it did. A register that
was never written holds 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.chaos.history import History, Operation, Place, Status, Violation

WORKLOAD = "register"
STEPS_MAX = 2_000_000
"""Where the search gives up: a history of a few thousand operations takes some ten thousand."""


def check(history: History) -> list[Violation]:
    """Each register by itself; linearizability is local."""
    places: dict[Place, list[Operation]] = defaultdict(list)
    looks = [each for each in history.looks if each.kind == "look"]
    for operation in [*history.of(WORKLOAD), *looks]:
        if operation.status is not Status.FAIL:
            places[operation.place].append(operation)
    found = []
    for place, operations in places.items():
        problem = _problem(operations)
        if problem:
            found.append(Violation("linearizable", f"{'/'.join(place)} {problem}", "G3"))
    return found


@dataclass(frozen=True, slots=True)
class _Call:
    """An operation as the search sees it. One whose result is not known is optional; its `end` may be infinite."""

    begin: float
    end: float
    operation: Operation

    @property
    def optional(self) -> bool:
        return self.operation.status is Status.UNKNOWN


def _problem(operations: Sequence[Operation]) -> str:
    calls = sorted(
        (call for operation in operations if (call := _call(operation)) is not None),
        key=lambda call: call.begin,
    )
    try:
        stuck = _stuck_at(calls)
    except _TooLong:
        return f"was not judged: the search took over {STEPS_MAX} steps"
    if stuck is None:
        return ""
    return (
        f"is not linearizable: no order explains {stuck.kind} {dict(stuck.args)} -> "
        f"{stuck.result!r} ({stuck.op})"
    )


def _call(operation: Operation) -> _Call | None:
    if operation.status is Status.OK and operation.completed_s is not None:
        return _Call(operation.invoked_s, operation.completed_s, operation)
    if operation.kind in ("read", "look"):
        return None
    return _Call(operation.invoked_s, operation.until_s, operation)


class _TooLong(Exception):
    pass


def _stuck_at(calls: Sequence[_Call]) -> Operation | None:
    """The operation behind which no order could be found; None when there is an order.

    A configuration is the set of calls that took effect, as bits, and the register's value. From
    one, each pending call that began before the first end among the pending may come next.
    """
    required = sum(1 << at for at, call in enumerate(calls) if not call.optional)
    tried: set[tuple[int, Any]] = set()
    stack: list[tuple[int, Any]] = [(0, 0)]
    furthest = 0
    steps = 0
    while stack:
        done, value = stack.pop()
        if done & required == required:
            return None
        if (done, value) in tried:
            continue
        tried.add((done, value))
        steps += 1
        if steps > STEPS_MAX:
            raise _TooLong
        if (done & required).bit_count() > (furthest & required).bit_count():
            furthest = done
        stack.extend(_next(calls, done, value))
    open_calls = [
        call for at, call in enumerate(calls) if not (furthest >> at & 1 or call.optional)
    ]
    return min(open_calls, key=lambda call: call.end).operation


def _next(calls: Sequence[_Call], done: int, value: Any) -> list[tuple[int, Any]]:
    """The configurations one effect further; the last is tried first: what is certain, and ended first."""
    found: list[tuple[_Call, int, Any]] = []
    first_end = float("inf")
    alike: set[tuple[Any, ...]] = set()
    now = calls[done.bit_length() - 1].begin if done else float("-inf")
    pending = ~done & ((1 << len(calls)) - 1)
    while pending:
        bit = pending & -pending
        call = calls[bit.bit_length() - 1]
        if call.begin > first_end:
            break
        fits, after = _apply(call, value)
        if call.optional:
            asked = (call.operation.kind, *call.operation.args.values(), call.end)
            fits = after != value and asked not in alike and now <= call.end
            alike.add(asked)
        else:
            first_end = min(first_end, call.end)
        if fits:
            found.append((call, done | bit, after))
        pending ^= bit
    possible = [one for one in found if one[0].begin <= first_end]
    possible.sort(key=lambda one: (one[0].optional, one[0].end), reverse=True)
    return [(after_done, after) for _, after_done, after in possible]


def _apply(call: _Call, value: Any) -> tuple[bool, Any]:
    """Whether the result fits the register's value, and the value after."""
    operation = call.operation
    args = operation.args
    match operation.kind:
        case "read":
            return operation.result == value, value
        case "look":
            return operation.result["value"] == value, value
        case "write":
            return True, args["value"]
        case "cas":
            did = value == args["old"]
            fits = call.optional or operation.result == did
            return fits, args["new"] if did else value
        case _:
            raise ValueError(f"a register has no {operation.kind}")
