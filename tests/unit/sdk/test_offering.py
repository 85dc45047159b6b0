"""What a running instance offers: how long one change may hold up the next."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import pytest
from aegis_sdk.application.membership import Membership
from aegis_sdk.application.turns.offering import REST_S, Offering
from aegis_sdk.application.turns.serving import TurnServing
from aegis_sdk.contract.control import Role
from aegis_sdk.errors import Unavailable


class Serving:
    """Its checkpoints can't be stored: nothing can be given up."""

    def __init__(self) -> None:
        self.waited_s: list[float] = []

    async def release(self, resources: Collection[str], *, timeout_s: float) -> bool:
        self.waited_s.append(timeout_s)
        return False


class Member:
    def __init__(self) -> None:
        self.resources = {"R1": Role.AUTO}


@pytest.mark.parametrize(
    ("rests", "least_s", "most_s"), [(True, 0.9 * REST_S, REST_S), (False, 9.0, 10.0)]
)
async def test_what_rests_holds_up_no_other_change_for_long(
    rests: bool, least_s: float, most_s: float
) -> None:
    """Its checkpoint is tried again later; what is asked for waits to be added meanwhile."""
    serving = Serving()
    offering = Offering(
        cast(Membership, Member()), lambda: cast(TurnServing, serving), lambda: None
    )
    with pytest.raises(Unavailable, match="nothing was removed"):
        await offering.go(["R1"], rests=rests)
    assert least_s < serving.waited_s[0] <= most_s
    assert not offering.lock.locked()
