"""Looks for outcomes in a service's log on behalf of callers: who attaches, cancels, or asks by a key.

An outcome stands in one of three places, and the id tells which to try: under its own name (a single, one read), under the
name of a turn of one (one read), or in a turn that it shares, for which the headers of all entries are read. What stands
under a request's name is final. So an entry that this version can't read is an outcome, too: `unreadable`. To take it for
"not there" would have the request run again.

That a log says nothing of an id is only worth something up to the position where it was read. Who needs a certain "never"
stores an end first (last_word.py).
"""

from __future__ import annotations

import asyncio

from aegis_sdk.application.ports import StoreMissing, StoreUnreachable
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.entries import EntryUnreadable, Record, decode_turn
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.domain.turns.sessions import is_single
from aegis_sdk.infrastructure.messages import READ_TIMEOUT_S, last_message
from aegis_sdk.infrastructure.turns.search import outcomes_up_to, unreadable
from aegis_sdk.nats.jetstream import Kept
from aegis_sdk.nats.link import Link


class LogOutcomes:
    """Outcomes (application/turns/ports.py). It keeps nothing.

    Under a name, a log that is not there has no outcome: nobody ever registered the service. Everything else that leaves a
    question open raises a StoreError, a search through a log that is not there among it.
    """

    def __init__(self, link: Link, subjects: Subjects) -> None:
        self._link = link
        self._subjects = subjects

    async def named(self, request: Request, *, anywhere: bool) -> Record | None:
        names, request_id = LogSubjects(self._subjects, request.service), request.request_id
        subject = (
            names.single_anywhere(request_id)
            if anywhere
            else names.single(request.resource, request_id)
        )
        return await self._read(names, subject, request)

    async def anywhere(self, request: Request, *, timeout_s: float) -> Outcome | None:
        names, request_id = LogSubjects(self._subjects, request.service), request.request_id
        subjects = [names.single_anywhere(request_id)]
        if not is_single(request_id):
            subjects.append(names.turn_of_one_anywhere(request_id))
        for subject in subjects:
            if (record := await self._read(names, subject, request)) is not None:
                return record.outcome
        if is_single(request_id):
            return None
        try:
            async with asyncio.timeout(timeout_s):
                found = await outcomes_up_to(
                    self._link, names, (request_id,), from_s=None, to_seq=None, silence_s=timeout_s
                )
        except TimeoutError as error:
            raise StoreUnreachable(f"the log was not read in {timeout_s:g} s") from error
        return found.get(request_id)

    async def children(self, service: str, parent_token: str) -> list[str]:
        """Their outcomes are singles, so the server's list of subjects has them, page by page: no entry is read. Raises:
        StoreError.
        """
        names = LogSubjects(self._subjects, service)
        wanted = names.single_anywhere(f"{parent_token}.*")
        found: list[str] = []
        while True:
            info = await self._link.api(
                f"STREAM.INFO.{names.stream}",
                {"subjects_filter": wanted, "offset": len(found)},
                timeout_s=READ_TIMEOUT_S,
            )
            page = info["state"].get("subjects") or {}
            found += [".".join(names.words(subject)[3:]) for subject in page]
            if not page or len(found) >= int(info.get("total", 0)):
                return found

    async def _read(self, names: LogSubjects, subject: str, request: Request) -> Record | None:
        try:
            found = await last_message(self._link, names.stream, subject)
        except StoreMissing:
            return None  # nobody ever registered the service
        return None if found is None else _record(found, request)


def _record(entry: Kept, request: Request) -> Record | None:
    """What stands under a request's name is how it ended, whether this version can read it or not."""
    try:
        records = decode_turn(entry.payload)
    except EntryUnreadable as error:
        return Record(request.request_id, request.resource, request.method, b"", unreadable(error))
    return next((each for each in records if each.request_id == request.request_id), None)
