"""One browser for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from tests.console.support import browser


@pytest.fixture
async def opened() -> AsyncIterator[Browser]:
    async with browser() as chromium:
        yield chromium
