"""Which connection may write as a writer (R10): of two processes with one identity, at most one goes on.

Theory of operation. A process can be copied with all that it knows: a cloned machine, a container restored twice. Its copy has
the same writer's name, and the server takes its turns. Turns with one outcome have a subject of their own, so that not even
their numbers collide. But a copy never shares the connection to NATS: it has to connect anew. So a process that
connects stores a *claim*, an entry that is never replaced, with a nonce that it has just drawn, and behind it a gate
of its own writer. It stores nothing before it has read both. Who reads, behind its own newest claim, one of its writer that it
did not make stops: so of those that claim, the last one goes on. What another stored under that name before the own claim, it
folds as anybody's.

What must stay true: every turn is stored under a connection whose claim, and a gate behind it, were read on that
connection. What would break: a copy that stores before that passes its original, and both answer for what only one did.
"""

from __future__ import annotations

from aegis_sdk.contract.turns.writers import run_of


class Claims:
    """The claims of one process for one writer."""

    def __init__(self, writer: str) -> None:
        self.writer = writer
        self._own: set[str] = set()
        self._newest = ""
        self._claim_is_read = self._gate_is_read = False
        self._session = ""
        """The connection that the newest claim is for."""
        self._sure_of = ""

    def begin(self, nonce: str, session: str) -> None:
        """A claim is about to be stored on the connection `session`, and a gate behind it."""
        self._own.add(nonce)
        self._newest, self._session = nonce, session
        self._claim_is_read = self._gate_is_read = False

    def doubt(self) -> None:
        """Nothing is written until a new claim was read."""
        self._sure_of = ""

    def read_claim(self, writer: str, nonce: str) -> str:
        """Why this process must stop, or empty."""
        if writer != self.writer:
            return ""
        if nonce not in self._own:
            if not self._claim_is_read:
                return ""  # its process reads ours, which comes behind it
            return (
                f"another process runs as {run_of(writer)[0]}, with the same incarnation: it claimed writer {writer}"
                " (a cloned process, machine or container?)"
            )
        self._claim_is_read = self._claim_is_read or nonce == self._newest
        return ""

    @property
    def is_claimed(self) -> bool:
        """Whether a gate behind the newest claim was read: from there on nobody else stores anything as this writer."""
        return self._gate_is_read

    def read_gate(self, writer: str) -> None:
        """Any gate behind the claim will do: a copy's older turns are refused from there on."""
        if writer == self.writer and self._claim_is_read:
            self._gate_is_read, self._sure_of = True, self._session

    def may_write(self, session: str) -> bool:
        """On the connection `session`; none is empty."""
        return session == self._sure_of and session != ""
