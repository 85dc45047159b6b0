"""Who is hit and who follows, on one pair of instances and on many that share."""

from __future__ import annotations

import asyncio

import pytest
from aegis_demo.layouts import Layout, Pair, Shared, layout_of
from aegis_demo.witness import Directory
from aegis_sdk.contract.control import InstanceRecord, LeaseRecord, LeaseState, Role

A, B = "ACC-A", "ACC-B"


def lease(account: str, owner: str, epoch: int = 1) -> LeaseRecord:
    return LeaseRecord(
        service="accounts",
        resource=account,
        state=LeaseState.HELD,
        owner=owner,
        incarnation=f"{owner}-0",
        epoch=epoch,
    )


def directory(*, following: tuple[str, ...] = (), **owners: str) -> Directory:
    """`A="one"`: instance one is active for account A; `following` follow both accounts."""
    names = {*owners.values(), *following}
    instances = {
        name: InstanceRecord(
            service="accounts",
            instance_id=name,
            incarnation=f"{name}-0",
            resources=dict.fromkeys((A, B), Role.STANDBY) if name in following else {},
        )
        for name in names
    }
    leases = {f"ACC-{name}": lease(f"ACC-{name}", owner) for name, owner in owners.items()}
    return Directory(leases, instances)


def test_more_than_two_share_and_so_do_two_that_a_third_will_join() -> None:
    chosen = [
        type(layout_of([A, B], instances=instances, grow=grow))
        for instances, grow in ((2, False), (3, False), (2, True))
    ]
    assert chosen == [Pair, Shared, Shared]


@pytest.mark.parametrize(
    ("layout", "held", "active"),
    [
        (Pair([A, B]), directory(), None),
        (Pair([A, B]), directory(A="one"), None),
        (Pair([A, B]), directory(A="one", B="two"), None),
        (Pair([A, B]), directory(A="one", B="one"), "one"),
        (Shared(3), directory(), None),
        (Shared(3), directory(A="one", B="two", C="two"), "two"),
    ],
)
def test_the_active_is_of_all_accounts_in_a_pair_and_of_most_among_many(
    layout: Layout, held: Directory, active: str | None
) -> None:
    assert layout.active(held) == active


def test_orders_wait_for_the_pairs_active_alone() -> None:
    assert [Pair([A]).is_ready(each) for each in (directory(), directory(A="one"))] == [False, True]
    assert Shared(3).is_ready(directory())


@pytest.mark.parametrize(
    ("layout", "successor"), [(Pair([A, B]), "two"), (Shared(3), "three, two")]
)
async def test_a_successor_is_there_when_nothing_is_the_victims_any_more(
    layout: Layout, successor: str
) -> None:
    told = directory(A="one", B="one")
    waiting = asyncio.create_task(layout.successor(told, "one"))
    last = successor.partition(",")[0]
    for account, owner in ((A, "two"), (B, last)):
        await asyncio.sleep(0)
        assert not waiting.done()
        async with told._changed:
            told.leases[account] = lease(account, owner, epoch=2)
            told._changed.notify_all()
    async with asyncio.timeout(5):
        assert await waiting == successor


def test_the_pairs_standby_lives_and_its_process_runs() -> None:
    told = directory(A="one", B="one", following=("two",))
    pair = Pair([A, B])
    assert pair.has_standby(told, ["one", "two"])
    assert not pair.has_standby(told, ["one"])  # it was stopped, or has ended
    del told.instances["two"]
    assert not pair.has_standby(told, ["one", "two"])  # control does not know it (yet)


def test_among_many_each_account_has_a_live_follower_beside_its_active() -> None:
    running = ["one", "two", "three"]
    assert Shared(3).has_standby(directory(A="one", B="two", following=("three",)), running)
    assert not Shared(3).has_standby(directory(A="one", B="two"), running)
    assert not Shared(3).has_standby(directory(A="one", following=("one",)), running)


def test_a_pairs_failovers_are_read_from_its_epochs() -> None:
    """Among many, epochs also move with accounts that are handed over."""
    told = directory(A="one", B="one")
    since = told.epochs()
    told.leases[A] = lease(A, "two", epoch=3)
    assert Pair([A, B]).failovers(told, since=since, provoked=1) == 2
    assert Shared(3).failovers(told, since=since, provoked=1) == 1
