"""Whether a request can be sent, from what is known of its service: one decision, however it became known."""

from __future__ import annotations

import pytest
from aegis_sdk.contract.control import InstanceState, LeaseState, MethodSpec, ServiceRecord
from aegis_sdk.domain.routes import Routes
from aegis_sdk.errors import (
    AegisError,
    ContractError,
    LogLost,
    NoRoute,
    UnknownMethod,
    UnknownService,
)

LIVE, EVICTED = InstanceState.LIVE, InstanceState.EVICTED
HELD, WAITING, VACANT = LeaseState.HELD, LeaseState.WAITING, LeaseState.VACANT


def known(*instances: InstanceState, lease: LeaseState = VACANT, lost: str = "") -> Routes:
    methods = [MethodSpec(name="book", targeted=True), MethodSpec(name="price", targeted=False)]
    routes = Routes(
        "svc", instances=dict(zip("abc", instances, strict=False)), leases={"A": lease}, lost=lost
    )
    routes.learn(ServiceRecord(service="svc", methods=methods))
    return routes


@pytest.mark.parametrize(
    ("routes", "method", "resource", "refusal"),
    [
        (Routes("svc"), "book", "A", UnknownService),
        (known(), "boook", "A", UnknownMethod),
        (known(lease=HELD), "book", None, ContractError),
        (known(LIVE), "price", "A", ContractError),
        (known(LIVE), "book", "A", NoRoute),
        (known(LIVE), "book", "B", NoRoute),
        (known(lease=HELD), "book", "A", None),
        (known(lease=WAITING), "book", "A", None),
        (known(), "price", None, NoRoute),
        (known(EVICTED), "price", None, NoRoute),
        (known(EVICTED, LIVE), "price", None, None),
        (known(LIVE, lease=HELD, lost="it is gone"), "book", "A", LogLost),
    ],
)
def test_a_request_is_admitted_or_refused_by_its_reason(
    routes: Routes, method: str, resource: str | None, refusal: type[AegisError] | None
) -> None:
    found = routes.refusal(method, resource)
    assert found is None if refusal is None else type(found) is refusal
    assert routes.admits(method, resource) is (refusal is None)


def test_a_contract_that_can_not_be_read_refuses_nobody() -> None:
    routes = Routes("svc", registered=True, leases={"A": HELD})
    assert routes.refusal("book", "A", contract_read=False) is None
    assert not routes.admits("book", "A"), "it is looked at again each time"
