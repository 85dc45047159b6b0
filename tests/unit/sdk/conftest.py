"""Hypothesis without a time limit for each example (the machine may be busy with other suites), and the bus."""

from __future__ import annotations

import pytest
from aegis_sdk.application import resource_host
from aegis_sdk.testing import MemoryBus
from hypothesis import HealthCheck, settings

from tests.unit.sdk.support import SERVICE

settings.register_profile(
    "sdk", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sdk")


@pytest.fixture
def bus() -> MemoryBus:
    made = MemoryBus(turns=False)
    made.provision(SERVICE)
    return made


@pytest.fixture(params=["whole", "fences"])
def narrowed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether an active follows fences alone, as it does a moment after its promotion."""
    fences = bool(request.param == "fences")
    monkeypatch.setattr(resource_host, "REFOLLOW_WAIT_S", 0.0 if fences else 60.0)
    return fences
