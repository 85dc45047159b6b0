"""What a leader in memory has begun ends with its test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.control.support import Office


@pytest.fixture(autouse=True)
def terms_end() -> Iterator[None]:
    yield
    while Office.made:
        Office.made.pop().ends()
