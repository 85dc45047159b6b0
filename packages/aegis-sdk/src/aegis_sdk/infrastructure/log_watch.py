"""Notices that a service's journal or requests are not the log that this process knows: emptied, replaced, an older copy.

Control looks twice a second; this is for what happens before it looks. It is asked before each claim, after a refused turn, and
before a reader is made anew. Then it looks at the streams' identity and ends. It also looks whether these are still
where they were: the entries that were read and stored last, the stored request, and a checkpoint that must be there. An end alone says little: others
go on writing, and a moment later an older copy is as long as the log was. Nothing replaces a turn or a single, and the trim takes each of these kinds
from the oldest on: where one is gone and an older one of its kind is there, it was lost. An instance that reads on behind that end would
never read what they wrote. What the watch tells is final: the instance stops serving, and control asks an operator.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from aegis_sdk.application.ports import StoreMissing, StoreUnreachable
from aegis_sdk.contract.envelope import MSG_ID
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.infrastructure.messages import READ_TIMEOUT_S, last_message, message
from aegis_sdk.nats.link import Link

PASSED_MAX: Final = 8
"""Of the entries that were read last, and of each kind among them that nobody replaces, so many are remembered."""
LASTING: Final = ("turn", "at")
"""The kinds of entries that go by the trim alone, each from the log's beginning on. The outcomes of group requests go by age."""
SAME_S: Final = 1e-3
"""Two messages at one place of the same log were stored at the same moment, but for what a float leaves of nanoseconds."""
IDENTITY: Final = "aegis.log"
"""The key of the stream's metadata that control writes when it makes the stream."""


class Mark(NamedTuple):
    """A stored request's place and id."""

    seq: int
    request_id: str


class Passed(NamedTuple):
    """An entry that was read, and when the server stored it; not a number if that is not known."""

    seq: int
    subject: str
    stored_s: float
    kind: str
    """The first word of its name: `turn`, `at`, `gate`..."""


class _Known(NamedTuple):
    """What must still be there."""

    given: Mark
    passed: Sequence[Passed]
    """In the log's order."""


