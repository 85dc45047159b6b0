"""What a client of the suite writes down is what the SDK told it, no more."""

from __future__ import annotations

import io
from random import Random
from typing import Any, cast

import pytest
from aegis_sdk import Aegis, AegisError, NoRoute, OutcomeUnknown
from aegis_sdk.context import Ticket

from bench.chaos import client
from bench.chaos.client import Client, Recorder
from bench.chaos.history import Operation, Status, read
from bench.chaos.workloads import WORKLOADS

TRANSFERS = WORKLOADS["transfers"]


class Told:
    """An SDK that says one thing after the other."""

    def __init__(self, *said: AegisError | str) -> None:
        self._said = list(said)

    async def submit(self, *_: Any, **__: Any) -> Ticket:
        return Ticket(self._next(), TRANSFERS.service_name, None)

    async def attach(self, *_: Any, **__: Any) -> str:
        return self._next()

    def _next(self) -> str:
        said = self._said.pop(0)
        if isinstance(said, AegisError):
            raise said
        return said


async def written(*said: AegisError | str) -> Operation:
    """What is written down of one transfer."""
    file = io.StringIO()
    aegis = cast(Aegis, Told(*said))
    asking = Client("c", TRANSFERS, aegis, Recorder(file), Random(1))
    await asking._perform(TRANSFERS.draw(Random(1), "c-1", None))
    (operation,) = read(file.getvalue().splitlines()).operations
    return operation


async def test_a_refusal_is_definite_of_what_was_never_handed_in() -> None:
    assert (await written(NoRoute("nobody"))).status is Status.FAIL


@pytest.mark.parametrize("before", [[], ["ticket"]], ids=["maybe accepted", "accepted"])
async def test_a_refusal_says_nothing_of_what_may_be_accepted_since_an_earlier_try(
    before: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "AGAIN_S", 0.0)
    doubt = OutcomeUnknown("lost", "c.1")
    told = await written(*before, doubt, NoRoute("nobody"), "ticket", "999")
    assert (told.status, told.result) == (Status.OK, "999")
