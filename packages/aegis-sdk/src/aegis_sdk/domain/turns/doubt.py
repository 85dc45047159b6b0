"""What a caller does about its open requests: when it stores one, sends it again, asks to end it, or gives up.

Theory of operation. A request is sent to its resource's active and nothing else happens, as a rule. It is stored, under the same
id, when it is in doubt. *Doubt is about the owner, not about one request*: an owner that has answered anything within SILENCE_S
is alive, and a request that waits in its queue is no reason to store it. Else an overloaded active would be given its
work twice, the more so the more it has. A core NATS message is lost only with a connection. So whoever has a new
connection stores what is open; and what is open for OPEN_S is stored in any case.

A resource that nobody serves is *vacant*: most often its next owner comes in a moment, and tells its callers (`served`). So what is
refused there is kept for TAKEOVER_S, to be sent to the new owner, and what is asked for there meanwhile waits behind it. The first one is
sent again now and then, since the word of a new owner may be missed. All is stored when that time is over. One refusal tells of its owner,
too: what else it was sent is not about a silence any more. Therefore a silent owner is sent one request again before any is stored.
If its process is dead, the server refuses that immediately. What would break without that: after a failover of thousands of
resources, thousands of requests are stored at once, and hold up the one that takes over.

At its deadline the caller asks the active to end the request unless it has begun (politely). If nobody says how it ended within
POLITE_S, the caller gives up: it ends the doubt itself (giveup.py).

What comes in: `made`, `heard`, `ended`, `refused`, `stored`, `lost`, `hopeless`, `cancelled`, `restored`, `served`, and `look` at
`next_look_s`. What comes out stands in `Asked`. The host executes it. Times are of one monotonic clock.

What must stay true: a request is stored at most once in one log, and is given up only when it was asked to end. A caller that was away
itself (a blocked loop, a stopped process) knows nothing about the silence of others: it waits anew. What would break
without that: a process that was stopped for a second stores everything it has open, as does each of its neighbours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import Final

from aegis_sdk.domain.turns.states import CALL, CallEvent, CallState, step

TICK_S: Final = 0.01
"""How often open requests are looked at, while there are any."""
AWAY_S: Final = 0.04
"""A look that comes so much later than it should says that this process was away."""
SILENCE_S: Final = 0.05
"""An owner that has answered nothing for so long is in doubt."""
OPEN_S: Final = 1.0
"""A request that is open for so long is stored in any case."""
AGAIN_S: Final = 0.5
"""A stored request without an answer is sent again so often: the answer itself may have been lost."""
POLITE_S: Final = 0.1
TRY_S: Final = 0.05
"""A vacant resource is tried again so often: a new owner's word may be missed."""
TRIES_MAX: Final = 16
"""Vacant resources that are tried at one look."""
TAKEOVER_S: Final = 0.5
"""In which a new owner has come, as a rule, also of thousands of resources. Meanwhile a request is not stored."""


class Because(StrEnum):
    """Why a request is stored: the metric's word."""

    OWNER_SILENT = "owner_silent"
    NO_RESPONDER = "no_responder"
    OWNER_CHANGED = "owner_changed"
    RECONNECTED = "reconnected"
    OPEN_LONG = "open_long"
    BUSY = "busy"
    LOG_BEGAN_AGAIN = "log_began_again"
    SUBMITTED = "submitted"
    KEYED = "keyed"
    """Not in doubt: with a key it is stored before it is sent."""
    ALWAYS = "always"
    """Its method has each of its requests stored."""


class Call:
    """One open request of this caller."""

    __slots__ = (
        "after_s", "because", "deadline_s", "is_group", "place", "request_id", "sent_s", "state",
    )  # fmt: skip

    def __init__(
        self,
        request_id: str,
        place: tuple[str, str],
        *,
        sent_s: float,
        deadline_s: float,
        is_group: bool = False,
    ) -> None:
        self.request_id = request_id
        self.place = place
        """Service and resource; of the group, service and member."""
        self.is_group = is_group
        """Another member serves it as well, and has it from the stream."""
        self.sent_s = sent_s
        self.deadline_s = deadline_s
        self.state = CallState.SENT
        self.after_s = 0.0
        """Kept or stored: when it is sent again. Asked to end: when it is given up."""
        self.because: Because | None = None
        """Why it is stored."""

    def step(self, event: CallEvent) -> None:
        self.state = step(CALL, self.state, event)