class LogWatch:
    """Of the logs of `service`; the journal's identity is `log_id`, that of the requests `requests_id`.

    One for an instance and its incarnation. Readers and the writer tell it what they see, at the cost of a tuple; it asks the
    server only when it is asked. Invariant: what a connection brought is proved or stands in `_unproved` until it is, also if
    that connection ended before anybody looked. Once lost, always lost: there is no way back in this object.
    """

    def __init__(
        self,
        link: Link,
        subjects: Subjects,
        service: str,
        log_id: str,
        requests_id: str = "",
    ) -> None:
        self.service = service
        self.log_id = log_id
        self.requests_id = requests_id
        self.on_lost: Callable[[str], None] = lambda reason: None
        self.on_requests_lost: Callable[[str], None] = lambda reason: None
        self.kept: Callable[[], str] = lambda: ""
        """The subject of an entry that nobody removes, if one is known."""
        self._link = link
        self._subjects = subjects
        self._noted = self._proved = link.connected.losses
        """Of which connection it was noted what was known before it, and which is known to bring the same log: by their number."""
        self._lost = self._requests_lost = ""
        self._given = Mark(0, "")
        self._passed: deque[Passed] = deque(maxlen=PASSED_MAX)
        self._lasting: Mapping[str, deque[Passed]] = {
            kind: deque(maxlen=PASSED_MAX) for kind in LASTING
        }
        self._own: dict[str, Passed] = {}
        """The newest of each kind that this process stored and that was acknowledged."""
        self._unproved: list[_Known] = []
        """As it was when each connection ended since the last look; what comes by the next one may be of another log."""

    @property
    def is_sure(self) -> bool:
        """Nothing happened since the last look that could have hidden another log."""
        return self._proved == self._link.connected.losses and not self.is_lost

    @property
    def is_lost(self) -> bool:
        return bool(self._lost or self._requests_lost)

    @property
    def newest_request(self) -> Mark:
        """What was given to this process; after a new connection, what was before it."""
        return self._unproved[0].given if self._unproved else self._given

    def passed(self, seq: int, subject: str, stored_s: float, kind: str) -> None:
        """Something was read in the journal."""
        self._note()
        entry = Passed(seq, subject, stored_s, kind)
        self._passed.append(entry)
        if kind in LASTING:
            self._lasting[kind].append(entry)

    def stored(self, seq: int, subject: str, kind: str) -> None:
        """Something of this process was that nobody replaces; it may not be read yet."""
        self._note()
        self._own[kind] = Passed(seq, subject, math.nan, kind)

    def given(self, seq: int, request_id: str) -> None:
        """A request was delivered."""
        self._note()
        if seq > self._given.seq:
            self._given = Mark(seq, request_id)

    def _note(self) -> None:
        """Before anything of a new connection: what was known by then must be in its log. A connection may end unproved, too."""
        losses = self._link.connected.losses
        if losses == self._noted:
            return
        self._noted = losses
        read = (*chain(*self._lasting.values()), *self._passed)
        passed = {entry.seq: entry for entry in (*self._own.values(), *read)}
        known = _Known(self._given, [passed[seq] for seq in sorted(passed)])
        if not self._unproved or known != self._unproved[-1]:
            self._unproved.append(known)

    async def make_sure(self) -> None:
        """Look whether these are still the logs that were known before each connection that ended since the last look.

        A few round trips; without a doubt, two or three. A connection that is lost meanwhile proves nothing: the next look
        begins with what was known by then. Raises: StoreUnreachable while nothing may be stored: it can't be told, or it is
        another log.
        """
        self._note()
        connection = self._noted
        # As they are now: while the server is asked, another commit may move them on.
        unproved = list(self._unproved)
        if not self.is_lost:
            await self._look_at_journal([known.passed for known in unproved])
            for known in unproved:
                await self._look_at_requests(known.given)
        if self.is_lost:
            raise StoreUnreachable(f"{self.service}: {self._lost or self._requests_lost}")
        if connection == self._link.connected.losses:
            self._unproved = [known for known in self._unproved if known not in unproved]
            self._proved = connection

    async def _look_at_journal(self, groups: Sequence[Sequence[Passed]]) -> None:
        stream = self._subjects.journal_stream(self.service)
        try:
            state = await self._compare(stream, self.log_id, self._tell)
            for (
                passed
            ) in groups:  # each by itself: the newest that is there tells of its own log alone
                await self._find_passed(passed, stream, int(state["last_seq"]))
            await self._find_kept(stream)
        except StoreMissing as error:
            if "stream not found" not in str(error):
                raise StoreUnreachable(str(error)) from error
            self._tell("it is gone")

    async def _find_passed(self, passed: Sequence[Passed], stream: str, last_seq: int) -> None:
        """The newest that is still there tells of all before it. In this order: a trim goes from the log's beginning on.

        Raises: StoreError.
        """
        if passed and last_seq < passed[-1].seq:
            self._tell(f"it ends at {last_seq}, and was read to {passed[-1].seq}")
        gone: dict[str, Passed] = {}
        for entry in reversed(passed):
            found = await message(self._link, stream, {"seq": entry.seq})
            if found is None:
                if entry.kind in LASTING:
                    gone.setdefault(entry.kind, entry)
            elif found.subject != entry.subject or abs(found.at_s - entry.stored_s) > SAME_S:
                self._tell(f"at {entry.seq} is another {found.subject} than was read there")
                return
            elif not gone:
                return
            elif lost := gone.get(entry.kind):
                self._tell(f"at {lost.seq} is nothing, and {lost.subject} was stored there")
                return

    async def _find_kept(self, stream: str) -> None:
        """Raises: StoreError."""
        subject = self.kept()
        if subject and await last_message(self._link, stream, subject) is None:
            self._tell(f"{subject} is gone")

    async def _look_at_requests(self, given: Mark) -> None:
        """Raises: StoreError."""
        if not given.seq:
            return
        stream, tell = self._subjects.request_stream(self.service), self._tell_requests
        with contextlib.suppress(StoreMissing):  # control sees that it is gone
            # In this order: control may forget it at any moment, from the stream's beginning on.
            found = await message(self._link, stream, {"seq": given.seq})
            state = await self._compare(stream, self.requests_id, tell)
            if (last_seq := int(state["last_seq"])) < given.seq:
                tell(f"it ends at {last_seq}, and something was stored at {given.seq}")
            elif found is None and given.seq >= int(state["first_seq"]):
                tell(f"at {given.seq} is nothing, and {given.request_id} was stored there")
            elif found is not None and found.headers.get(MSG_ID) != given.request_id:
                other = found.headers.get(MSG_ID, "another")
                tell(f"at {given.seq} is {other}, and {given.request_id} was stored there")

    async def _compare(
        self, stream: str, known: str, tell: Callable[[str], None]
    ) -> Mapping[str, Any]:
        """Its state. Raises: StoreError."""
        info = await self._link.api(f"STREAM.INFO.{stream}", {}, timeout_s=READ_TIMEOUT_S)
        identity = (info["config"].get("metadata") or {}).get(IDENTITY, "")
        if identity != known:
            tell(f"its identity is {identity or 'none'}, and was {known}")
        state: Mapping[str, Any] = info["state"]
        return state

    def _tell(self, reason: str) -> None:
        if not self._lost:
            self._lost = reason
            self.on_lost(reason)

    def _tell_requests(self, reason: str) -> None:
        if not self._requests_lost:
            self._requests_lost = reason
            self.on_requests_lost(reason)
