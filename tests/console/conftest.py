"""One browser for each test."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from playwright.async_api import Browser

from tests.console.support import browser


@pytest.fixture(autouse=True)
def log_beside_the_output() -> Iterator[None]:
    """Control runs in the process that reads what `ipc-cli` prints."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))
    yield
    structlog.reset_defaults()


@pytest.fixture
async def opened() -> AsyncIterator[Browser]:
    async with browser() as chromium:
        yield chromium
