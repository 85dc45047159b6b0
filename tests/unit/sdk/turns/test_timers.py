"""Timers of the resources of one writer, against a model that looks at all of them each time."""

from __future__ import annotations

import math
from typing import Any

from aegis_sdk.contract.envelope import Change, Request
from aegis_sdk.contract.ids import is_nested, is_timer, redriven_id, timer_id
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.timers import Timer
from aegis_sdk.domain.turns.sessions import is_single
from aegis_sdk.domain.turns.timers import FIRING_MAX, Agenda, Timers
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

RESOURCES = ["a", "b"]
NAMES = [f"n{n}" for n in range(6)]
FAR_NAMES = st.sampled_from(NAMES)


def timer(name: str, due_s: float, request_id: str, payload: bytes = b"1") -> dict[str, Any]:
    return dict(Timer.made(name, due_s, Request(request_id, "s", "m", "a", payload)).content)


def test_a_timers_id_says_what_it_is() -> None:
    made = timer_id("Kq3v9x2m.17", "cancel", "x")
    assert made != timer_id("Kq3v9x2m.17", "cancel", "y")
    assert is_timer(made)
    assert not is_nested(made)
    assert not is_single(made)
    again = redriven_id(made)
    assert not is_timer(again)
    assert is_single(again)
    child = made.replace(".", "~") + ".book-9f3a21c7d0e4b852"
    assert is_nested(child)
    assert not is_timer(child)
    assert is_single(child)


def test_a_change_without_timers_is_written_as_before() -> None:
    assert Change({"a": 1}).encode() == b'{"set":{"a":1},"delete":[]}'
    change = Change({}, (), (), ("x",), (timer("y", 1.5, "c~1.@y"),))
    assert Change.decode(change.encode()) == change


def test_a_checkpoint_carries_them_and_one_of_before_has_none() -> None:
    made = Checkpoint("w", "a", timers=[timer("y", 1.5, "c~1.@y")])
    assert Checkpoint.decode(made.encode()).timers == tuple(made.timers)
    assert b"timers" not in Checkpoint("w", "a").encode()
    assert Checkpoint.decode(Checkpoint("w", "a").encode()).timers == ()
    head, parts = made.split(100)
    assert head.timers == ()
    assert Checkpoint.decode(b"".join(parts)).timers == tuple(made.timers)


class Model(RuleBasedStateMachine):
    """A writer's folds and agenda, and a copy of them that knows no heaps."""

    @initialize()
    def begin(self) -> None:
        self.now_s, self.n = 0.0, 0
        self.timers = {resource: Timers() for resource in RESOURCES}
        self.agenda = Agenda()
        self.is_served = dict.fromkeys(RESOURCES, False)
        self.set: dict[str, dict[str, tuple[float, str]]] = {each: {} for each in RESOURCES}
        self.on_their_way: dict[str, dict[str, str]] = {each: {} for each in RESOURCES}

    def changed(self, resource: str) -> None:
        if self.is_served[resource]:
            self.agenda.changed(resource, self.timers[resource])

    @rule(
        resource=st.sampled_from(RESOURCES),
        names=st.lists(FAR_NAMES, unique=True),
        wait_s=st.integers(0, 5),
    )
    def sets(self, resource: str, names: list[str], wait_s: int) -> None:
        later = []
        for name in names:
            self.n += 1
            due_s, request_id = self.now_s + wait_s, f"c~{self.n}.@x"
            later.append(timer(name, due_s, request_id))
            self.set[resource][name] = due_s, request_id
        self.timers[resource].apply(Change(later=tuple(later)))
        self.changed(resource)

    @rule(resource=st.sampled_from(RESOURCES), name=FAR_NAMES)
    def drops(self, resource: str, name: str) -> None:
        self.set[resource].pop(name, None)
        self.timers[resource].apply(Change(drop=(name,)))
        self.changed(resource)

    @rule(resource=st.sampled_from(RESOURCES))
    def serves(self, resource: str) -> None:
        self.is_served[resource] = True
        self.changed(resource)

    @rule(resource=st.sampled_from(RESOURCES))
    def leaves(self, resource: str) -> None:
        self.is_served[resource] = False
        self.agenda.leave(resource)
        self.on_their_way[resource].clear()

    @rule(seconds=st.floats(0.0, 4.0))
    def time_goes_on(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def fires(self) -> None:
        fired = {each.id for each in self.agenda.fire(self.now_s, 1_000)}
        expected = set()
        for resource in RESOURCES:
            on_their_way = self.on_their_way[resource]
            for name, (due_s, request_id) in self.set[resource].items():
                is_due = self.is_served[resource] and due_s <= self.now_s
                if is_due and request_id not in on_their_way:
                    expected.add(request_id)
                    on_their_way[request_id] = name
        assert fired == expected

    @rule(resource=st.sampled_from(RESOURCES), which=st.integers(0, 5), is_stored=st.booleans())
    def ends(self, resource: str, which: int, is_stored: bool) -> None:
        """The request of one that fired is stored; or dropped, and its timer, if it is still there, fires again."""
        on_their_way = self.on_their_way[resource]
        if not on_their_way:
            return
        request_id = list(on_their_way)[which % len(on_their_way)]
        name = on_their_way.pop(request_id)
        if is_stored:
            if self.set[resource].get(name, (0.0, ""))[1] == request_id:
                del self.set[resource][name]
            self.timers[resource].ended(request_id)
        else:
            self.timers[resource].dropped(name, request_id)
        self.changed(resource)

    @invariant()
    def it_says_how_many_there_are_and_when_the_next_is_due(self) -> None:
        served = [each for each in RESOURCES if self.is_served[each]]
        assert self.agenda.open == sum(len(self.set[each]) for each in served)
        waiting = [
            due_s
            for each in served
            for due_s, request_id in self.set[each].values()
            if request_id not in self.on_their_way[each]
        ]
        assert self.agenda.next_s <= min(waiting, default=math.inf)
        for resource in RESOURCES:
            named = {name: each.id for name, each in self.timers[resource].by_name.items()}
            assert named == {name: each[1] for name, each in self.set[resource].items()}


Model.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestModel = Model.TestCase


def test_few_of_one_resource_are_on_their_way_together() -> None:
    timers, agenda = Timers(), Agenda()
    names = [str(n) for n in range(1_000)]
    timers.apply(Change(later=tuple(timer(name, 1.0, f"c~{name}.@x") for name in names)))
    agenda.changed("a", timers)
    seen: set[str] = set()
    while fired := agenda.fire(2.0, 256):
        assert len(fired) <= FIRING_MAX
        for each in fired:
            seen.add(each.name)
            timers.ended(each.id)
        agenda.changed("a", timers)
    assert seen == set(names)


def test_what_is_set_and_dropped_again_and_again_leaves_no_heap_behind() -> None:
    timers, agenda = Timers(), Agenda()
    agenda.changed("a", timers)
    for n in range(10_000):
        timers.apply(Change(later=(timer("a", 1e9 + n, f"c~{n}.@x"),)))
        timers.apply(Change(drop=("a",)))
        agenda.changed("a", timers)
    assert timers._heap is not None
    assert len(timers._heap) < 100
    assert len(agenda._heap) < 100
    assert timers.bytes == 0
