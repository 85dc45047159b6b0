"""One nats-server for a module's tests; each test has a prefix of its own on it. It starts when a test asks for it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedNats]:
    with EmbeddedNats() as running:
        yield running


@pytest.fixture
def prefix() -> str:
    return f"t{secrets.token_hex(4)}"
