"""What a writer decided: the host executes it, in this order, and feeds back what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.domain.turns.work import Work, Write


class Sending:
    """One request that an outcome hands in. Its id is derived, so that it may be sent any number of times."""

    __slots__ = ("content", "number", "resource", "work")

    def __init__(
        self, resource: str, number: int, content: Mapping[str, Any], work: Work | None = None
    ) -> None:
        self.resource = resource
        self.number = number
        self.content = content
        self.work = work
        """The group's request that hands it in."""


class Save:
    """A checkpoint to be stored under its writer's gate."""

    __slots__ = ("checkpoint", "gate")

    def __init__(self, checkpoint: Checkpoint, gate: int) -> None:
        self.checkpoint = checkpoint
        self.gate = gate


class Output:
    """What the host is to do, in this order."""

    __slots__ = (
        "answer",
        "cancel",
        "dropped",
        "keep",
        "left",
        "look_up",
        "noted",
        "run",
        "save",
        "send",
        "serving",
        "shut_out",
        "stop",
        "store",
        "unknown",
    )

    def __init__(self) -> None:
        self.stop = ""
        """Why this writer must end, and serve nothing more."""
        self.shut_out: list[str] = []
        """Writers to store a new gate of."""
        self.store: list[Write] = []
        self.answer: list[Work] = []
        """Their outcomes are stored. A stored request is acknowledged, too."""
        self.send: list[Sending] = []
        """Requests to store: each is fed back to `sent`."""
        self.run: list[Work] = []
        """Handlers to begin, each on its resource's `values` as they are now."""
        self.cancel: list[Work] = []
        """Handlers whose outcome can't count any more."""
        self.noted: list[Work] = []
        """Handlers that were to be noted first, and may run now."""
        self.look_up: list[Work] = []
        self.keep: list[Work] = []
        """A group's requests to store under their own ids before their outcomes are: each is fed back to `kept`."""
        self.dropped: list[Work] = []
        """Nothing of them was stored here; each says `why`."""
        self.save: list[Save] = []
        """Each is tried once: if it is not known what became of one, `save_lost`."""
        self.serving: dict[str, None] = {}
        """Resources that are served from now on. One that is lost again before anybody is told was never served."""
        self.left: list[str] = []
        self.unknown: list[str] = []
        """Ours by the log, and not held: fetch the checkpoint, read up to here with another writer, and `adopt` it."""

    def __bool__(self) -> bool:
        return bool(
            (self.store or self.answer or self.run or self.dropped or self.look_up or self.cancel)
            or (self.stop or self.shut_out or self.serving or self.left)
            or (self.noted or self.send or self.save or self.keep or self.unknown)
        )
