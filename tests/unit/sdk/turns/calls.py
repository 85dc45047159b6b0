"""Transcripts of a caller: what comes in, a command a line, and what goes out, each line behind a `>`.

call c.1 acc [for=2000] [keyed] [group]   a request to acc is sent, with so many ms until its deadline
at 40                 it is 40 ms after the beginning; whatever was to be looked at until then was looked at
sleep 900             … but this process was stopped until then
answer c.1 i1         instance i1 has answered it
heard i1 acc          i1 has answered another one for acc
hears i1 acc 1010     … one every 40 ms, until it is 1010 ms after the beginning
busy c.1 | no_responder c.1     it was refused
stored c.1            it is stored
lost c.1              … in a log that is no more
hopeless c.1          it can't be stored
restored              there is a new connection
served acc i2         i2 serves acc from now on
moved c.1             whoever was asked is not the owner
"""

from __future__ import annotations

from aegis_sdk.domain.turns.doubt import TICK_S, Because, Call, Doubts


class CallPlayer:
    """Plays a transcript's commands on the open requests of one client."""

    def __init__(self) -> None:
        self.doubts = Doubts()
        self._ms = 0
        self._lines: list[str] = []

    @property
    def _now_s(self) -> float:
        return 1000 + self._ms / 1000

    def play(self, line: str) -> list[str]:
        """What goes out after one command."""
        verb, *words = line.split()
        named = dict(word.split("=", 1) for word in words if "=" in word)
        self._lines = []
        getattr(self, f"_{verb}")(*[word for word in words if "=" not in word], **named)
        self._show()
        return self._lines

    def _show(self) -> None:
        asked = self.doubts.take_asked()
        for name in ("store", "send", "cancel", "give_up"):
            for call in getattr(asked, name):
                because = f" ({call.because})" if name == "store" else ""
                self._lines.append(f"{self._ms} ms: {name} {call.request_id}{because}")

    def _call(self, request_id: str, resource: str, *flags: str, **named: str) -> None:
        deadline_s = self._now_s + int(named.get("for", "2000")) / 1000
        call = Call(
            request_id,
            ("s", resource),
            sent_s=self._now_s,
            deadline_s=deadline_s,
            is_group="group" in flags,
        )
        if not self.doubts.made(call, stored_as=Because.KEYED if "keyed" in flags else None):
            self._lines.append(f"{self._ms} ms: {request_id} waits")

    def _at(self, ms: str) -> None:
        tick = round(TICK_S * 1000)
        while self._ms < int(ms):
            self._ms += tick
            if self.doubts.next_look_s and self._now_s >= self.doubts.next_look_s - 1e-9:
                self.doubts.look(self._now_s)
                self._show()

    def _sleep(self, ms: str) -> None:
        self._ms = int(ms)
        self.doubts.look(self._now_s)

    def _answer(self, request_id: str, instance: str) -> None:
        self.doubts.heard(instance, self.doubts.open[request_id].place, self._now_s)
        self.doubts.ended(request_id)

    def _heard(self, instance: str, resource: str) -> None:
        self.doubts.heard(instance, ("s", resource), self._now_s)

    def _hears(self, instance: str, resource: str, ms: str) -> None:
        while self._ms < int(ms):
            self._at(str(min(self._ms + 40, int(ms))))
            self._heard(instance, resource)

    def _busy(self, request_id: str) -> None:
        self.doubts.refused(request_id, Because.BUSY, self._now_s)

    def _no_responder(self, request_id: str) -> None:
        self.doubts.refused(request_id, Because.NO_RESPONDER, self._now_s)

    def _stored(self, request_id: str) -> None:
        self.doubts.stored(request_id, self._now_s)

    def _lost(self, request_id: str) -> None:
        self.doubts.lost(request_id)

    def _hopeless(self, request_id: str) -> None:
        self.doubts.hopeless(request_id, self._now_s)

    def _restored(self) -> None:
        self.doubts.restored()

    def _served(self, resource: str, instance: str) -> None:
        self.doubts.served("s", {resource}, instance, self._now_s)

    def _moved(self, request_id: str) -> None:
        self.doubts.refused(request_id, Because.OWNER_CHANGED, self._now_s)
