"""One nats-server and one browser for each test's own system; the prefix keeps them apart."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from playwright.async_api import Browser

from tests.console.support import browser


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedNats]:
    with EmbeddedNats() as running:
        yield running


@pytest.fixture
def prefix() -> str:
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
async def opened() -> AsyncIterator[Browser]:
    async with browser() as chromium:
        yield chromium
