"""What handlers hand in to be done later: part of their outcome, sent once that is stored.

Theory of operation. An outcome's change lists the requests that its handler handed in. So they are stored with it, or not at
all: a handler that raised, was rejected, expired or was cancelled has sent nothing. After the entry is stored its writer sends
them. Their ids are derived from the request that was served, so that each may be sent any number of times. What was sent is
marked in a later turn: "of this resource, up to outcome n". Whoever owns the resource next sends again what is not marked.

What must stay true: a mark follows the sending. What would break: a mark that is stored before its request is, since the
next owner would not send it. What is sent twice is told by its id, so that marks may come late, and come with other turns.
"""

from __future__ import annotations

from itertools import islice

from aegis_sdk.domain.turns.output import Output, Sending
from aegis_sdk.domain.turns.work import Held


class Outbox:
    """Of the resources of one writer."""

    __slots__ = ("_marks", "is_due")

    def __init__(self) -> None:
        self._marks: dict[str, int] = {}
        self.is_due = False
        """Marks have waited long enough to be stored without company."""

    def stored(self, held: Held, number: int, out: Output) -> None:
        """An outcome of ours is stored: send what it hands in."""
        contents = held.unsent.get(number)
        if contents is not None:
            out.send += [Sending(held.name, number, content) for content in contents]

    def owned(self, held: Held, out: Output) -> None:
        """The resource is ours from now on: send again all that is not known to be sent."""
        for number in held.unsent:
            self.stored(held, number, out)

    def sent(self, held: Held, sending: Sending) -> None:
        """It is stored in its service's requests."""
        contents = held.unsent.get(sending.number)
        if contents is None or sending.content not in contents:
            return  # sent twice
        contents.remove(sending.content)
        if not contents:
            del held.unsent[sending.number]
            self._mark(held)

    def _mark(self, held: Held) -> None:
        held.is_changed = True
        self._marks[held.name] = min(held.unsent) - 1 if held.unsent else held.number

    def read(self, held: Held, number: int) -> None:
        """A mark in the log."""
        if held.unsent:
            held.unsent = {n: contents for n, contents in held.unsent.items() if n > number}

    def tick(self) -> None:
        self.is_due = bool(self._marks)

    def take(self, most: int) -> dict[str, int]:
        """Marks for the entry that is being made."""
        marks = dict(islice(self._marks.items(), most))
        for resource in marks:
            del self._marks[resource]
        self.is_due = False
        return marks

    def put_back(self, marks: dict[str, int]) -> None:
        """That entry is not stored."""
        self._marks = marks | self._marks
