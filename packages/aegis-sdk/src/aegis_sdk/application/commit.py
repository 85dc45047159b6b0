"""Storing an outcome until the answer is definite: the one place where a commit is retried (G2, G3)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Final

from aegis_sdk.application.letters import keep_letter, why_given_up
from aegis_sdk.application.outcomes import too_large
from aegis_sdk.application.ports import (
    AlreadyStored,
    FenceRefused,
    Journal,
    StoreError,
    StoreFull,
    StoreTooLarge,
)
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.ids import is_keyed
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.telemetry import about, log

WAIT_S_MAX: Final = 0.5


async def commit(
    journal: Journal, request: Request, outcome: Outcome, *, fence_seq: int | None
) -> tuple[int, Outcome]:
    """(journal sequence, the outcome that is stored): ours, or the one that was first (sequence 0).

    It ends only with a definite answer, however long NATS is away: the publish is create-only, so
    sending it again is harmless. Raises: FenceRefused.
    """
    for n in itertools.count(1):
        try:
            return await journal.commit(request, outcome, fence_seq=fence_seq), outcome
        except AlreadyStored:
            stored = await first_outcome(journal, request)
            if stored is not None:
                return 0, stored
        except FenceRefused:
            raise
        except StoreTooLarge as error:
            log.error("outcome_too_large", **about(request), outcome=outcome.kind, error=str(error))
            outcome = too_large(outcome, f"{request.service}.{request.method}", str(error))
        except StoreError as error:
            log.warning(
                "commit_retried",
                **about(request),
                attempt=n,
                error_code="journal_full" if isinstance(error, StoreFull) else "unreachable",
            )
        await asyncio.sleep(backoff_s(n, first_s=0.01, max_s=WAIT_S_MAX))
    raise AssertionError("unreachable")


async def commit_together(
    journal: Journal, commits: Sequence[tuple[Request, Outcome]], *, fence_seq: int
) -> int:
    """The last one's sequence, or 0 when they are to be committed one by one.

    With 0 it may still be that they were stored, or will be until the first of them has an outcome: only
    then all of them, as they are. Each one's own commit finds that out. Raises: FenceRefused.
    """
    try:
        return await journal.commit_together(commits, fence_seq=fence_seq)
    except FenceRefused:
        raise
    except StoreError as error:
        log.info(
            "batch_taken_apart",
            **about(commits[0][0]),
            requests=len(commits),
            error_code=type(error).__name__,
        )
        return 0


async def first_outcome(journal: Journal, request: Request) -> Outcome | None:
    """The stored outcome, asked for until the journal answers."""
    for n in itertools.count(1):
        try:
            return await journal.outcome(request, anywhere=is_keyed(request.request_id))
        except StoreError:
            await asyncio.sleep(backoff_s(n, first_s=0.01, max_s=WAIT_S_MAX))
    raise AssertionError("unreachable")


async def give_up(
    journal: Journal,
    request: Request,
    begins: int,
    *,
    fence_seq: int | None,
    request_seq: int = 0,
    epoch: int = 0,
    instance_id: str = "",
    replaced: str = "",
) -> tuple[int, Outcome]:
    """End a request that had no outcome at each of its begins: `failed`, and a copy in the DLQ. `replaced` says why the
    active before this one was.

    The copy comes first: a crash between the two leaves a request that is given up again.
    Raises: FenceRefused.
    """
    outcome = Outcome.error(
        OutcomeKind.FAILED,
        "gave_up",
        why_given_up(request, begins, replaced),
        fingerprint=request.fingerprint,
        traceparent=request.traceparent,
        request_seq=request_seq,
        epoch=epoch,
        instance_id=instance_id,
    )
    await keep_letter(journal, request, outcome)
    log.error(
        "request_dead_lettered",
        **about(request),
        instance_id=instance_id,
        attempt=begins,
        epoch=epoch,
        outcome=outcome.kind.value,
    )
    return await commit(journal, request, outcome, fence_seq=fence_seq)


async def note_attempt(
    journal: Journal, request: Request, n: int, *, fence_seq: int | None
) -> None:
    """Note the `n`-th known begin of a request before it runs again. Raises: FenceRefused."""
    for wait in itertools.count(1):
        try:
            await journal.note_attempt(request, n, fence_seq=fence_seq)
            break
        except FenceRefused:
            raise
        except StoreError:
            await asyncio.sleep(backoff_s(wait, first_s=0.01, max_s=WAIT_S_MAX))
