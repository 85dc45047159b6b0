"""A log that lost something: control notices it, nobody serves, and an operator's word begins it again (G6)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from aegis_control.application.refusal import Refused
from aegis_control.infrastructure.admin_client import AdminClient, AdminError
from aegis_sdk.contract.control import AcceptLoss
from aegis_sdk.infrastructure.turns.assembly import TurnClient
from aegis_sdk.nats.jetstream import JetStream

from tests.integration.control.support import until
from tests.integration.turns.support import ADD, SERVICE, WAIT_S, Add, World
from tests.integration.turns.test_ownership import (
    admin,
    control,
    member,
    new_world,  # noqa: F401
    until_owned,
)


async def add(client: TurnClient, resource: str) -> int:
    return (await client.request(ADD, Add(n=1), resource=resource, timeout_s=WAIT_S)).total


def accepts(operator: AdminClient) -> Callable[[], Awaitable[bool]]:
    """Whether control has noticed a loss, which is accepted then."""

    async def accepted() -> bool:
        try:
            await operator.accept_loss(AcceptLoss(service=SERVICE, by="test"))
        except (AdminError, Refused):
            return False
        return True

    return accepted


@pytest.mark.parametrize("what", ["deleted", "emptied", "without what says who owns what"])
async def test_a_lost_log_begins_again_when_an_operator_says_so(
    new_world: World, what: str  # noqa: F811
) -> None:
    """No number is given twice: the epochs go on."""
    world = new_world
    async with control(world), admin(world) as operator:
        await member(world, "accounts-0", ["R1", "R2"])
        before = await until_owned(world, "accounts-0", resources=["R1", "R2"])
        client = await world.client()
        assert [await add(client, "R1") for _ in range(3)] == [1, 2, 3]
        verb = "DELETE" if what == "deleted" else "PURGE"
        which = {"filter": world.names.own_anywhere} if what.startswith("without") else None
        js = JetStream(await world.link())
        await js.api(f"STREAM.{verb}.{world.names.stream}", which)
        await until(accepts(operator), "the loss is noticed", deadline_s=WAIT_S)
        found = await until_owned(world, "accounts-0", resources=["R1", "R2"])
        assert found.epoch("R1") > before.epoch("R1")
        assert await add(client, "R1") == (4 if which else 1)  # its turns are all there
        assert await add(client, "R2") == 1


async def test_what_has_a_hole_begins_behind_it_and_what_is_whole_goes_on(
    new_world: World,  # noqa: F811
) -> None:
    """The first entries are purged: of R1 outcomes are missing, R2 was called later."""
    world = new_world
    async with control(world), admin(world) as operator:
        await member(world, "accounts-0", ["R1", "R2"])
        await until_owned(world, "accounts-0", resources=["R1", "R2"])
        client = await world.client()
        assert [await add(client, "R1") for _ in range(3)] == [1, 2, 3]
        js = JetStream(await world.link())
        info = await js.api(f"STREAM.INFO.{world.names.stream}")
        upto = int(info["state"]["last_seq"])
        assert await add(client, "R1") == 4
        assert [await add(client, "R2") for _ in range(2)] == [1, 2]
        await js.api(f"STREAM.PURGE.{world.names.stream}", {"seq": upto + 1})
        await until(accepts(operator), "the loss is noticed", deadline_s=WAIT_S)
        await until_owned(world, "accounts-0", resources=["R1", "R2"])
        assert await add(client, "R1") == 1
        assert await add(client, "R2") == 3
