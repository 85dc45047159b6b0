"""Notices that a service's journal is not the log that this process knows: emptied, replaced, or an older copy.

Control looks twice a second; this is for what happens before it looks. Three things tell, and none costs a
commit anything: an outcome that is stored at or before a position where one was stored earlier; a fence that is
refused because there is none; and each new connection. Then, before the next commit, the stream's identity and
end are looked at, and whether the last outcome that was stored here is still where it was. What it tells is final: the instance stops serving, and control asks an operator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aegis_sdk.application.ports import StoreError, StoreMissing, StoreUnreachable
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.nats.jetstream import decoded
from aegis_sdk.nats.link import Link

READ_TIMEOUT_S: Final = 2.0
IDENTITY: Final = "aegis.log"
"""The key of the stream's metadata that control writes when it makes the stream."""


class LogWatch:
    """Of the journal of `service`, whose identity is `log_id`."""

    def __init__(self, link: Link, subjects: Subjects, service: str, log_id: str) -> None:
        self.service = service
        self.log_id = log_id
        self.on_lost: Callable[[str], None] = lambda reason: None
        self.end = 0
        """The highest position where this process stored something."""
        self._link = link
        self._subjects = subjects
        self._sure_of = link.connected.session
        self._lost = ""
        self._last = ""
        """The subject of the message at `end`."""

    @property
    def is_sure(self) -> bool:
        """Nothing happened since the last look that could have hidden another log."""
        return self._sure_of == self._link.connected.session and not self._lost

    def stored(self, seq: int, subject: str) -> None:
        """A message of this process is in the journal."""
        if seq > self.end:
            self.end, self._last = seq, subject
        else:  # as a rule acknowledgements come in order, but not over a change of the stream's leader
            self._sure_of = ""

    async def make_sure(self) -> None:
        """Raises: StoreUnreachable while nothing may be stored: it can't be told, or it is another log."""
        session, stream = self._link.connected.session, self._subjects.journal_stream(self.service)
        # As they are now: while the server is asked, another commit may move them on.
        end, last = self.end, self._last
        if not self._lost:
            try:
                info = await self._link.api(f"STREAM.INFO.{stream}", {}, timeout_s=READ_TIMEOUT_S)
            except StoreMissing as error:
                if "stream not found" not in str(error):
                    raise StoreUnreachable(str(error)) from error
                self._tell("it is gone")
            else:
                self._compare(
                    (info["config"].get("metadata") or {}).get(IDENTITY, ""),
                    int(info["state"]["last_seq"]),
                    end,
                )
                await self._find_last(stream, end, last)
        if self._lost:
            raise StoreUnreachable(f"journal {stream}: {self._lost}")
        self._sure_of = session

    async def refused(self, resource: str | None, error: StoreError) -> None:
        """A commit was refused: by a newer fence, or because there is no fence, or no journal, any more."""
        if isinstance(error, StoreMissing):
            self._sure_of = ""
            return
        if resource is None or self._lost:
            return
        stream = self._subjects.journal_stream(self.service)
        fence = self._subjects.fence(self.service, resource)
        try:
            if await last_message(self._link, stream, fence) is None:
                self._tell(f"the fence of {resource!r} is gone")
        except StoreError:
            self._sure_of = ""

    async def _find_last(self, stream: str, end: int, last: str) -> None:
        """Another message in its place is proof; none at all may be the trim."""
        if not end or self._lost:
            return
        try:
            found = await self._link.api(
                f"STREAM.MSG.GET.{stream}", {"seq": end}, timeout_s=READ_TIMEOUT_S
            )
        except StoreMissing:
            return
        if (subject := found["message"]["subject"]) != last:
            self._tell(f"at {end} is {subject}, and {last} was stored there")

    def _compare(self, log_id: str, last_seq: int, end: int) -> None:
        if log_id != self.log_id:
            self._tell(f"its identity is {log_id or 'none'}, and was {self.log_id}")
        elif last_seq < end:
            self._tell(f"it ends at {last_seq}, and something was stored at {end}")

    def _tell(self, reason: str) -> None:
        if not self._lost:
            self._lost = reason
            self.on_lost(reason)


async def last_message(
    link: Link, stream: str, subject: str
) -> tuple[dict[str, str], bytes] | None:
    """(headers, payload) of the last message on `subject`, read from the stream's leader.

    Raises: StoreMissing (no such stream), StoreUnreachable.
    """
    try:
        found = await link.api(
            f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject}, timeout_s=READ_TIMEOUT_S
        )
    except StoreMissing as error:
        if "no message found" in str(error):
            return None
        raise
    kept = decoded(found["message"])
    return dict(kept.headers), kept.payload
