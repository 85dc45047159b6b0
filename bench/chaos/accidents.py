"""What an operator may do by mistake, and what the right operator does then.

A stream, a bucket or a consumer is deleted or emptied while everything runs. Or all that NATS keeps is put back
from an older copy. Buckets and consumers come back by themselves. Of a service's requests or journal control tells
what is lost, and serves nothing of the service until that is accepted. What it told is written into the history, for
the checkers to know.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from typing import Any

import nats
from aegis_sdk.contract.control import AdminReply, LossAccepted
from aegis_sdk.contract.subjects import GROUP_CONSUMER, Subjects
from nats.aio.client import Client
from nats.errors import Error as NatsError

from bench.chaos.collect import Names, kept
from bench.chaos.history import Loss

SUBJECTS = Subjects()
TRY_S = 0.3
GIVE_UP_S = 60.0
QUIET_ROUNDS = 3
"""One asks each service after the other; on a busy machine it takes as long as a loss to be noticed."""
NOTICED_S = 4.0
"""How long after NATS is up again a loss may go unnoticed: what serves then is an older log."""


async def delete_bucket(urls: Sequence[str], n: int) -> str | None:
    """One of control's buckets; its name."""
    buckets = (SUBJECTS.registry_bucket, SUBJECTS.leases_bucket, SUBJECTS.control_bucket)
    name = f"KV_{buckets[n % len(buckets)]}"
    return name if await _done(urls, f"STREAM.DELETE.{name}") else None


async def delete_consumers(urls: Sequence[str], service: str, *, group: bool) -> str | None:
    """The group's consumer of a service, or those of who reads its requests."""
    stream, chosen = SUBJECTS.request_stream(service), []
    with contextlib.suppress(NatsError, TimeoutError, OSError):
        async with _connected(urls) as client:
            names = (await _api(client, f"CONSUMER.NAMES.{stream}")).get("consumers") or []
            chosen = [name for name in names if (name == GROUP_CONSUMER) is group]
            for name in chosen:
                await _api(client, f"CONSUMER.DELETE.{stream}.{name}")
    return f"consumers of {stream}" if chosen else None


async def lose_requests(urls: Sequence[str], service: str, names: Names) -> str | None:
    """A service's request stream is deleted; its name. What it held is added to `names`, for its outcomes."""
    stream = SUBJECTS.request_stream(service)
    with contextlib.suppress(NatsError, TimeoutError, OSError):
        async with _connected(urls) as client:
            names |= {name: entry.op for name, entry in (await kept(client, service)).items()}
    return stream if await _done(urls, f"STREAM.DELETE.{stream}") else None


async def lose_journal(urls: Sequence[str], service: str, *, purge: bool) -> str | None:
    """A service's journal is deleted, or emptied; its name."""
    verb, stream = "PURGE" if purge else "DELETE", SUBJECTS.journal_stream(service)
    return stream if await _done(urls, f"STREAM.{verb}.{stream}") else None


async def accept_losses(urls: Sequence[str], services: Sequence[str]) -> list[Loss]:
    """What control has told of by now is accepted, as an operator would; what that was."""
    losses = []
    for service in services:
        accepted = await _accept(urls, service)
        losses += [
            Loss(
                service=service,
                stream=loss.stream,
                what=loss.what,
                accepted_s=time.monotonic(),
                last_seq=loss.last_seq,
            )
            for loss in (accepted.losses if accepted else [])
        ]
    return losses


async def accept_all(urls: Sequence[str], services: Sequence[str]) -> list[Loss]:
    """`accept_losses` for as long as losses may still be noticed: instances have to come back to tell of theirs."""
    losses: list[Loss] = []
    until_s, quiet = time.monotonic() + NOTICED_S, 0
    while quiet < QUIET_ROUNDS or time.monotonic() < until_s:
        found = await accept_losses(urls, services)
        losses += found
        if found:
            until_s, quiet = time.monotonic() + NOTICED_S, 0
        quiet += 1
        await asyncio.sleep(TRY_S)
    return losses


async def _accept(urls: Sequence[str], service: str) -> LossAccepted | None:
    """None when nothing of it is lost. Raises: TimeoutError when control says neither for too long.

    A control that stops in the middle has accepted it, perhaps: so what is lost is asked for before.
    """
    found: LossAccepted | None = None
    async with asyncio.timeout(GIVE_UP_S):
        while True:
            told = await _asked(urls, service, dry_run=True)
            if told is not None and told.code == "refused":
                return found
            if told is not None and told.ok:
                found = LossAccepted.model_validate(told.data)
                said = await _asked(urls, service, dry_run=False)
                if said is not None and said.ok:
                    return LossAccepted.model_validate(said.data)
            await asyncio.sleep(TRY_S)


async def _asked(urls: Sequence[str], service: str, *, dry_run: bool) -> AdminReply | None:
    """Control's answer; None: there was none."""
    order = json.dumps({"service": service, "by": "chaos", "dry_run": dry_run}).encode()
    with contextlib.suppress(NatsError, TimeoutError, OSError):
        async with _connected(urls) as client:
            answer = await client.request(SUBJECTS.admin("accept-loss"), order, timeout=10.0)
        return AdminReply.model_validate_json(answer.data)
    return None


async def _done(urls: Sequence[str], request: str) -> bool:
    """Whether it was there to be done. NATS may be down just now."""
    with contextlib.suppress(NatsError, TimeoutError, OSError):
        async with _connected(urls) as client:
            return "error" not in await _api(client, request)
    return False


async def _api(client: Client, request: str) -> dict[str, Any]:
    message = await client.request(f"$JS.API.{request}", b"{}", timeout=5.0)
    answer: dict[str, Any] = json.loads(message.data)
    return answer


@contextlib.asynccontextmanager
async def _connected(urls: Sequence[str]) -> Any:
    client = await nats.connect(
        list(urls), allow_reconnect=False, connect_timeout=2, error_cb=_ignore
    )
    try:
        yield client
    finally:
        await client.close()


async def _ignore(_: Exception) -> None:
    """The faults are ours."""
