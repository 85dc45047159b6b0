"""Hypothesis without a time limit for each example: the machine may be busy with other suites."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "sdk", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sdk")
