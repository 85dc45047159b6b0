"""Hypothesis without a time limit for each example (the machine may be busy with other suites), and the bus."""

from __future__ import annotations

import pytest
from aegis_sdk.testing import MemoryBus
from hypothesis import HealthCheck, settings

from tests.unit.sdk.support import SERVICE

settings.register_profile(
    "sdk", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sdk")


@pytest.fixture
def bus() -> MemoryBus:
    made = MemoryBus()
    made.provision(SERVICE)
    return made
