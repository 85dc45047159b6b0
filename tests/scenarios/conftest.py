"""Each scenario gets a whole system of its own, since it will break it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.scenarios.system import System, running_system


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.scenario)


@pytest.fixture
async def system() -> AsyncIterator[System]:
    async with running_system() as running:
        yield running
