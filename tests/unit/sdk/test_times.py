"""A moment that the server tells in two forms is one number: lists and details agree to the digit."""

from __future__ import annotations

import random

import pytest
from aegis_sdk.nats.jetstream import parse_time, stored_time

SECOND = 1_795_449_960


def test_both_forms_of_a_moment_are_one_number() -> None:
    rng = random.Random(7)
    for _ in range(10_000):
        ns = rng.randrange(10**9)
        fraction = f".{ns:09}".rstrip("0").rstrip(".")  # as Go writes it
        told = parse_time(f"2026-11-23T16:06:00{fraction}Z")
        assert told == stored_time(f"$JS.ACK.S.c.1.5.5.{SECOND * 10**9 + ns}.0")


@pytest.mark.parametrize(
    ("text", "at_s"),
    [
        ("2026-11-23T16:06:00Z", SECOND),
        ("2026-11-23T16:06:00.5Z", SECOND + 0.5),
        ("2026-11-23T16:06:00.728496999Z", SECOND + 0.728496),
    ],
)
def test_it_is_told_to_the_microsecond(text: str, at_s: float) -> None:
    assert parse_time(text) == at_s


def test_a_delivery_across_accounts_has_a_longer_subject() -> None:
    reply = f"$JS.ACK.hub.account.S.c.1.5.5.{SECOND}500000000.0.token"
    assert stored_time(reply) == SECOND + 0.5