class Asked:
    """What the host is to do, in this order."""

    __slots__ = ("cancel", "give_up", "send", "store")

    def __init__(self) -> None:
        self.store: list[Call] = []
        """Until it is stored (`stored`), or done with."""
        self.send: list[Call] = []
        """Again."""
        self.cancel: list[Call] = []
        """Ask the active to end it, unless it has begun."""
        self.give_up: list[Call] = []
        """All of them together (giveup.py)."""

    def __bool__(self) -> bool:
        return bool(self.store or self.send or self.cancel or self.give_up)


class Doubts:
    """The open requests of one client."""

    def __init__(self) -> None:
        self.open: dict[str, Call] = {}
        self.next_look_s = 0.0
        """When to `look`; 0.0: there is nothing to look at."""
        self._asked = Asked()
        self._young: deque[Call] = deque()
        """In the order of their sending; none was open for SILENCE_S at the last look."""
        self._old: list[Call] = []
        self._heard_s: dict[str, float] = {}
        """When an instance was last heard."""
        self._awake_s = 0.0
        """Since when this process was not away."""
        self._owners: dict[tuple[str, str], str] = {}
        """The instance that answered last, or said that it serves there."""
        self._vacant_s: dict[tuple[str, str], float] = {}
        """Since when nobody serves there, as far as is known."""
        self._probed_s: dict[str | tuple[str, str], float] = {}
        """When a silent owner was sent something again: by its instance, or the place where it is not known."""
        self._tried: set[tuple[str, str]] = set()
        """Vacant places whose first request was looked at, at this look."""
        self._gone_s: dict[str, float] = {}
        """Instances that do not serve what they did, and were not heard since then."""

    def take_asked(self) -> Asked:
        asked, self._asked = self._asked, Asked()
        return asked

    # --- what comes in ----------------------------------------------------------------------------------------
    def made(self, call: Call, *, stored_as: Because | None = None) -> bool:
        """Whether it is to be sent now: not behind others that wait for an owner (G7), nor one that is stored first.
        `stored_as`: it is stored, whatever its owner does, and why.
        """
        self.open[call.request_id] = call
        waits = bool(self._vacant_s) and call.place in self._vacant_s and not call.is_group
        if waits and call.sent_s - self._vacant_s[call.place] >= TAKEOVER_S:
            stored_as = stored_as or Because.NO_RESPONDER
        if stored_as is not None:
            self._store(call, stored_as)
        if stored_as is not None or call.deadline_s - call.sent_s < SILENCE_S:
            self._old.append(call)
        else:
            self._young.append(call)
        if not self.next_look_s:
            self.next_look_s = call.sent_s + TICK_S
        return not waits and stored_as is None

    def heard(self, instance: str, place: tuple[str, str], now_s: float) -> None:
        """It has answered a request for that place."""
        self._heard_s[instance] = now_s
        self._owners[place] = instance
        if self._gone_s:
            self._gone_s.pop(instance, None)
        if self._vacant_s and self._vacant_s.pop(place, None) is not None:
            # Who serves it has not said so, or was not heard: what waits there follows.
            calls = [call for call in self.open.values() if call.place == place]
            self._asked.send += [call for call in calls if call.state in _UNDECIDED]

    def ended(self, request_id: str) -> None:
        """It has its answer, or nobody waits for one any more."""
        call = self.open.pop(request_id, None)
        if call is not None:
            call.step(CallEvent.ENDED)

    def refused(self, request_id: str, because: Because, now_s: float) -> None:
        """Whoever was asked has not stored anything of it: it is full, or not the owner, or nobody is there."""
        call = self.open.get(request_id)
        if call is None:
            return
        if call.is_group or because not in VACANT:
            self._store(call, because)
            return
        owner = self._owners.pop(call.place, "")
        if owner:
            self._gone_s.setdefault(owner, now_s)
        since_s = self._vacant_s.setdefault(call.place, now_s)
        if now_s - since_s >= TAKEOVER_S:
            self._store(call, because)

    def stored(self, request_id: str, now_s: float) -> None:
        """From now on whoever owns the resource will serve it."""
        call = self.open.get(request_id)
        if call is not None and call.state is CallState.STORING:
            call.step(CallEvent.STORED)
            call.after_s = now_s + AGAIN_S

    def lost(self, request_id: str) -> None:
        """The log that it was stored in is no more: there is another one."""
        call = self.open.get(request_id)
        if call is not None and call.state is CallState.STORED:
            call.step(CallEvent.LOST)
            call.because = Because.LOG_BEGAN_AGAIN
            self._asked.store.append(call)

    def hopeless(self, request_id: str, now_s: float) -> None:
        """It can't be stored: it ends now, as if its deadline had passed."""
        call = self.open.get(request_id)
        if call is not None and call.state in _UNDECIDED:
            self._expire(call, now_s)

    def cancelled(self, request_id: str, now_s: float) -> None:
        """It ends now, on purpose: its deadline is this moment."""
        if (call := self.open.get(request_id)) is not None:
            call.deadline_s = min(call.deadline_s, now_s)
        self.hopeless(request_id, now_s)

    def restored(self) -> None:
        """There is a new connection: whatever was sent before may be lost, and its answer too."""
        self._doubt(self.open.values(), Because.RECONNECTED)

    def served(self, service: str, resources: Collection[str], instance: str, now_s: float) -> None:
        """An instance serves them from now on, or is back: what is open there is sent to it, in its order."""
        self._heard_s[instance] = now_s
        self._gone_s.pop(instance, None)
        for place in [(service, resource) for resource in resources]:
            self._vacant_s.pop(place, None)
            if place in self._owners:
                self._owners[place] = instance
        for call in self.open.values():
            if call.place[0] == service and call.place[1] in resources and not call.is_group:
                self._owners[call.place] = instance
                if call.state in _UNDECIDED:
                    call.after_s = now_s + AGAIN_S
                    self._asked.send.append(call)

    def _doubt(self, calls: Iterable[Call], because: Because) -> None:
        for call in calls:
            self._store(call, because)

    def _store(self, call: Call, because: Because) -> None:
        if call.state is CallState.SENT:
            call.step(CallEvent.DOUBTED)
            call.because = because
            self._asked.store.append(call)

    # --- looking after what is open ---------------------------------------------------------------------------
    def look(self, now_s: float) -> None:
        if now_s - self.next_look_s > AWAY_S:
            self._awake_s = now_s
        young = self._young
        while young and (young[0].state is CallState.DONE or now_s - young[0].sent_s >= SILENCE_S):
            self._old.append(young.popleft())
        self._tried.clear()
        if self._old:
            self._old = [call for call in self._old if call.state is not CallState.DONE]
            for call in self._old:
                self._look_at(call, now_s)
        self.next_look_s = now_s + TICK_S if young or self._old else 0.0

    def _look_at(self, call: Call, now_s: float) -> None:
        state = call.state
        if state is CallState.ASKED:
            if now_s >= call.after_s:
                call.step(CallEvent.UNANSWERED)
                self._asked.give_up.append(call)
        elif state is CallState.LEFT:
            return
        elif now_s >= call.deadline_s:
            self._expire(call, now_s)
        elif state is CallState.STORED:
            if now_s >= call.after_s:
                call.after_s = now_s + AGAIN_S
                self._asked.send.append(call)
        elif state is CallState.SENT:
            self._look_for_silence(call, now_s)

    def _expire(self, call: Call, now_s: float) -> None:
        call.step(CallEvent.EXPIRED)
        call.after_s = now_s + POLITE_S
        self._asked.cancel.append(call)

    def _look_for_silence(self, call: Call, now_s: float) -> None:
        owner = self._owners.get(call.place, "")
        if self._vacant_s or self._gone_s:
            vacant_s = self._vacant_s.get(call.place, 0.0) or self._gone_s.get(owner, 0.0)
            if vacant_s:
                if now_s - vacant_s >= TAKEOVER_S:
                    self._store(call, Because.NO_RESPONDER)
                elif len(self._tried) < TRIES_MAX and call.place not in self._tried:
                    self._try_again(call, now_s)
                return
        since_s = max(call.sent_s, self._heard_s.get(owner, 0.0), self._awake_s)
        if now_s - since_s >= SILENCE_S:
            self._doubt_silent(call, owner, since_s, now_s)
        elif now_s - call.sent_s >= OPEN_S:
            self._store(call, Because.OPEN_LONG)

    def _try_again(self, call: Call, now_s: float) -> None:
        """The first one that waits there."""
        self._tried.add(call.place)
        if now_s >= call.after_s:
            call.after_s = now_s + TRY_S
            self._asked.send.append(call)

    def _doubt_silent(self, call: Call, owner: str, since_s: float, now_s: float) -> None:
        """Of an owner that is gone the server says so, when it is sent something once more."""
        key = owner or call.place
        probed_s = self._probed_s.get(key, 0.0)
        if call.is_group or since_s <= probed_s < now_s:
            self._store(call, Because.OWNER_SILENT)
        elif probed_s < since_s:
            self._probed_s[key] = now_s
            self._asked.send.append(call)


VACANT: Final = frozenset({Because.NO_RESPONDER, Because.OWNER_CHANGED})
"""Somebody else will serve the resource, in a moment most often."""
_UNDECIDED: Final = frozenset({CallState.SENT, CallState.STORING, CallState.STORED})
"""Nobody was asked to end it."""
