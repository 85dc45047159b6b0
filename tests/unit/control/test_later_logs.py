"""An instance that knew a later log than the registry does: registry and log are an older copy."""

from __future__ import annotations

import pytest
from aegis_control.domain.leading.logs import generation_of
from aegis_sdk.contract.control import MethodSpec, Registration, ResourceSeen, Role

from tests.unit.control.support import SERVICE, Office

ASKED: dict[str, object] = {"requests_id": "log-0", "request_seq": 45, "request_id": "c.45"}


def returning(journal_id: str, **more: object) -> bytes:
    return (
        Registration(
            service=SERVICE,
            instance_id="a",
            incarnation="run1",
            methods=[MethodSpec(name="book", targeted=True)],
            resources={"R1": Role.AUTO},
            returning=True,
            journal_id=journal_id,
        )
        .model_copy(update=more)
        .model_dump_json()
        .encode()
    )


@pytest.mark.parametrize(
    ("identity", "generation"),
    [("3-a1", 3), ("a1", 0), ("", 0), ("-1-a", 0), ("gone", 0), ("9" * 5_000 + "-a", 0)],
)
def test_an_identity_tells_its_generation(identity: str, generation: int) -> None:
    assert generation_of(identity) == generation


async def test_a_later_log_is_a_loss_and_the_next_one_is_behind_it() -> None:
    """G6: registry and stream agree with each other, and both are older."""
    office = Office()
    await office.registers("a")
    reply = await office.register(returning("2-ab", journal_seq=700))
    assert reply.code == "log_lost"
    assert "2-ab, a later one" in reply.message
    await office.admin("accept-loss", b'{"service": "%b"}' % SERVICE.encode())
    [(_, behind)] = office.logs.begun
    assert behind == 700


async def test_the_event_of_an_accepted_loss_says_what_was_lost() -> None:
    """The operator gave no reason; the loss itself is one, also when it is over."""
    office = Office()
    await office.registers("a")
    await office.register(returning("log-0", log_lost="it is gone"))
    await office.admin("accept-loss", b'{"service": "%b"}' % SERVICE.encode())
    assert "it is gone" in str(office.events.last("loss_accepted")["reason"])


async def test_an_earlier_log_is_none() -> None:
    """It was accepted while this instance was away."""
    office = Office()
    await office.registers("a")
    assert (await office.register(returning("log-older", log_lost="it is gone"))).ok


async def test_what_instances_knew_is_where_a_resource_goes_on() -> None:
    """G3, G5: its epoch and its last request that is done, also when the log forgot them."""
    office = Office()
    await office.registers("a")
    seen = {"R1": ResourceSeen(epoch=9, done=41)}
    lost = returning("log-0", log_lost="it is gone", resources_seen=seen, **ASKED)
    assert (await office.register(lost)).code == "log_lost"
    await office.admin("accept-loss", b'{"service": "%b"}' % SERVICE.encode())
    await office.register(returning("log-1"))
    assert office.lease().epoch == 11
    assert office.requests.forgotten == {"R1": 42}


async def test_what_was_done_in_another_log_of_requests_counts_for_nothing() -> None:
    """G1: the copy's requests have the numbers of others that are done."""
    office = Office()
    await office.registers("a")
    other = ASKED | {"request_id": "c.of-the-lost-one"}
    seen = {"R1": ResourceSeen(epoch=9, done=41)}
    await office.register(returning("log-0", log_lost="it is gone", resources_seen=seen, **other))
    await office.admin("accept-loss", b'{"service": "%b"}' % SERVICE.encode())
    await office.register(returning("log-1"))
    assert office.lease().epoch == 11
    assert office.requests.forgotten == {}
